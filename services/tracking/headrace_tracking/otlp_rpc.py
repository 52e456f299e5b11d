"""OpenTelemetry's own call for spans, so that its exporters need nothing but an address and a token."""

from __future__ import annotations

from typing import Any, Final, TypeAlias
from urllib.parse import unquote
from uuid import uuid4

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as collector
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceServicer

from headrace_kit import otlp
from headrace_kit.errors import InvalidArgument
from headrace_kit.names import EXPERIMENT
from headrace_kit.rpc import command_context
from headrace_tracking.requests import check_run
from headrace_tracking.traces_rpc import TracesRpc

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # Any: the messages of whichever method
EXPERIMENT_KEY: Final = "x-headrace-experiment"
"""Metadata: resource name of the experiment, in percent encoding where it is not ASCII."""
RUN_KEY: Final = "x-headrace-run"
DEFAULT: Final = "projects/default/experiments/Default"
"""Where traces go whose exporter names no experiment."""


class OtlpServicer(TraceServiceServicer):
    """Takes spans from OpenTelemetry's exporters.

    Args:
        traces: What keeps them.
    """

    def __init__(self, traces: TracesRpc) -> None:
        self._traces = traces

    async def Export(
        self, request: collector.ExportTraceServiceRequest, context: Context
    ) -> collector.ExportTraceServiceResponse:
        """Spans of whatever traces; those that are not kept are counted in the answer."""
        given = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        experiment, run = unquote(given.get(EXPERIMENT_KEY, DEFAULT)), given.get(RUN_KEY, "")
        project = EXPERIMENT.parse(experiment, field=EXPERIMENT_KEY)["project"]
        if run and check_run(run, field=RUN_KEY) != project:
            raise InvalidArgument("the run is of another project", field=RUN_KEY)
        taken = otlp.taken(request)
        answer = collector.ExportTraceServiceResponse()
        if taken.spans:
            kept = await self._traces.log_spans(experiment, run, taken.spans, command_context(str(uuid4())))
            taken.reject(kept.rejected, kept.reason)
        if taken.rejected:
            answer.partial_success.rejected_spans = taken.rejected
            answer.partial_success.error_message = taken.reason
        return answer
