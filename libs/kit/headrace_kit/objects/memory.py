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
    verified,
)


class MemoryObjectStore:
    """``ObjectStore`` in memory; its URLs lead nowhere.

    Attributes:
        objects: Key -> bytes; tests may damage them.
        available: Set to False, every call raises ObjectsUnavailable.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.available = True

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

    async def close(self) -> None:
        """As ``ObjectStore.close``."""

    def _require_available(self) -> None:
        if not self.available:
            raise ObjectsUnavailable("the object store is away")


async def _collected(content: Source) -> bytes:
    if isinstance(content, bytes):
        return content
    if isinstance(content, Path):
        return await asyncio.to_thread(content.read_bytes)
    return b"".join([chunk async for chunk in content])
