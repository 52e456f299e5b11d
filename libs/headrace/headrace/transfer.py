"""Bytes of artifacts on their way to and from the object store: by presigned URL, straight, under their digest.

Every error is one of the SDK's: TransferInterrupted where another try may do, TransferRefused where none will.
"""

from __future__ import annotations

import hashlib
import http.client
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO, Final

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.service_pb2_grpc import TrackingServiceStub
from headrace.errors import FailedPrecondition, Unavailable

CALL_TIMEOUT_S: Final = 60.0
TRANSFER_TIMEOUT_S: Final = 600.0
LARGE_BYTES: Final = 64 * 1024 * 1024
"""From this length on bytes are sent in parts."""
PARTS_AT_ONCE: Final = 4
PART_TRIES: Final = 4
PAUSES_S: Final = (0.1, 0.5, 2.0)
"""Before an upload is tried again that was interrupted."""
DOWNLOAD_TRIES: Final = 4
_CHUNK: Final = 1 << 20
_MAY_PASS: Final = (HTTPStatus.FORBIDDEN, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
"""Answers that another try may change: a presigned URL that ran out is forbidden."""


class TransferInterrupted(Unavailable):
    """The object store can not be reached, or not now."""

    default_reason = "TRANSFER_INTERRUPTED"


class TransferRefused(FailedPrecondition):
    """The bytes can not be moved: the store refused them, or those it gave are not those of the digest."""

    default_reason = "TRANSFER_REFUSED"


def upload_file(
    stub: TrackingServiceStub, project: str, path: Path, *, media_type: str, resume: Path | None = None
) -> ObjectRef:
    """Stores a file; bytes that are there already are not sent again. A large one is sent in parts, some at once.

    Whether the store has the bytes of the digest is verified by whoever records them (``LogArtifact`` and others).

    Args:
        stub: Tracking.
        project: ``projects/{project}``.
        path: The file.
        media_type: Kept with the bytes.
        resume: A file in which an upload in parts is noted until it is complete, so that another try, by whichever
            process, sends only the parts that are missing. None to try within this call alone.

    Raises:
        TransferInterrupted, TransferRefused: The bytes did not arrive.
        OSError: The file can not be read.
    """
    sha256, size = digest_file(path)
    wanted = ObjectRef(sha256=sha256, size_bytes=size, media_type=media_type)
    for pause_s in PAUSES_S:
        try:
            return upload_known(stub, project, path, wanted, resume)
        except TransferInterrupted:  # stores stumble, such as over two writers of one key
            time.sleep(pause_s)
    return upload_known(stub, project, path, wanted, resume)


def upload_known(
    stub: TrackingServiceStub, project: str, path: Path, wanted: ObjectRef, resume: Path | None = None
) -> ObjectRef:
    """As ``upload_file``, of a file that is known already, for callers who try again themselves."""
    if wanted.size_bytes >= LARGE_BYTES:
        return _upload_parts(stub, project, path, wanted, resume)
    presign = service.PresignUploadRequest(
        parent=project, sha256=wanted.sha256, size_bytes=wanted.size_bytes, media_type=wanted.media_type
    )
    upload = stub.PresignUpload(presign, timeout=CALL_TIMEOUT_S)
    if upload.url:
        with path.open("rb") as body:
            _put(upload.url, body, wanted.size_bytes, wanted.media_type)
    return upload.object


def _upload_parts(
    stub: TrackingServiceStub, project: str, path: Path, wanted: ObjectRef, resume: Path | None
) -> ObjectRef:
    begin = service.BeginUploadRequest(
        parent=project, sha256=wanted.sha256, size_bytes=wanted.size_bytes, media_type=wanted.media_type
    )
    begin.upload_id = _noted(resume)
    tries_left, refused = PART_TRIES, False
    while True:
        upload = stub.BeginUpload(begin, timeout=TRANSFER_TIMEOUT_S)
        if upload.upload_id not in ("", begin.upload_id):
            begin.upload_id = upload.upload_id
            if resume is not None:
                resume.write_text(upload.upload_id, encoding="utf-8")
        try:
            _put_parts(path, wanted.size_bytes, upload)
            break
        except TransferInterrupted:
            tries_left -= 1
            if not tries_left:
                raise
        except TransferRefused:  # such as a part that came half: some stores take no number twice
            abort = service.AbortUploadRequest(parent=project, sha256=wanted.sha256, upload_id=begin.upload_id)
            stub.AbortUpload(abort, timeout=CALL_TIMEOUT_S)
            begin.upload_id = ""
            if refused:
                raise
            refused = True
    if upload.upload_id:
        complete = service.CompleteUploadRequest(
            parent=project, sha256=wanted.sha256, size_bytes=wanted.size_bytes, upload_id=upload.upload_id
        )
        stub.CompleteUpload(complete, timeout=TRANSFER_TIMEOUT_S)
    if resume is not None:
        resume.unlink(missing_ok=True)
    return upload.object


def _put_parts(path: Path, size_bytes: int, upload: service.BeginUploadResponse) -> None:
    """Sends the parts that are missing. Raises as ``upload_file``, after all those under way have ended."""
    length = upload.part_size_bytes

    def put(part: service.UploadPart) -> None:
        start = (part.number - 1) * length
        with path.open("rb") as file:
            file.seek(start)
            _put(part.url, _Segment(file, min(length, size_bytes - start)), min(length, size_bytes - start), "")

    missing = [part for part in upload.parts if part.url]
    with ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="upload") as pool:
        for done in [pool.submit(put, part) for part in missing]:
            done.result()


def _noted(resume: Path | None) -> str:
    try:
        return resume.read_text(encoding="utf-8").strip() if resume is not None else ""
    except (OSError, UnicodeDecodeError):
        return ""


def upload_bytes(stub: TrackingServiceStub, project: str, content: bytes, *, media_type: str) -> ObjectRef:
    """As ``upload_file``, of bytes in memory."""
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        path = Path(folder) / "content"
        path.write_bytes(content)
        return upload_file(stub, project, path, media_type=media_type)


def digest_file(path: Path) -> tuple[str, int]:
    """SHA-256 (hex) and size in bytes of a file."""
    with path.open("rb") as file:
        hashed = hashlib.file_digest(file, "sha256")
    return hashed.hexdigest(), path.stat().st_size


def _put(url: str, body: BinaryIO | _Segment, size_bytes: int, media_type: str) -> None:
    with _translated("upload"):
        request = urllib.request.Request(url, data=body, method="PUT")  # noqa: S310 - a URL the platform signed
        request.add_header("Content-Length", str(size_bytes))
        request.add_header("Content-Type", media_type or "application/octet-stream")
        with urllib.request.urlopen(request, timeout=TRANSFER_TIMEOUT_S):  # noqa: S310 - as above
            pass


class _Segment:
    """Some bytes of a file, from where it stands, as an HTTP body."""

    def __init__(self, file: BinaryIO, size_bytes: int) -> None:
        self._file, self._left = file, size_bytes

    def read(self, most: int = -1) -> bytes:
        """Reads on."""
        content = self._file.read(self._left if most < 0 else min(most, self._left))
        self._left -= len(content)
        return content


def fetch(url: str, wanted: ObjectRef, write: Callable[[bytes], object]) -> None:
    """Reads bytes from a presigned URL and hands them on; at the end they are those of the digest, or it raises.

    Raises:
        TransferRefused: They are other bytes: what was handed on is to be thrown away.
        TransferInterrupted: The store can not be reached.
    """
    sha256, size = hashlib.sha256(), 0
    for chunk in _chunks(url, 0):
        sha256.update(chunk)
        size += len(chunk)
        if size > wanted.size_bytes:
            break
        write(chunk)
    _require_same(wanted, size, sha256.hexdigest())


def download_file(url_of: Callable[[], str], wanted: ObjectRef, target: Path) -> None:
    """Writes bytes to a file, which appears whole and verified or not at all.

    What arrived before the connection broke stays beside it, as ``.{name}.{digest}.part``: the next try, here or by a
    later call, goes on from there.

    Args:
        url_of: Gives a fresh presigned URL.
        wanted: The bytes.
        target: The file; replaced when there is one.

    Raises:
        TransferRefused: The store has other bytes; nothing of them stays.
        TransferInterrupted: The store could not be reached, several times in a row.
    """
    partial = target.with_name(f".{target.name}.{wanted.sha256[:16]}.part")
    sha256, size, tries_left = hashlib.sha256(), 0, DOWNLOAD_TRIES
    with partial.open("a+b") as file:
        file.seek(0)
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
            size += len(chunk)
        while size < wanted.size_bytes:
            before = size
            try:
                for chunk in _chunks(url_of(), size):
                    file.write(chunk)
                    sha256.update(chunk)
                    size += len(chunk)
                    if size > wanted.size_bytes:
                        break
            except TransferInterrupted:
                tries_left = DOWNLOAD_TRIES if size > before else tries_left - 1
                if not tries_left:
                    raise
            else:
                break
    try:
        _require_same(wanted, size, sha256.hexdigest())
    except TransferRefused:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(target)


def _chunks(url: str, start: int) -> Iterator[bytes]:
    """The bytes at a URL from ``start`` on. Raises as ``fetch``."""
    with _translated("download"):
        request = urllib.request.Request(url)  # noqa: S310 - a URL the platform signed
        if start:
            request.add_header("Range", f"bytes={start}-")
        with urllib.request.urlopen(request, timeout=TRANSFER_TIMEOUT_S) as answer:  # noqa: S310 - as above
            if start and not str(answer.headers.get("Content-Range", "")).startswith(f"bytes {start}-"):
                _skip(answer, start)  # a store that knows no ranges gives everything
            while chunk := answer.read(_CHUNK):
                yield chunk
            if answer.length:
                raise TransferInterrupted(f"download: {answer.length} bytes are missing")


def _skip(answer: BinaryIO, size_bytes: int) -> None:
    left = size_bytes
    while left and (chunk := answer.read(min(_CHUNK, left))):
        left -= len(chunk)


def _require_same(wanted: ObjectRef, size: int, sha256: str) -> None:
    if (size, sha256) != (wanted.size_bytes, wanted.sha256):
        raise TransferRefused(f"what lies at {wanted.uri} are not the bytes of its digest", reason="OBJECT_CORRUPT")


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    except urllib.error.HTTPError as error:
        with error:
            may_pass = error.code >= HTTPStatus.INTERNAL_SERVER_ERROR and error.code != HTTPStatus.NOT_IMPLEMENTED
            if may_pass or error.code in _MAY_PASS:
                raise TransferInterrupted(f"{doing}: {error}") from error
            raise TransferRefused(f"{doing}: {error}") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise TransferInterrupted(f"{doing}: {error}") from error
