"""Decisions on traces: what spans say of their trace, what their application says, and what a deletion is."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import orjson
from google.protobuf.message import Message

from headrace.api.tracking.v1 import events_pb2 as events
from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from headrace_kit.errors import FailedPrecondition
from headrace_tracking.domain import stamp
from headrace_tracking.experiments import existing

MAX_SPANS: Final = 10_000
"""Spans of one trace; more are dropped and counted."""
MAX_TRACE_BYTES: Final = 64 * 1024 * 1024
MAX_LABELS: Final = 200
"""Tags of one trace; as many entries of metadata."""
MAX_PREVIEW: Final = 1000
"""Characters of a preview that is made of a span's attribute."""
MAX_SEARCHED: Final = 256
"""Characters of an attribute that can be searched for."""
TYPES: Final = ("mlflow.spanType", "openinference.span.kind", "gen_ai.operation.name")
"""Attributes that say what kind of work a span is; the first of them counts."""
INPUTS: Final = ("mlflow.spanInputs", "input.value", "gen_ai.input.messages")
OUTPUTS: Final = ("mlflow.spanOutputs", "output.value", "gen_ai.output.messages")
ENDED: Final = (resources.TRACE_STATE_OK, resources.TRACE_STATE_ERROR)


@dataclass(frozen=True, slots=True)
class Held:
    """What is kept of a trace.

    Attributes:
        trace: The trace.
        is_told: Whether its application told of it as a whole, which counts more than its spans.
        root_start_ns: Start of the root span it is named after; 0 while none came.
    """

    trace: resources.Trace
    is_told: bool = False
    root_start_ns: int = 0


def of_spans(held: Held, spans: Sequence[resources.Span]) -> Held:
    """With new spans. In whatever order spans come, the same is held in the end."""
    trace = _copy(held.trace)
    if held.is_told or not spans:
        return Held(trace, held.is_told, held.root_start_ns)
    first = min(spans, key=_place)
    start_ns, root_start_ns = trace.start_time.ToNanoseconds(), held.root_start_ns
    is_first = not start_ns or first.start_time_ns < start_ns
    if is_first:
        trace.start_time.FromNanoseconds(first.start_time_ns)
    root = min((each for each in spans if not each.parent_span_id), key=_place, default=None)
    if root is not None and (not root_start_ns or root.start_time_ns <= root_start_ns):
        root_start_ns = root.start_time_ns
        trace.display_name = root.name
        trace.state = _state(root)
        trace.duration_ns = root.end_time_ns - root.start_time_ns if root.end_time_ns else 0
        trace.request_preview = preview(root, INPUTS)
        trace.response_preview = preview(root, OUTPUTS)
    elif not root_start_ns and is_first:
        trace.display_name = first.name
    return Held(trace, held.is_told, root_start_ns)


def of_application(held: Held, told: service.LogTraceRequest) -> Held:
    """With what its application says. What was said before stays once the trace ended; what is missing is added.

    Raises:
        FailedPrecondition: It would have too many tags or too much metadata.
    """
    trace = _copy(held.trace)
    if not (held.is_told and trace.state in ENDED):
        trace.display_name = told.display_name or trace.display_name
        trace.state = told.state
        trace.start_time.CopyFrom(told.start_time)
        trace.duration_ns = told.duration_ns
        trace.request_preview = told.request_preview or trace.request_preview
        trace.response_preview = told.response_preview or trace.response_preview
        trace.client_request_id = told.client_request_id or trace.client_request_id
        trace.run = told.run or trace.run
    for kept, given in ((trace.metadata, told.metadata), (trace.tags, told.tags)):
        for key, value in given.items():
            if key not in kept:
                kept[key] = value
    _require_room("metadata", len(trace.metadata))
    _require_room("tags", len(trace.tags))
    return Held(trace, is_told=True, root_start_ns=held.root_start_ns)


def with_tags(trace: resources.Trace, set_: dict[str, str], removed: Iterable[str]) -> resources.Trace:
    """With tags set and removed. Raises FailedPrecondition when there would be too many."""
    found = _copy(trace)
    for key in removed:
        found.tags.pop(key, None)
    found.tags.update(set_)
    _require_room("set", len(found.tags))
    return found


def preview(span: resources.Span, keys: Sequence[str]) -> str:
    """The beginning of the first of some attributes that a span has; texts as they are, all else as JSON."""
    text = next((span.attributes[key] for key in keys if key in span.attributes), "")
    return _plain(text)[:MAX_PREVIEW].replace("\0", "\ufffd")


def type_of(span: resources.Span) -> str:
    """What kind of work a span says it is; empty when it does not."""
    text = next((span.attributes[key] for key in TYPES if key in span.attributes), "")
    return _plain(text)[:MAX_SEARCHED].replace("\0", "\ufffd")


def searched(span: resources.Span) -> dict[str, str]:
    """The attributes that can be searched for, as texts: short ones, numbers, true and false."""
    found: dict[str, str] = {}
    for key, text in span.attributes.items():
        if len(text) > MAX_SEARCHED * 2 or text[:1] in "[{n":
            continue
        plain = _plain(text)
        if len(plain) <= MAX_SEARCHED and "\0" not in plain:
            found[key] = plain
    return found


def decide_delete(
    state: resources.Experiment | None,
    command: service.DeleteTracesRequest,
    chosen: service.DeleteTracesResponse,
    traces: Sequence[str],
    now: datetime,
) -> list[Message]:
    """Traces are gone; nothing when none was chosen. Raises NotFound for the experiment."""
    existing(state, command.experiment)
    if not traces:
        return []
    return [
        events.TracesDeleted(
            experiment=command.experiment,
            traces=[each.rpartition("/")[2] for each in traces],
            filter=command.filter,
            span_count=chosen.span_count,
            size_bytes=chosen.size_bytes,
            time=stamp(now),
        )
    ]


def _state(root: resources.Span) -> resources.TraceState.ValueType:
    if not root.end_time_ns:
        return resources.TRACE_STATE_IN_PROGRESS
    return resources.TRACE_STATE_ERROR if root.status == resources.SPAN_STATUS_ERROR else resources.TRACE_STATE_OK


def _plain(text: str) -> str:
    """A JSON text as a person reads it."""
    if not text.startswith('"'):
        return text
    try:
        found: object = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return str(found)


def _place(span: resources.Span) -> tuple[int, str]:
    return span.start_time_ns, span.span_id


def _copy(trace: resources.Trace) -> resources.Trace:
    found = resources.Trace()
    found.CopyFrom(trace)
    return found


def _require_room(field: str, count: int) -> None:
    if count > MAX_LABELS:
        raise FailedPrecondition(
            f"a trace has at most {MAX_LABELS} tags, and as much metadata", field=field, reason="TRACE_FULL"
        )
