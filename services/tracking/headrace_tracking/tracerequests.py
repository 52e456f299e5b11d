"""Checks of requests about traces; each raises InvalidArgument with the path of the field."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import orjson

from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from headrace_kit import otlp
from headrace_kit.errors import InvalidArgument
from headrace_kit.names import EXPERIMENT, PROJECT, NamePattern, require_text
from headrace_kit.validate import require_enum, require_range, require_size, require_texts, require_time
from headrace_tracking.requests import check_run
from headrace_tracking.traces import MAX_LABELS

MAX_DELETED: Final = 1000
MAX_PREVIEW: Final = 10_000
MAX_DURATION_NS: Final = 365 * 86_400 * 10**9
TRACE: Final = NamePattern("projects/{project}/traces/{trace}")
_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")
_SPAN_ID: Final = re.compile(r"[0-9a-f]{16}")
_STATES: Final = {int(number): name for name, number in resources.TraceState.items() if number}
_KINDS: Final = {int(number): name for name, number in resources.SpanKind.items()}
_STATUSES: Final = {int(number): name for name, number in resources.SpanStatus.items()}
_MAX_COUNT: Final = 1 << 40


def check_trace(name: str, *, field: str = "trace") -> str:
    """A trace's name; returns its project."""
    found = TRACE.parse(name, field=field)
    _require_id(found["trace"], _TRACE_ID, field=field)
    return found["project"]


def check_spans(request: service.LogSpansRequest) -> None:
    """Spans with their experiment."""
    _check_place(EXPERIMENT.parse(request.experiment, field="experiment")["project"], request.run)
    require_size(request.spans, field="spans", least=1, most=otlp.MAX_SPANS)
    for index, each in enumerate(request.spans):
        _check_span(each, f"spans[{index}]")


def check_told(request: service.LogTraceRequest) -> None:
    """What an application says of a trace."""
    project = check_trace(request.trace)
    if EXPERIMENT.parse(request.experiment, field="experiment")["project"] != project:
        raise InvalidArgument("the experiment is of another project", field="experiment")
    _check_place(project, request.run)
    require_text(request.display_name, field="display_name", least=0, most=250)
    require_enum(request.state, field="state", names=_STATES)
    require_time(request.start_time, field="start_time")
    require_range(request.duration_ns, field="duration_ns", least=0, most=MAX_DURATION_NS)
    for field in ("request_preview", "response_preview"):
        if len(getattr(request, field)) > MAX_PREVIEW:  # whatever characters an application was asked
            raise InvalidArgument(f"give at most {MAX_PREVIEW} characters", field=field)
    require_texts(request.metadata, field="metadata", most=MAX_LABELS)
    require_texts(request.tags, field="tags", most=MAX_LABELS)
    require_text(request.client_request_id, field="client_request_id", least=0, most=250)


def check_tags(request: service.ChangeTraceTagsRequest) -> None:
    """Tags to set and to remove."""
    check_trace(request.trace)
    require_texts(request.set, field="set", most=MAX_LABELS)
    require_size(request.removed, field="removed", most=MAX_LABELS)


def check_search(request: service.SearchTracesRequest) -> str:
    """A search; returns its project."""
    project = PROJECT.parse(request.parent, field="parent")["project"]
    require_text(request.filter, field="filter", least=0, most=4000, lines=True)
    require_text(request.order_by, field="order_by", least=0, most=1000, lines=True)
    require_size(request.experiments, field="experiments", most=1000)
    for index, each in enumerate(request.experiments):
        if EXPERIMENT.parse(each, field=f"experiments[{index}]")["project"] != project:
            raise InvalidArgument("the experiment is of another project", field=f"experiments[{index}]")
    return project


def check_delete(request: service.DeleteTracesRequest) -> None:
    """Traces that are named, or a filter."""
    EXPERIMENT.parse(request.experiment, field="experiment")
    require_size(request.traces, field="traces", most=MAX_DELETED)
    for index, each in enumerate(request.traces):
        check_trace(each, field=f"traces[{index}]")
    require_text(request.filter, field="filter", least=0, most=4000, lines=True)
    require_range(request.limit, field="limit", least=0, most=MAX_DELETED)
    if bool(request.traces) == bool(request.filter.strip()):
        raise InvalidArgument("give either traces or a filter that chooses them", field="traces")


def spans_in_time(
    spans: Sequence[resources.Span], oldest: datetime | None, latest: datetime
) -> tuple[list[resources.Span], str]:
    """The spans that began within a time, and why the first of the others is not kept."""
    least = 0 if oldest is None else _nanoseconds(oldest)
    most = _nanoseconds(latest)
    kept = [each for each in spans if least <= each.start_time_ns <= most]
    if len(kept) == len(spans):
        return kept, ""
    other = next(each for each in spans if not least <= each.start_time_ns <= most)
    why = "is older than traces are kept" if other.start_time_ns < least else "lies more than a day ahead"
    return kept, f"span {other.span_id} of trace {other.trace_id}: its start {why}"


def _check_place(project: str, run: str) -> None:
    if run and check_run(run) != project:
        raise InvalidArgument("the run is of another project", field="run")


def _check_span(span: resources.Span, at: str) -> None:
    _require_id(span.trace_id, _TRACE_ID, field=f"{at}.trace_id")
    _require_id(span.span_id, _SPAN_ID, field=f"{at}.span_id")
    if span.parent_span_id:
        _require_id(span.parent_span_id, _SPAN_ID, field=f"{at}.parent_span_id")
    require_text(span.name, field=f"{at}.name", most=otlp.MAX_NAME)
    require_enum(span.kind, field=f"{at}.kind", names=_KINDS)
    require_enum(span.status, field=f"{at}.status", names=_STATUSES)
    if span.start_time_ns <= 0:
        raise InvalidArgument("give nanoseconds since 1970", field=f"{at}.start_time_ns")
    if span.end_time_ns and span.end_time_ns < span.start_time_ns:
        raise InvalidArgument("it is before the start", field=f"{at}.end_time_ns")
    require_text(span.status_message, field=f"{at}.status_message", least=0, most=otlp.MAX_MESSAGE, lines=True)
    require_text(span.scope, field=f"{at}.scope", least=0, most=otlp.MAX_NAME)
    _check_attributes(span.attributes, f"{at}.attributes", otlp.MAX_ATTRIBUTES, otlp.MAX_VALUE)
    _check_attributes(span.resource, f"{at}.resource", otlp.MAX_OTHERS, otlp.MAX_OTHER_VALUE)
    require_size(span.events, field=f"{at}.events", most=otlp.MAX_EVENTS)
    for number, event in enumerate(span.events):
        require_text(event.name, field=f"{at}.events[{number}].name", least=0, most=otlp.MAX_NAME)
        _check_attributes(event.attributes, f"{at}.events[{number}].attributes", otlp.MAX_OTHERS, otlp.MAX_EVENT_VALUE)
    require_size(span.links, field=f"{at}.links", most=otlp.MAX_LINKS)
    for number, link in enumerate(span.links):
        _require_id(link.trace_id, _TRACE_ID, field=f"{at}.links[{number}].trace_id")
        _require_id(link.span_id, _SPAN_ID, field=f"{at}.links[{number}].span_id")
        _check_attributes(link.attributes, f"{at}.links[{number}].attributes", otlp.MAX_OTHERS, otlp.MAX_OTHER_VALUE)
    for field in ("dropped_attributes_count", "dropped_events_count", "dropped_links_count"):
        if not 0 <= getattr(span, field) < _MAX_COUNT:
            raise InvalidArgument("a count is no less than 0", field=f"{at}.{field}")
    size = span.ByteSize()
    if size > otlp.MAX_SPAN_BYTES:
        raise InvalidArgument(f"a span has at most {otlp.MAX_SPAN_BYTES} bytes; these are {size}", field=at)


def _check_attributes(values: Mapping[str, str], field: str, most: int, longest: int) -> None:
    require_size(values, field=field, most=most)
    for key, text in values.items():
        if not 1 <= len(key) <= otlp.MAX_KEY:
            raise InvalidArgument(f"a key has 1 to {otlp.MAX_KEY} characters", field=field)
        if len(text) > longest:
            raise InvalidArgument(
                f"give at most {longest} characters; these are {len(text)}", field=f"{field}[{key!r}]"
            )
        try:
            orjson.loads(text)
        except orjson.JSONDecodeError:
            raise InvalidArgument("give JSON, such as a text in double quotes", field=f"{field}[{key!r}]") from None


def _require_id(text: str, form: re.Pattern[str], *, field: str) -> None:
    if not form.fullmatch(text) or not text.strip("0"):
        length = 32 if form is _TRACE_ID else 16
        raise InvalidArgument(f"give an id of {length} lower-case hex digits, not all of them 0", field=field)


def _nanoseconds(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp() * 1e6) * 1000
