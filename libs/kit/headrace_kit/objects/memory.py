"""The object store in memory: the twin of the one on S3, for unit tests of services."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace_kit.errors import NotFound
from headrace_kit.objects.store import (
    PRESIGN_TTL,
    ObjectsUnavailable,
    Source,
    object_ref,
    require_place,
    require_project,
    staged_place,
    verified,
)


class MemoryObjectStore:
    """``ObjectStore`` in memory; its URLs lead nowhere.

    Attributes:
        objects: Key -> bytes; tests may damage them.
        available: Set to False, every call raises ObjectsUnavailable.
        uploads: Id -> part by number; tests put parts here instead of sending them.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.available = True
        self.uploads: dict[str, dict[int, bytes]] = {}

    async def put(self, project: str, content: Source, media_type: str = "") -> ObjectRef:
        """As ``ObjectStore.put``."""
        require_project(project)
        self._require_available()
        data = await _collected(content)
        reference = object_ref(project, data, media_type)
        self.objects[reference.uri] = data
        return reference

    async def get(self, reference: ObjectRef) -> bytes:
        """As ``ObjectStore.get``."""
        require_place(reference)
        self._require_available()
        if reference.uri not in self.objects:
            raise NotFound("object", reference.uri)
        return verified(self.objects[reference.uri], reference)

    async def download(self, reference: ObjectRef, path: Path) -> None:
        """As ``ObjectStore.download``."""
        content = await self.get(reference)
        await asyncio.to_thread(path.write_bytes, content)

    async def verify(self, reference: ObjectRef) -> None:
        """As ``ObjectStore.verify``."""
        await self.get(reference)

    async def size(self, reference: ObjectRef) -> int | None:
        """As ``ObjectStore.size``."""
        require_place(reference)
        self._require_available()
        found = self.objects.get(reference.uri)
        return None if found is None else len(found)

    async def delete(self, reference: ObjectRef) -> None:
        """As ``ObjectStore.delete``."""
        require_place(reference)
        self._require_available()
        self.objects.pop(reference.uri, None)

    def presign_put(self, reference: ObjectRef, *, ttl: timedelta = PRESIGN_TTL) -> str:
        """As ``ObjectStore.presign_put``."""
        return f"memory://put/{require_place(reference).uri}?seconds={ttl.total_seconds():.0f}"

    def presign_get(self, reference: ObjectRef, *, ttl: timedelta = PRESIGN_TTL) -> str:
        """As ``ObjectStore.presign_get``."""
        return f"memory://get/{require_place(reference).uri}?seconds={ttl.total_seconds():.0f}"

    async def begin_upload(self, reference: ObjectRef) -> str:
        """As ``ObjectStore.begin_upload``."""
        require_place(reference)
        self._require_available()
        upload = f"{len(self.uploads) + 1} {reference.uri}"
        self.uploads[upload] = {}
        return upload

    async def uploaded_parts(self, reference: ObjectRef, upload: str) -> dict[int, int]:
        """As ``ObjectStore.uploaded_parts``."""
        return {number: len(content) for number, content in sorted(self._upload(reference, upload).items())}

    def presign_part(self, reference: ObjectRef, upload: str, number: int, *, ttl: timedelta = PRESIGN_TTL) -> str:
        """As ``ObjectStore.presign_part``."""
        place = require_place(reference).uri
        return f"memory://part/{place}?seconds={ttl.total_seconds():.0f}&upload={upload}&part={number}"

    async def complete_upload(self, reference: ObjectRef, upload: str) -> None:
        """As ``ObjectStore.complete_upload``."""
        parts = self._upload(reference, upload)
        self.objects[reference.uri] = b"".join(parts[number] for number in sorted(parts))
        del self.uploads[upload]

    async def abort_upload(self, reference: ObjectRef, upload: str) -> None:
        """As ``ObjectStore.abort_upload``."""
        require_place(reference)
        self._require_available()
        self.uploads.pop(upload, None)

    async def begin_staged(self, project: str) -> str:
        """As ``ObjectStore.begin_staged``."""
        self._require_available()
        staged = f"{len(self.uploads) + 1:032x}.memory"
        staged_place(project, staged)
        self.uploads[staged] = {}
        return staged

    def presign_staged(self, project: str, staged: str, number: int, *, ttl: timedelta = PRESIGN_TTL) -> str:
        """As ``ObjectStore.presign_staged``."""
        key, _ = staged_place(project, staged)
        return f"memory://part/{key}?seconds={ttl.total_seconds():.0f}&part={number}"

    async def adopt_staged(self, project: str, staged: str, media_type: str = "") -> ObjectRef:
        """As ``ObjectStore.adopt_staged``."""
        staged_place(project, staged)
        self._require_available()
        if staged not in self.uploads:
            raise NotFound("upload", staged)
        parts = self.uploads.pop(staged)
        return await self.put(project, b"".join(parts[number] for number in sorted(parts)), media_type)

    async def abort_staged(self, project: str, staged: str) -> None:
        """As ``ObjectStore.abort_staged``."""
        staged_place(project, staged)
        self.uploads.pop(staged, None)

    async def close(self) -> None:
        """As ``ObjectStore.close``."""

    def _upload(self, reference: ObjectRef, upload: str) -> dict[int, bytes]:
        require_place(reference)
        self._require_available()
        if upload not in self.uploads or not upload.endswith(f" {reference.uri}"):
            raise NotFound("upload", upload)
        return self.uploads[upload]

    def _require_available(self) -> None:
        if not self.available:
            raise ObjectsUnavailable("the object store is away")


async def _collected(content: Source) -> bytes:
    if isinstance(content, bytes):
        return content
    if isinstance(content, Path):
        return await asyncio.to_thread(content.read_bytes)
    return b"".join([chunk async for chunk in content])
