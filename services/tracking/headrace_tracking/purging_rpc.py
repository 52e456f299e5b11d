"""Purging over gRPC: request -> checks -> runs one after the other, then the bytes."""

from __future__ import annotations

from datetime import UTC
from typing import Any, Final, TypeAlias

import grpc

from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.service_pb2_grpc import TrackingServiceServicer
from headrace_kit.auth import OPERATOR, require_role
from headrace_kit.names import PROJECT
from headrace_kit.rpc import command_context
from headrace_kit.validate import require_range, require_time
from headrace_tracking.purging import Purger

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # Any: the messages of whichever method
MOST: Final = 100


class PurgingRpc(TrackingServiceServicer):
    """Answers the call that purges runs.

    Args:
        purger: Does it.
    """

    def __init__(self, purger: Purger) -> None:
        self._purger = purger

    async def PurgeRuns(self, request: service.PurgeRunsRequest, context: Context) -> service.PurgeRunsResponse:
        require_role(OPERATOR)
        command = command_context(request.command_id)
        project = PROJECT.parse(request.parent, field="parent")["project"]
        require_time(request.deleted_before, field="deleted_before")
        require_range(request.limit, field="limit", least=0, most=MOST)
        before, limit = request.deleted_before.ToDatetime(tzinfo=UTC), request.limit or MOST
        found = await self._purger.put_away(project, before=before, limit=limit + 1)
        answer = service.PurgeRunsResponse(
            runs=found[:limit], more=len(found) > limit, kept_count=await self._purger.kept(project, before=before)
        )
        if request.validate_only:
            freed = await self._purger.would_free(project, [each.run for each in answer.runs])
        else:
            for each in answer.runs:
                await self._purger.purge(each, command)
            freed = await self._purger.free(project)
        answer.freed_count, answer.freed_bytes = freed.objects, freed.size_bytes
        answer.waiting_count, answer.waiting_reason = freed.waiting, freed.reason
        return answer
