"""Headrace's traces and spans as the JSON that MLflow's clients read: their protobuf messages, ids in base64."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Final

import orjson
from google.protobuf.duration_pb2 import Duration

from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace_gateway.mlflow_api import naming
from headrace_gateway.mlflow_api.wire import Json

NAME_TAG: Final = "mlflow.traceName"
SPANS_TAG: Final = "mlflow.trace.spansLocation"
RUN_KEY: Final = "mlflow.sourceRun"
TRACKING_STORE: Final = "TRACKING_STORE"
"""Where spans are: clients ask the server for them, and look for no file."""
_INT64: Final = 1 << 63


def trace_id(name: str) -> str:
    """MLflow's id of a trace."""
    return f"tr-{naming.last_part(name)}"


def trace_info(trace: resources.Trace, number_of_experiment: int) -> Json:
    """A trace without its spans."""
    tags = {**trace.tags, NAME_TAG: trace.tags.get(NAME_TAG, trace.display_name), SPANS_TAG: TRACKING_STORE}
    metadata = dict(trace.metadata)
    if trace.run:
        metadata.setdefault(RUN_KEY, naming.run_id(trace.run))
    state = resources.TraceState.Name(trace.state).removeprefix("TRACE_")
    found: Json = {
        "trace_id": trace_id(trace.name),
        "trace_location": {
            "type": "MLFLOW_EXPERIMENT",
            "mlflow_experiment": {"experiment_id": str(number_of_experiment)},
        },
        "request_time": trace.start_time.ToJsonString(),
        "state": state if state == "STATE_UNSPECIFIED" else state.removeprefix("STATE_"),
        "trace_metadata": metadata,
        "tags": tags,
    }
    if trace.duration_ns:
        duration = Duration()
        duration.FromNanoseconds(trace.duration_ns)
        found["execution_duration"] = duration.ToJsonString()
    for name in ("request_preview", "response_preview", "client_request_id"):
        if value := getattr(trace, name):
            found[name] = value
    return found


def span_json(span: resources.Span) -> Json:
    """A span as OpenTelemetry's message in protobuf's JSON."""
    found: Json = {
        "trace_id": _bytes(span.trace_id),
        "span_id": _bytes(span.span_id),
        "name": span.name,
        "kind": int(span.kind),
        "start_time_unix_nano": str(span.start_time_ns),
        "end_time_unix_nano": str(span.end_time_ns),
        "status": {"code": int(span.status), "message": span.status_message},
        "attributes": _attributes(span.attributes),
        "events": [
            {"name": each.name, "time_unix_nano": str(each.time_ns), "attributes": _attributes(each.attributes)}
            for each in span.events
        ],
        "links": [
            {
                "trace_id": _bytes(each.trace_id),
                "span_id": _bytes(each.span_id),
                "attributes": _attributes(each.attributes),
            }
            for each in span.links
        ],
    }
    return found | ({"parent_span_id": _bytes(span.parent_span_id)} if span.parent_span_id else {})


def trace_json(trace: resources.Trace, spans: Iterable[resources.Span], number_of_experiment: int) -> Json:
    """A trace with its spans."""
    return {
        "trace_info": trace_info(trace, number_of_experiment),
        "spans": [span_json(each) for each in spans],
    }


def _bytes(digits: str) -> str:
    return base64.b64encode(bytes.fromhex(digits)).decode()


def _attributes(values: Mapping[str, str]) -> list[Json]:
    return [{"key": key, "value": _any_value(orjson.loads(values[key]))} for key in sorted(values)]


def _any_value(value: object) -> Json:
    match value:
        case bool():
            return {"bool_value": value}
        case str():
            return {"string_value": value}
        case int() if -_INT64 <= value < _INT64:
            return {"int_value": str(value)}
        case int() | float():
            return {"double_value": float(value)}
        case list():
            return {"array_value": {"values": [_any_value(each) for each in value]}}
        case dict():
            pairs = [{"key": str(key), "value": _any_value(each)} for key, each in value.items()]
            return {"kvlist_value": {"values": pairs}}
        case _:
            return {}
