# ruff: noqa: N802 - methods are named by the protos
"""Large bytes on a bad line: nothing is sent or fetched twice, and other bytes than those of the digest are refused."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from headrace import transfer
from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.transfer import TransferInterrupted, TransferRefused, download_file, upload_file

PART = 1 << 20


class Store(ThreadingHTTPServer):
    """An object store that breaks connections when it is told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.parts: dict[str, bytes] = {}
        self.puts: Counter[str] = Counter()
        self.content = b""
        self.broken: set[str] = set()
        self.cut_after = 0
        self.status = 503
        self.stumbles = 0
        self.knows_ranges = True
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Store  # pyright: ignore[reportIncompatibleVariableOverride] - it serves no other

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.puts[self.path] += 1
        if self.path in self.server.broken:
            self.server.stumbles -= 1
            if self.server.stumbles == 0:
                self.server.broken.clear()
            self.send_error(self.server.status)
            return
        self.server.parts[self.path] = content
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.server.asked.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-") or 0) if self.server.knows_ranges else 0
        content = self.server.content[start:]
        self.send_response(206 if asked and self.server.knows_ranges else 200)
        self.send_header("Content-Length", str(len(content)))
        if asked and self.server.knows_ranges:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(self.server.content) - 1}/{len(self.server.content)}"
            )
        self.end_headers()
        if self.server.cut_after:
            content, self.server.cut_after = content[: self.server.cut_after], 0
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


class Tracker:
    """Signs parts that the store has not."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.begun, self.completed, self.aborted = list[str](), list[str](), list[str]()

    def BeginUpload(self, request: service.BeginUploadRequest, timeout: float) -> service.BeginUploadResponse:
        upload = request.upload_id or f"u{len(self.begun)}"
        self.begun.append(upload)
        count = -(-request.size_bytes // PART)
        parts = [
            service.UploadPart(
                number=number,
                url="" if f"/{upload}/{number}" in self._store.parts else f"{self._store.url}/{upload}/{number}",
            )
            for number in range(1, count + 1)
        ]
        wanted = ObjectRef(sha256=request.sha256, size_bytes=request.size_bytes)
        return service.BeginUploadResponse(upload_id=upload, part_size_bytes=PART, parts=parts, object=wanted)

    def CompleteUpload(self, request: service.CompleteUploadRequest, timeout: float) -> service.CompleteUploadResponse:
        self.completed.append(request.upload_id)
        return service.CompleteUploadResponse()

    def PresignUpload(self, request: service.PresignUploadRequest, timeout: float) -> service.PresignUploadResponse:
        return service.PresignUploadResponse(url=f"{self._store.url}/small", object=ObjectRef(sha256=request.sha256))

    def AbortUpload(self, request: service.AbortUploadRequest, timeout: float) -> service.AbortUploadResponse:
        self.aborted.append(request.upload_id)
        return service.AbortUploadResponse()


@pytest.fixture
def store() -> Iterator[Store]:
    server = Store()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(transfer, "LARGE_BYTES", PART)
    monkeypatch.setattr(transfer, "PAUSES_S", (0.01, 0.01))
    path = tmp_path / "large"
    path.write_bytes(os.urandom(5 * PART + 100))
    return path


def whole(store: Store, upload: str) -> bytes:
    return b"".join(store.parts[f"/{upload}/{number}"] for number in range(1, 7))


def send(tracker: Tracker, path: Path, resume: Path | None = None) -> ObjectRef:
    stub: Any = tracker  # Any: a fake of the calls that an upload takes
    return upload_file(stub, "projects/p", path, media_type="x/y", resume=resume)


def test_a_large_file_is_sent_in_parts(store: Store, large: Path) -> None:
    tracker = Tracker(store)
    stored = send(tracker, large)
    assert stored.sha256 == hashlib.sha256(large.read_bytes()).hexdigest()
    assert whole(store, "u0") == large.read_bytes()
    assert tracker.completed == ["u0"]


def test_another_process_sends_only_what_is_missing(store: Store, large: Path, tmp_path: Path) -> None:
    tracker, noted = Tracker(store), tmp_path / "large.upload"
    store.broken = {"/u0/3", "/u0/6"}
    with pytest.raises(TransferInterrupted):
        send(tracker, large, noted)
    assert tracker.completed == []
    store.broken, sent = set(), store.puts.copy()
    send(Tracker(store), large, noted)
    assert store.puts - sent == {"/u0/3": 1, "/u0/6": 1}
    assert whole(store, "u0") == large.read_bytes()
    assert not noted.exists()


def test_a_store_that_stumbles_is_asked_again(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PAUSES_S", (0.01, 0.01))
    (tmp_path / "small").write_bytes(b"bytes")
    store.broken, store.stumbles = {"/small"}, 2
    send(Tracker(store), tmp_path / "small")
    assert (store.puts["/small"], store.parts["/small"]) == (3, b"bytes")
    store.broken, store.stumbles = {"/small"}, 3
    with pytest.raises(TransferInterrupted):
        send(Tracker(store), tmp_path / "small")


def test_an_upload_whose_part_is_refused_begins_anew(store: Store, large: Path, tmp_path: Path) -> None:
    tracker, store.broken, store.status = Tracker(store), {"/u0/2"}, 501
    send(tracker, large, tmp_path / "noted")
    assert (tracker.aborted, tracker.completed) == (["u0"], ["u1"])
    assert whole(store, "u1") == large.read_bytes()
    store.broken = {"/u0/2", "/u1/2"}
    store.parts.clear()
    with pytest.raises(TransferRefused):
        send(Tracker(store), large)


def reference(content: bytes) -> ObjectRef:
    return ObjectRef(uri="p/x", sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_a_download_goes_on_where_the_connection_broke(store: Store, tmp_path: Path, knows_ranges: bool) -> None:
    content = os.urandom(3 * PART)
    store.content, store.cut_after, store.knows_ranges = content, PART + 7, knows_ranges
    download_file(lambda: store.url, reference(content), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == content
    assert store.asked == ["", f"bytes={PART + 7}-"]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_later_call_goes_on_with_what_is_there(store: Store, tmp_path: Path) -> None:
    content = os.urandom(PART)
    store.content = content
    wanted = reference(content)
    (tmp_path / f".file.{wanted.sha256[:16]}.part").write_bytes(content[:1000])
    download_file(lambda: store.url, wanted, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == content
    assert store.asked == ["bytes=1000-"]


@pytest.mark.parametrize("change", [b"", b"x", b"longer"])
def test_other_bytes_are_refused_and_nothing_of_them_stays(store: Store, tmp_path: Path, change: bytes) -> None:
    content = os.urandom(1000)
    store.content = content[: -len(change) or None] + change if change else content[:-1]
    (tmp_path / "file").write_bytes(b"mine")
    if change == b"longer":
        store.content = content + change
    with pytest.raises(TransferRefused):
        download_file(lambda: store.url, reference(content), tmp_path / "file")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"mine")]


def test_nobody_there_is_an_outage_and_what_came_stays(store: Store, tmp_path: Path) -> None:
    content = os.urandom(1000)
    wanted = reference(content)
    partial = tmp_path / f".file.{wanted.sha256[:16]}.part"
    partial.write_bytes(content[:10])
    with pytest.raises(TransferInterrupted):
        download_file(lambda: "http://127.0.0.1:1/x", wanted, tmp_path / "file")
    assert partial.read_bytes() == content[:10]
