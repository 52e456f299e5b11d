"""Uploads that fail: what another try may mend is tried again, what it can not is left out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.tracking import sender


class Tracker:
    """Signs uploads to one URL."""

    def __init__(self, url: str) -> None:
        self._url = url

    def PresignUpload(  # noqa: N802 - named by the protos
        self, request: service.PresignUploadRequest, timeout: float
    ) -> service.PresignUploadResponse:
        return service.PresignUploadResponse(url=self._url, object=ObjectRef(sha256=request.sha256))


def upload(url: str, blob: Path) -> None:
    stub: Any = Tracker(url)  # Any: a fake of the one call that small bytes take
    sender._upload(stub, "projects/p", blob, ObjectRef(sha256="0" * 64, size_bytes=5, media_type="text/plain"))


class Answering(BaseHTTPRequestHandler):
    """Answers each upload with the status in its path."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(int(self.path[1:]))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    path = tmp_path / "blob"
    path.write_bytes(b"bytes")
    return path


def test_a_store_that_takes_the_bytes(store: str, blob: Path) -> None:
    upload(f"{store}/200", blob)


@pytest.mark.parametrize("status", [403, 408, 429, 500, 503])
def test_what_may_pass_is_an_outage(store: str, blob: Path, status: int) -> None:
    with pytest.raises(sender.TrackerDownError, match=str(status)):
        upload(f"{store}/{status}", blob)


@pytest.mark.parametrize("status", [400, 404, 413])
def test_a_refusal_is_no_outage(store: str, blob: Path, status: int) -> None:
    with pytest.raises(sender._CanNotBeSentError, match=str(status)):
        upload(f"{store}/{status}", blob)


def test_bytes_that_are_gone_are_no_outage(store: str, tmp_path: Path) -> None:
    with pytest.raises(sender._CanNotBeSentError, match="gone"):
        upload(f"{store}/200", tmp_path / "none")


def test_nobody_there_is_an_outage(blob: Path) -> None:
    with pytest.raises(sender.TrackerDownError):
        upload("http://127.0.0.1:1/x", blob)
