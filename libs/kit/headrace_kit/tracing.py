"""OpenTelemetry: traces that run through gRPC metadata and Kafka headers (W3C trace context)."""

import os

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def configure_tracing(service: str) -> None:
    """Sets tracing up for a process. Spans leave it only where OTEL_EXPORTER_OTLP_ENDPOINT says where to."""
    provider = TracerProvider(resource=Resource.create({"service.name": f"headrace-{service}"}))
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - slow

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
