"""Bytes of artifacts on their way to and from the object store: by presigned URL, straight, under their digest.

Every error is one of the SDK's: TransferInterrupted where another try may do, TransferRefused where none will.
"""

from __future__ import annotations

import hashlib
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Final

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.service_pb2_grpc import TrackingServiceStub
from headrace.errors import FailedPrecondition, Unavailable

CALL_TIMEOUT_S: Final = 60.0
TRANSFER_TIMEOUT_S: Final = 600.0
_CHUNK: Final = 1 << 20
_MAY_PASS: Final = (HTTPStatus.FORBIDDEN, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
"""Answers that another try may change: a presigned URL that ran out is forbidden."""


class TransferInterrupted(Unavailable):
    """The object store can not be reached, or not now."""

    default_reason = "TRANSFER_INTERRUPTED"


class TransferRefused(FailedPrecondition):
    """The bytes can not be moved: the store refused them, or those it gave are not those of the digest."""

    default_reason = "TRANSFER_REFUSED"


def upload_file(stub: TrackingServiceStub, project: str, path: Path, *, media_type: str) -> ObjectRef:
    """Stores a file; bytes that are there already are not sent again.

    Args:
        stub: Tracking.
        project: ``projects/{project}``.
        path: The file.
        media_type: Kept with the bytes.

    Raises:
        TransferInterrupted, TransferRefused: The bytes did not arrive.
    """
    sha256, size = digest_file(path)
    presign = service.PresignUploadRequest(parent=project, sha256=sha256, size_bytes=size, media_type=media_type)
    upload = stub.PresignUpload(presign, timeout=CALL_TIMEOUT_S)
    if upload.url:
        put_file(upload.url, path, media_type)
    return upload.object


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


def put_file(url: str, path: Path, media_type: str) -> None:
    """Sends a file to a presigned URL. Raises OSError when it can not be read, else as ``upload_file``."""
    with path.open("rb") as body, _translated("upload"):
        request = urllib.request.Request(url, data=body, method="PUT")  # noqa: S310 - a URL the platform signed
        request.add_header("Content-Length", str(path.stat().st_size))
        request.add_header("Content-Type", media_type or "application/octet-stream")
        with urllib.request.urlopen(request, timeout=TRANSFER_TIMEOUT_S):  # noqa: S310 - as above
            pass


def fetch(url: str, wanted: ObjectRef, write: Callable[[bytes], object]) -> None:
    """Reads bytes from a presigned URL and hands them on; at the end they are those of the digest, or it raises.

    Raises:
        TransferRefused: They are other bytes: what was handed on is to be thrown away.
        TransferInterrupted: The store can not be reached.
    """
    sha256, size = hashlib.sha256(), 0
    with _translated("download"), urllib.request.urlopen(url, timeout=TRANSFER_TIMEOUT_S) as answer:  # noqa: S310 - a URL the platform signed
        while chunk := answer.read(_CHUNK):
            sha256.update(chunk)
            size += len(chunk)
            if size > wanted.size_bytes:
                break
            write(chunk)
    if (size, sha256.hexdigest()) != (wanted.size_bytes, wanted.sha256):
        raise TransferRefused(f"what lies at {wanted.uri} are not the bytes of its digest", reason="OBJECT_CORRUPT")


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    except urllib.error.HTTPError as error:
        with error:
            if error.code in _MAY_PASS or error.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
                raise TransferInterrupted(f"{doing}: {error}") from error
            raise TransferRefused(f"{doing}: {error}") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise TransferInterrupted(f"{doing}: {error}") from error
