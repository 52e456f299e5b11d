"""The archive of telemetry over gRPC: how far it is, its ranges, and where to get their files."""

from __future__ import annotations

from typing import Any, TypeAlias

import grpc

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.monitor.v1 import service_pb2 as service
from headrace.api.monitor.v1.resources_pb2 import ArchivedFile
from headrace.api.monitor.v1.service_pb2_grpc import ArchiveServiceServicer
from headrace.archive.manifest import PARQUET_TYPE, Manifest, ManifestFile
from headrace_kit.errors import NotFound
from headrace_kit.eventstore import EventStore
from headrace_kit.names import require_text
from headrace_kit.objects import ObjectStore
from headrace_kit.paging import page_of
from headrace_kit.validate import require_range
from headrace_monitor.archived import RANGE
from headrace_monitor.archivestore import ARCHIVED_RANGE, ArchiveStore

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # Any: the messages of whichever method

_MAX_OFFSET = 2**62


class ArchiveServicer(ArchiveServiceServicer):
    """Answers calls about the archive.

    Args:
        store: The monitor's streams.
        archives: The tables of the archive.
        objects: Where the files are.
    """

    def __init__(self, store: EventStore, archives: ArchiveStore, objects: ObjectStore) -> None:
        self._store, self._archives, self._objects = store, archives, objects

    async def GetArchiveStatus(
        self, request: service.GetArchiveStatusRequest, context: Context
    ) -> service.GetArchiveStatusResponse:
        return service.GetArchiveStatusResponse(partitions=await self._archives.status())

    async def ListArchivedRanges(
        self, request: service.ListArchivedRangesRequest, context: Context
    ) -> service.ListArchivedRangesResponse:
        require_text(request.topic, field="topic", most=250)
        require_range(request.partition, field="partition", least=0, most=100_000)
        require_range(request.from_offset, field="from_offset", least=0, most=_MAX_OFFSET)
        page = page_of(request)
        ranges = await self._archives.ranges(
            request.topic,
            request.partition,
            from_offset=request.from_offset,
            after_offset=int(page.after or -1),
            limit=page.limit,
        )
        token = page.token(str(ranges[-1].first_offset), count=len(ranges)) if ranges else ""
        return service.ListArchivedRangesResponse(ranges=ranges, next_page_token=token)

    async def GetArchivedRange(
        self, request: service.GetArchivedRangeRequest, context: Context
    ) -> service.GetArchivedRangeResponse:
        RANGE.parse(request.name, field="name")
        loaded = await self._store.load(ARCHIVED_RANGE, request.name)
        if loaded is None:
            raise NotFound("archived range", request.name, field="name")
        found = loaded[0]
        manifest = Manifest.decode(await self._objects.get(found.manifest))
        return service.GetArchivedRangeResponse(range=found, files=[self._file(each) for each in manifest.files])

    def _file(self, file: ManifestFile) -> ArchivedFile:
        reference = ObjectRef(uri=file.uri, sha256=file.sha256, size_bytes=file.size_bytes, media_type=PARQUET_TYPE)
        return ArchivedFile(
            kind=file.kind,
            project=file.project,
            endpoint=file.endpoint,
            schema_digest=file.schema_digest,
            rows=file.rows,
            object=reference,
            url=self._objects.presign_get(reference),
        )
