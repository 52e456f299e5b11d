"""OpenTelemetry's spans as the platform keeps them: bytes -> request -> spans within the limits of the API.

What is too long is cut, what is too much is left out, and both are counted on the span. What is no span is rejected,
and the reason is told of the first.
"""

import base64
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, cast

import orjson
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2 as otel

from headrace.api.tracking.v1.resources_pb2 import Span, SpanEvent, SpanLink
from headrace_kit.errors import InvalidArgument

MAX_KEY: Final = 250
MAX_NAME: Final = 250
MAX_MESSAGE: Final = 8000
MAX_ATTRIBUTES: Final = 256
MAX_VALUE: Final = 262_144
MAX_EVENTS: Final = 256
MAX_EVENT_VALUE: Final = 65_536
MAX_LINKS: Final = 128
MAX_OTHERS: Final = 128
"""Attributes of an event, of a link, of a resource."""
MAX_OTHER_VALUE: Final = 8000
MAX_SPAN_BYTES: Final = 1024 * 1024
MAX_SPANS: Final = 10_000
"""Spans of one request."""
MAX_TAKEN_BYTES: Final = 48 * 1024 * 1024
"""Bytes of the spans of one request, each with what is known of its program."""
UNNAMED: Final = "(unnamed)"
_MAX_NS: Final = 1 << 63
_UNSEEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")
_IDS: Final = ("traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id")
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2})*")


@dataclass(slots=True)
class Taken:
    """What was made of a request.

    Attributes:
        spans: Those that can be kept.
        rejected: How many can not.
        reason: Why, of the first of them.
    """

    spans: list[Span] = field(default_factory=list[Span])
    rejected: int = 0
    reason: str = ""

    def reject(self, count: int, reason: str) -> None:
        """Counts spans that are not kept."""
        if count and not self.rejected:
            self.reason = reason
        self.rejected += count


def parsed(body: bytes, *, is_json: bool) -> ExportTraceServiceRequest:
    """The request that a body is, in protobuf or in OTLP's JSON, which has ids in hex.

    Raises:
        InvalidArgument: It is none.
    """
    request = ExportTraceServiceRequest()
    if not is_json:
        try:
            request.ParseFromString(body)
        except DecodeError:
            raise InvalidArgument("the body is no ExportTraceServiceRequest in protobuf", field="body") from None
        return request
    try:
        loaded: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(f"the body is no JSON: {error}", field="body") from None
    if not isinstance(loaded, dict):
        raise InvalidArgument("give a JSON object, an ExportTraceServiceRequest", field="body")
    _decode_ids(cast("dict[str, object]", loaded))
    try:
        ParseDict(cast("dict[str, object]", loaded), request, ignore_unknown_fields=True)
    except (ParseError, RecursionError) as error:
        raise InvalidArgument(
            f"the body is no ExportTraceServiceRequest in JSON: {str(error)[:300]}", field="body"
        ) from None
    return request


def taken(request: ExportTraceServiceRequest) -> Taken:
    """The spans of a request.

    Raises:
        InvalidArgument: They are too many, or come to too many bytes.
    """
    found, size_bytes = Taken(), 0
    count = sum(len(below.spans) for each in request.resource_spans for below in each.scope_spans)
    if count > MAX_SPANS:
        raise InvalidArgument(f"a request has at most {MAX_SPANS} spans; these are {count}", field="resource_spans")
    for at, resource_spans in enumerate(request.resource_spans):
        resource, left_out = _attributes(resource_spans.resource.attributes, MAX_OTHERS, MAX_OTHER_VALUE)
        for below, scope_spans in enumerate(resource_spans.scope_spans):
            scope = line(scope_spans.scope.name, MAX_NAME)
            for number, each in enumerate(scope_spans.spans):
                path = f"resource_spans[{at}].scope_spans[{below}].spans[{number}]"
                fault = _fault(each)
                if fault:
                    found.reject(1, f"{path}.{fault}")
                    continue
                span = _span(each)
                span.resource.update(resource)
                span.scope = scope
                span.dropped_attributes_count += left_out
                size = span.ByteSize()
                if size > MAX_SPAN_BYTES:
                    found.reject(1, f"{path}: it has {size} bytes; at most {MAX_SPAN_BYTES}")
                    continue
                size_bytes += size
                if size_bytes > MAX_TAKEN_BYTES:
                    message = f"the spans of a request come to at most {MAX_TAKEN_BYTES} bytes, each with its resource"
                    raise InvalidArgument(message, field="resource_spans")
                found.spans.append(span)
    return found


def plain(value: AnyValue) -> object:
    """A value as JSON has it; bytes are base64, and what JSON has no number for is a word."""
    match value.WhichOneof("value"):
        case "double_value" if not math.isfinite(value.double_value):
            return "NaN" if math.isnan(value.double_value) else "Infinity" if value.double_value > 0 else "-Infinity"
        case "array_value":
            return [plain(each) for each in value.array_value.values]
        case "kvlist_value":
            return {each.key: plain(each.value) for each in value.kvlist_value.values}
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case None:
            return None
        case simple:
            found: object = getattr(value, simple)
            return found


def _span(given: otel.Span) -> Span:
    attributes, left_out = _attributes(given.attributes, MAX_ATTRIBUTES, MAX_VALUE)
    span = Span(
        trace_id=given.trace_id.hex(),
        span_id=given.span_id.hex(),
        parent_span_id=given.parent_span_id.hex() if any(given.parent_span_id) else "",
        name=line(given.name, MAX_NAME) or UNNAMED,
        start_time_ns=given.start_time_unix_nano,
        end_time_ns=given.end_time_unix_nano,
        status_message=_lines(given.status.message, MAX_MESSAGE),
        attributes=attributes,
        dropped_events_count=given.dropped_events_count + max(len(given.events) - MAX_EVENTS, 0),
        dropped_links_count=given.dropped_links_count + max(len(given.links) - MAX_LINKS, 0),
    )
    # Both enums have the numbers of OpenTelemetry's; one it may get later is none of ours yet.
    if 0 <= given.kind <= otel.Span.SPAN_KIND_CONSUMER:
        span.kind = int(given.kind)  # type: ignore[assignment] # the same number
    if 0 <= given.status.code <= otel.Status.STATUS_CODE_ERROR:
        span.status = int(given.status.code)  # type: ignore[assignment] # the same number
    dropped = given.dropped_attributes_count + left_out
    for event in given.events[:MAX_EVENTS]:
        values, left_out = _attributes(event.attributes, MAX_OTHERS, MAX_EVENT_VALUE)
        name = line(event.name, MAX_NAME)
        span.events.append(SpanEvent(name=name, time_ns=min(event.time_unix_nano, _MAX_NS - 1), attributes=values))
        dropped += left_out
    for link in given.links[:MAX_LINKS]:
        if _is_id(link.trace_id, 16) and _is_id(link.span_id, 8):
            values, left_out = _attributes(link.attributes, MAX_OTHERS, MAX_OTHER_VALUE)
            span.links.append(SpanLink(trace_id=link.trace_id.hex(), span_id=link.span_id.hex(), attributes=values))
            dropped += left_out
        else:
            span.dropped_links_count += 1
    span.dropped_attributes_count = dropped
    return span


def _fault(given: otel.Span) -> str:
    """Why it is no span: the field and the reason; empty when it is one."""
    if not _is_id(given.trace_id, 16):
        return "trace_id: give 16 bytes, not all of them 0"
    if not _is_id(given.span_id, 8):
        return "span_id: give 8 bytes, not all of them 0"
    if given.parent_span_id and len(given.parent_span_id) != 8:
        return "parent_span_id: give 8 bytes, or none"
    if not 0 < given.start_time_unix_nano < _MAX_NS:
        return "start_time_unix_nano: give nanoseconds since 1970"
    end = given.end_time_unix_nano
    if end and not given.start_time_unix_nano <= end < _MAX_NS:
        return "end_time_unix_nano: it is before the start"
    return ""


def _is_id(value: bytes, size: int) -> bool:
    return len(value) == size and any(value)


def _attributes(given: Iterable[KeyValue], most: int, longest: int) -> tuple[dict[str, str], int]:
    """Attributes as JSON by key, and how many were left out or cut."""
    found: dict[str, str] = {}
    dropped = 0
    for each in given:
        key = line(each.key, MAX_KEY)
        if not key or (key not in found and len(found) == most):
            dropped += 1
            continue
        found[key], cut = _json(plain(each.value), longest)
        dropped += cut
    return found, dropped


def _json(value: object, longest: int) -> tuple[str, bool]:
    """A value as JSON of so many characters at most, and whether it was cut: then it is a text."""
    text = orjson.dumps(value).decode()
    if len(text) <= longest:
        return text, False
    kept = (value if isinstance(value, str) else text)[: longest - 3]  # beside quotes and the sign that it was cut
    text = orjson.dumps(f"{kept}…").decode()
    while len(text) > longest:
        kept = kept[: len(kept) * longest // len(text) - 1]
        text = orjson.dumps(f"{kept}…").decode()
    return text, True


def line(text: str, most: int) -> str:
    """A text of one line, of so many characters at most; what can not be seen is replaced."""
    return _UNSEEN.sub("\ufffd", text[:most])


def _lines(text: str, most: int) -> str:
    """A text of several lines, of so many characters at most."""
    return _UNSEEN.sub(lambda found: found[0] if found[0] in "\t\r\n" else "\ufffd", text[:most])


def _decode_ids(loaded: Mapping[str, object]) -> None:
    """Ids in hex become what protobuf's JSON has for bytes, in place. What is of another form is left to the parser."""
    for resource_spans in _objects(loaded, "resourceSpans", "resource_spans"):
        for scope_spans in _objects(resource_spans, "scopeSpans", "scope_spans"):
            for span in _objects(scope_spans, "spans"):
                for each in (span, *_objects(span, "links")):
                    for name in _IDS:
                        value = each.get(name)
                        if isinstance(value, str):
                            if not _HEX.fullmatch(value):
                                raise InvalidArgument(f"{name} is hex digits, not {value[:50]!r}", field="body")
                            each[name] = base64.b64encode(bytes.fromhex(value)).decode()


def _objects(holder: Mapping[str, object], *names: str) -> list[dict[str, object]]:
    for name in names:
        value = holder.get(name)
        if isinstance(value, list):
            return [each for each in cast("list[object]", value) if isinstance(each, dict)]
    return []
