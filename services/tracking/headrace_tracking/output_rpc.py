"""What runs wrote, over gRPC: request -> checks -> command or query -> response."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final, TypeAlias

import grpc

from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.resources_pb2 import Run
from headrace.api.tracking.v1.service_pb2_grpc import TrackingServiceServicer
from headrace_kit.errors import Aborted
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.rpc import command_context
from headrace_kit.validate import require_range
from headrace_tracking import domain, requests
from headrace_tracking.outputs import READ_BYTES, OutputStore
from headrace_tracking.store import RUN

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # Any: the messages of whichever method
POLL_S: Final = 0.25
MAX_LAST_BYTES: Final = 16 * 1024 * 1024


class OutputRpc(TrackingServiceServicer):
    """Answers the calls on what runs wrote.

    Args:
        store: The streams of runs.
        outputs: The table.
    """

    def __init__(self, store: PostgresEventStore, outputs: OutputStore) -> None:
        self._store, self._outputs = store, outputs

    async def LogOutput(self, request: service.LogOutputRequest, context: Context) -> service.LogOutputResponse:
        command_context(request.command_id)
        requests.check_output(request)
        count = await self._outputs.append(request.run, request.chunks)
        if count is None:
            domain.active(await self._loaded(request.run), request.run)
            raise Aborted(f"{request.run} was just started or brought back: try again")
        return service.LogOutputResponse(count=count)

    async def ReadOutput(self, request: service.ReadOutputRequest, context: Context) -> service.ReadOutputResponse:
        requests.check_run(request.run)
        requests.check_moment_us(request.after_us, field="after_us")
        require_range(request.last_bytes, field="last_bytes", least=0, most=MAX_LAST_BYTES)
        run = domain.existing(await self._loaded(request.run), request.run)
        if request.last_bytes:
            chunks = await self._outputs.last(request.run, after_us=request.after_us, most_bytes=request.last_bytes)
        else:
            chunks = await self._outputs.read(request.run, after_us=request.after_us)
        after_us = chunks[-1].time_us if chunks else request.after_us
        more = await self._outputs.read(request.run, after_us=after_us, most_bytes=1) if chunks else []
        return service.ReadOutputResponse(
            chunks=chunks, next_after_us=after_us, end=not more, run_ended=run.status in domain.ENDED
        )

    async def FollowOutput(
        self, request: service.FollowOutputRequest, context: Context
    ) -> AsyncIterator[service.FollowOutputResponse]:
        requests.check_run(request.run)
        requests.check_moment_us(request.after_us, field="after_us")
        after_us = request.after_us
        while True:
            run = domain.existing(await self._loaded(request.run), request.run)
            chunks = await self._outputs.read(request.run, after_us=after_us, most_bytes=READ_BYTES)
            if chunks:
                after_us = chunks[-1].time_us
                yield service.FollowOutputResponse(chunks=chunks)
            elif run.status in domain.ENDED:  # as it was before it was read: what it wrote came before its end
                return
            else:
                await asyncio.sleep(POLL_S)

    async def _loaded(self, run: str) -> Run | None:
        loaded = await self._store.load(RUN, run)
        return loaded[0] if loaded else None
