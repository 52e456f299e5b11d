"""Traces over gRPC: request -> checks -> command or query -> response."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import grpc

from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.resources_pb2 import Span
from headrace_kit.context import CommandContext
from headrace_kit.errors import InvalidArgument
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.paging import page_of
from headrace_kit.rpc import command_context
from headrace_tracking import tracerequests
from headrace_tracking.experiments_rpc import ExperimentsRpc
from headrace_tracking.filters import TRACES, parse_filter, parse_order
from headrace_tracking.spanintake import SpanIntake
from headrace_tracking.store import RunStore
from headrace_tracking.tracedeleting import TraceDeleter
from headrace_tracking.tracestore import Appended, TraceStore

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # Any: the messages of whichever method
_START: Final = (0, "")


class TracesRpc(ExperimentsRpc):
    """Answers the calls on traces.

    Args:
        store: The streams of experiments.
        runs: The read models.
        traces: The tables of traces.
        deleter: Removes traces.
    """

    def __init__(self, store: PostgresEventStore, runs: RunStore, traces: TraceStore, deleter: TraceDeleter) -> None:
        super().__init__(store, runs)
        self._traces, self._deleter, self._intake = traces, deleter, SpanIntake(traces, deleter)

    async def log_spans(self, experiment: str, run: str, spans: Sequence[Span], command: CommandContext) -> Appended:
        """Keeps spans of an experiment, which is made when there is none.

        Raises:
            FailedPrecondition: The experiment was put away.
            ResourceExhausted: Too many bytes wait.
        """
        await self._usable_experiment(experiment, command)
        return await self._intake.take(experiment, run, spans, command.now)

    async def LogSpans(self, request: service.LogSpansRequest, context: Context) -> service.LogSpansResponse:
        command = command_context(request.command_id)
        tracerequests.check_spans(request)
        found = await self.log_spans(request.experiment, request.run, request.spans, command)
        return service.LogSpansResponse(count=found.count, rejected_count=found.rejected, rejected_reason=found.reason)

    async def LogTrace(self, request: service.LogTraceRequest, context: Context) -> service.LogTraceResponse:
        command = command_context(request.command_id)
        tracerequests.check_told(request)
        oldest = self._deleter.oldest(command.now)
        if oldest is not None and request.start_time.ToSeconds() < oldest.timestamp():
            raise InvalidArgument("it is older than traces are kept", field="start_time")
        await self._usable_experiment(request.experiment, command)
        return service.LogTraceResponse(trace=await self._traces.tell(request))

    async def GetTrace(self, request: service.GetTraceRequest, context: Context) -> service.GetTraceResponse:
        tracerequests.check_trace(request.name, field="name")
        return service.GetTraceResponse(trace=await self._traces.get(request.name))

    async def ListSpans(self, request: service.ListSpansRequest, context: Context) -> service.ListSpansResponse:
        tracerequests.check_trace(request.trace)
        page = page_of(request)
        await self._traces.get(request.trace)
        start, _, span_id = page.after.partition(":")
        after = (int(start), span_id) if page.after else _START
        spans = await self._traces.spans(request.trace, after=after, limit=page.limit)
        if not spans:
            return service.ListSpansResponse()
        last = (spans[-1].start_time_ns, spans[-1].span_id)
        more = await self._traces.spans(request.trace, after=last, limit=1)
        token = page.token(f"{last[0]}:{last[1]}", count=page.limit) if more else ""
        return service.ListSpansResponse(spans=spans, next_page_token=token)

    async def SearchTraces(
        self, request: service.SearchTracesRequest, context: Context
    ) -> service.SearchTracesResponse:
        project = tracerequests.check_search(request)
        page = page_of(request)
        found = await self._traces.search(
            project,
            experiments=request.experiments,
            condition=parse_filter(request.filter, TRACES),
            orders=parse_order(request.order_by, TRACES),
            limit=page.limit,
            after=page.after,
        )
        token = page.token(found.place, count=len(found.traces))
        return service.SearchTracesResponse(traces=found.traces, next_page_token=token)

    async def ChangeTraceTags(
        self, request: service.ChangeTraceTagsRequest, context: Context
    ) -> service.ChangeTraceTagsResponse:
        command_context(request.command_id)
        tracerequests.check_tags(request)
        trace = await self._traces.change_tags(request.trace, request.set, request.removed)
        return service.ChangeTraceTagsResponse(trace=trace)

    async def DeleteTraces(
        self, request: service.DeleteTracesRequest, context: Context
    ) -> service.DeleteTracesResponse:
        command = command_context(request.command_id)
        tracerequests.check_delete(request)
        return await self._deleter.delete(request, parse_filter(request.filter, TRACES), command)
