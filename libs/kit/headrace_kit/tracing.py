"""OpenTelemetry: traces that run through gRPC metadata and Kafka headers (W3C trace context).

Trace ids always flow, so that an event names the trace that wrote it. Spans are recorded and leave the process only
where OTEL_EXPORTER_OTLP_ENDPOINT says where to.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, DEFAULT_ON
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_propagator = TraceContextTextMapPropagator()
_tracer = trace.get_tracer("headrace")


def configure_tracing(service: str) -> Callable[[], None]:
    """Sets tracing up for a process, once, at its start; returns what sends the last spans at its end."""
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    provider = TracerProvider(
        resource=Resource.create({"service.name": f"headrace-{service}"}),
        sampler=DEFAULT_ON if endpoint else ALWAYS_OFF,
        shutdown_on_exit=False,
    )
    if endpoint:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - slow

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider.shutdown


def traceparent() -> str:
    """The current trace context in W3C form; empty when there is none."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get("traceparent", "")


def parent_of(metadata: Mapping[str, str]) -> otel_context.Context:
    """The context that metadata or headers carry in ``traceparent``; what is malformed begins a new trace."""
    return _propagator.extract(metadata)


def start_server_span(method: str, parent: otel_context.Context) -> trace.Span:
    """A span for a call being answered; the caller ends it."""
    return _tracer.start_span(method, context=parent, kind=trace.SpanKind.SERVER)


@contextmanager
def consumer_span(name: str, traceparent: str) -> Iterator[None]:
    """A span for an event being handled, below the one that wrote it; calls made inside go on with its trace.

    Args:
        name: The handler, ``<service>.<handler>``.
        traceparent: ``ReceivedEvent.traceparent``.
    """
    parent = parent_of({"traceparent": traceparent} if traceparent else {})
    with _tracer.start_as_current_span(name, context=parent, kind=trace.SpanKind.CONSUMER):
        yield
