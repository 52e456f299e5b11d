"""The archive of telemetry over gRPC: how far it is, its ranges, and where to get their files."""

from __future__ import annotations

from typing import Any, TypeAlias
from uuid import UUID

import grpc

from headrace.api.monitor.v1 import service_pb2 as service
from headrace.api.monitor.v1.resources_pb2 import ArchivedFile, Erasure
from headrace.api.monitor.v1.service_pb2_grpc import ArchiveServiceServicer
from headrace.archive.manifest import Manifest, ManifestFile
from headrace_kit.auth import OPERATOR
from headrace_kit.errors import AlreadyExists, InvalidArgument, NotFound
from headrace_kit.eventstore import EventStore
from headrace_kit.names import PERSON, parse_id, require_text
from headrace_kit.objects import ObjectStore
from headrace_kit.paging import page_of
from headrace_kit.rpc import parse_uuid, require_role
from headrace_kit.validate import require_range, require_size
from headrace_monitor.archived import RANGE
from headrace_monitor.archivestore import ARCHIVED_RANGE, ArchiveStore
from headrace_monitor.archiving import reference_of
from headrace_monitor.erasurestore import ErasureStore

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # Any: the messages of whichever method

_MAX_OFFSET = 2**62


class ArchiveServicer(ArchiveServiceServicer):
    """Answers calls about the archive.

    Args:
        store: The monitor's streams.
        archives: The tables of the archive.
        erasures: The tables of erasures.
        objects: Where the files are.
    """

    def __init__(self, store: EventStore, archives: ArchiveStore, erasures: ErasureStore, objects: ObjectStore) -> None:
        self._store, self._archives, self._erasures, self._objects = store, archives, erasures, objects

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
        manifest = await self._objects.get(found.manifest)
        files = [self._file(each) for each in Manifest.decode(manifest).files]
        return service.GetArchivedRangeResponse(range=found, files=files, manifest=manifest)

    async def EraseTelemetry(
        self, request: service.EraseTelemetryRequest, context: Context
    ) -> service.EraseTelemetryResponse:
        principal = require_role(OPERATOR)
        erasure = parse_uuid(request.command_id, field="command_id")
        _check_selection(request)
        if not await self._erasures.begin(erasure, request, asked_by=principal.id):
            raise AlreadyExists(
                f"command id {erasure} was already used with another request",
                field="command_id",
                reason="COMMAND_ID_REUSED",
            )
        return service.EraseTelemetryResponse(erasure=await self._erasure(erasure, field="command_id"))

    async def GetErasure(self, request: service.GetErasureRequest, context: Context) -> service.GetErasureResponse:
        erasure = await self._erasure(parse_uuid(request.id, field="id"), field="id")
        return service.GetErasureResponse(erasure=erasure)

    async def _erasure(self, id_: UUID, *, field: str) -> Erasure:
        found = await self._erasures.get(id_)
        if found is None:
            raise NotFound("erasure", str(id_), field=field)
        return found

    def _file(self, file: ManifestFile) -> ArchivedFile:
        reference = reference_of(file)
        return ArchivedFile(
            kind=file.kind,
            project=file.project,
            endpoint=file.endpoint,
            schema_digest=file.schema_digest,
            rows=file.rows,
            object=reference,
            url=self._objects.presign_get(reference),
        )


def _check_selection(request: service.EraseTelemetryRequest) -> None:
    if request.person:
        PERSON.parse(request.person, field="person")
    if request.project:
        parse_id(request.project, field="project")
    if request.endpoint:
        parse_id(request.endpoint, field="endpoint")
    require_size(request.where, field="where", least=0, most=100)
    for index, each in enumerate(request.where):
        require_text(each.column, field=f"where[{index}].column", most=250)
        require_text(each.value, field=f"where[{index}].value", least=0, most=2000, lines=True)
    require_size(request.prediction_ids, field="prediction_ids", least=0, most=10_000)
    for index, id_ in enumerate(request.prediction_ids):
        require_text(id_, field=f"prediction_ids[{index}]", most=250)
    if not (request.person or request.where or request.prediction_ids):
        raise InvalidArgument("say what to erase: a person, values of columns, or prediction ids", field="person")
