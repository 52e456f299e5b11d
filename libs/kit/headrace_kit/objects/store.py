"""What an object store promises, and how its keys and references are made."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterable
from datetime import timedelta
from pathlib import Path
from typing import Final, Protocol

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace_kit.errors import InvalidArgument, KitError, NotFound, Unavailable

PRESIGN_TTL: Final = timedelta(minutes=10)
"""How long a presigned URL is good."""
MAX_GET_BYTES: Final = 1 << 30
"""Largest object that ``get`` takes into memory; larger ones are downloaded to a file."""

Source = bytes | Path | AsyncIterable[bytes]
"""What is stored: bytes, a file, or chunks as they come."""

_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class ObjectCorrupt(KitError):
    """The store gave other bytes than the digest names. Never served, never retried."""

    default_reason = "OBJECT_CORRUPT"


class ObjectsUnavailable(Unavailable):
    """The object store can not be reached, or refused; nothing is known of what was sent."""

    default_reason = "OBJECTS_UNAVAILABLE"


class ObjectStore(Protocol):
    """Content-addressed bytes. Safe for many tasks of one loop.

    Every method raises ObjectsUnavailable when the store is away, and InvalidArgument for a reference whose uri is not
    the place of its digest.
    """

    async def put(self, project: str, content: Source, media_type: str = "") -> ObjectRef:
        """Stores bytes; a repeat does no harm, and mends what was damaged."""
        ...

    async def get(self, reference: ObjectRef) -> bytes:
        """The bytes, verified.

        Raises:
            NotFound: nothing lies there.
            ObjectCorrupt: what lies there are other bytes.
            InvalidArgument: over ``MAX_GET_BYTES``.
        """
        ...

    async def download(self, reference: ObjectRef, path: Path) -> None:
        """Writes the bytes to a file, which appears whole and verified or not at all.

        Raises:
            NotFound: nothing lies there.
            ObjectCorrupt: what lies there are other bytes.
        """
        ...

    async def verify(self, reference: ObjectRef) -> None:
        """Reads the bytes and keeps nothing.

        Raises:
            NotFound: nothing lies there.
            ObjectCorrupt: what lies there are other bytes.
        """
        ...

    async def size(self, reference: ObjectRef) -> int | None:
        """Length of what lies there, or None when nothing does."""
        ...

    async def delete(self, reference: ObjectRef) -> None:
        """Deletes the bytes for whoever refers to them; nothing happens when there are none.

        For what must not be there any more: that nobody else refers to the same bytes is the caller's to know.
        """
        ...

    def presign_put(self, reference: ObjectRef, *, ttl: timedelta = PRESIGN_TTL) -> str:
        """A URL to PUT the bytes for a while. What was sent is to be verified afterwards."""
        ...

    def presign_get(self, reference: ObjectRef, *, ttl: timedelta = PRESIGN_TTL) -> str:
        """A URL to GET the bytes for a while."""
        ...

    async def begin_upload(self, reference: ObjectRef) -> str:
        """Begins an upload in parts; returns its id."""
        ...

    async def uploaded_parts(self, reference: ObjectRef, upload: str) -> dict[int, int]:
        """Lengths of the parts that the store has, by number.

        Raises:
            NotFound: the store knows no such upload, or no more.
        """
        ...

    def presign_part(self, reference: ObjectRef, upload: str, number: int, *, ttl: timedelta = PRESIGN_TTL) -> str:
        """A URL to PUT a part for a while. A store may refuse a number that it has already."""
        ...

    async def complete_upload(self, reference: ObjectRef, upload: str) -> None:
        """Puts the parts that the store has together. What was sent is to be verified afterwards.

        Raises:
            NotFound: the store knows no such upload, or no more.
        """
        ...

    async def abort_upload(self, reference: ObjectRef, upload: str) -> None:
        """Throws the parts away; nothing happens when there are none."""
        ...

    async def begin_staged(self, project: str) -> str:
        """Begins an upload in parts of bytes whose digest nobody knows yet; returns its id."""
        ...

    def presign_staged(self, project: str, staged: str, number: int, *, ttl: timedelta = PRESIGN_TTL) -> str:
        """A URL to PUT a part for a while.

        Raises:
            NotFound: that is the id of no upload.
        """
        ...

    async def adopt_staged(self, project: str, staged: str, media_type: str = "") -> ObjectRef:
        """Puts the parts that the store has together, and the bytes where their digest says. Once.

        Raises:
            NotFound: the store knows no such upload, or no more.
        """
        ...

    async def abort_staged(self, project: str, staged: str) -> None:
        """Throws the parts away; nothing happens when there are none."""
        ...

    async def close(self) -> None:
        """Waits for what is under way."""
        ...


def staged_place(project: str, staged: str) -> tuple[str, str]:
    """Key and upload of bytes whose digest nobody knows yet. Raises NotFound for what is no id of such."""
    require_project(project)
    name, _, upload = staged.partition(".")
    if not re.fullmatch("[0-9a-f]{32}", name) or not upload or len(upload) > 1000:
        raise NotFound("upload", staged[:100])
    return f"{project}/uploads/{name}", upload


async def holds(store: ObjectStore, reference: ObjectRef) -> bool:
    """Whether the store has the bytes, whole and unaltered: it reads them all, whatever their number.

    Raises:
        ObjectsUnavailable: the store is away.
    """
    if await store.size(reference) != reference.size_bytes:
        return False
    try:
        await store.verify(reference)
    except (NotFound, ObjectCorrupt):
        return False
    return True


def object_key(project: str, sha256: str) -> str:
    """Where bytes of a digest lie."""
    return f"{project}/sha256/{sha256[:2]}/{sha256}"


def object_ref(project: str, content: bytes, media_type: str = "") -> ObjectRef:
    """The reference to bytes."""
    sha256 = hashlib.sha256(content).hexdigest()
    return ObjectRef(uri=object_key(project, sha256), sha256=sha256, size_bytes=len(content), media_type=media_type)


def require_place(reference: ObjectRef) -> ObjectRef:
    """The reference, whose uri is the place of its digest: no reference leads to other bytes, or out of a project.

    Raises:
        InvalidArgument: it is not.
    """
    project, _, _ = reference.uri.partition("/")
    if not _SHA256.fullmatch(reference.sha256) or reference.uri != object_key(project, reference.sha256):
        raise InvalidArgument("the uri is not the place of the digest", field="uri")
    require_project(project)
    if reference.size_bytes < 0:
        raise InvalidArgument("a length is not negative", field="size_bytes")
    return reference


def require_project(project: str) -> None:
    """Raises InvalidArgument when a project can not begin a key."""
    if not project or "/" in project or project in (".", ".."):
        raise InvalidArgument("give a project's id", field="project")


def verified(content: bytes, reference: ObjectRef) -> bytes:
    """The bytes when they are those of the reference. Raises ObjectCorrupt."""
    require_same(reference, len(content), hashlib.sha256(content).hexdigest())
    return content


def require_same(reference: ObjectRef, size_bytes: int, sha256: str) -> None:
    """Raises ObjectCorrupt when bytes of this length and digest are not those of the reference."""
    if size_bytes != reference.size_bytes or sha256 != reference.sha256:
        raise ObjectCorrupt(f"{reference.uri} does not hold the bytes of its digest")
