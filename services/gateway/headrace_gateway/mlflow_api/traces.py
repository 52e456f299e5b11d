"""Traces: what an application says of one, look up with and without spans, search, tags, deletion.

Their spans come by OpenTelemetry's protocol: :mod:`headrace_gateway.otlp`.
"""

from __future__ import annotations

import re
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from headrace_gateway.mlflow_api.asking import Arguments, Ask
from headrace_gateway.mlflow_api.errors import MlflowError, missing, unsupported
from headrace_gateway.mlflow_api.naming import experiment_name, experiment_number, run_name
from headrace_gateway.mlflow_api.table import V2, V3, Endpoint
from headrace_gateway.mlflow_api.tracefilters import translated_filter, translated_order
from headrace_gateway.mlflow_api.tracewire import NAME_TAG, RUN_KEY, SPANS_TAG, trace_info, trace_json
from headrace_gateway.mlflow_api.wire import Json
from headrace_kit.otlp import MAX_NAME, line

MAX_RESULTS: Final = 1000
MAX_AT_ONCE: Final = 100
"""Traces looked up in one call."""
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
"""Bytes of spans in one answer."""
_CHUNK: Final = 1000
_TRACE_ID: Final = re.compile(r"tr-(?!0{32})[0-9a-f]{32}")
_STATES: Final = {
    "OK": resources.TRACE_STATE_OK,
    "ERROR": resources.TRACE_STATE_ERROR,
    "IN_PROGRESS": resources.TRACE_STATE_IN_PROGRESS,
}


def endpoints() -> list[Endpoint]:
    """Every endpoint on traces."""
    return [
        Endpoint("POST", f"{V3}/traces", _tell),
        Endpoint("POST", f"{V3}/traces/search", _search),
        Endpoint("GET", f"{V3}/traces/get", _get),
        Endpoint("GET", f"{V3}/traces/batchGet", _batch_get),
        Endpoint("POST", f"{V3}/traces/batchGetInfos", _batch_get_infos),
        Endpoint("GET", f"{V3}/traces/{{trace_id}}", _get_info),
        *(
            endpoint
            for version in (V2, V3)
            for endpoint in (
                Endpoint("POST", f"{version}/traces/delete-traces", _delete),
                Endpoint("PATCH", f"{version}/traces/{{trace_id}}/tags", _set_tag),
                Endpoint("DELETE", f"{version}/traces/{{trace_id}}/tags", _delete_tag),
            )
        ),
    ]


def trace_name(ask: Ask, trace_id: str) -> str:
    """Resource name of a trace. Raises MlflowError when it can be none's id."""
    if not _TRACE_ID.fullmatch(trace_id):
        raise missing(f"Trace with ID '{trace_id[:100]}' not found.")
    return f"{ask.parent}/traces/{trace_id.removeprefix('tr-')}"


async def _tell(ask: Ask) -> Json:
    info = ask.item("trace").item("trace_info")
    identity = info.required("trace_id")
    if not _TRACE_ID.fullmatch(identity):
        raise MlflowError("Invalid value for parameter 'trace_id': give tr- and 32 lower-case hex digits.")
    if info.items("assessments"):
        raise unsupported("Assessments of traces are not kept.")
    tags, metadata = info.texts_by_key("tags"), info.texts_by_key("trace_metadata")
    tags.pop(SPANS_TAG, None)
    request = service.LogTraceRequest(
        trace=trace_name(ask, identity),
        experiment=await experiment_name(ask, _experiment_of(info.item("trace_location"))),
        display_name=line(tags.get(NAME_TAG, ""), MAX_NAME),
        state=_state(info.text("state", default="IN_PROGRESS")),
        start_time=_time(info.required("request_time")),
        duration_ns=_duration(info.text("execution_duration")),
        request_preview=info.text("request_preview"),
        response_preview=info.text("response_preview"),
        client_request_id=info.text("client_request_id"),
        metadata=metadata,
        tags=tags,
    )
    if run := metadata.get(RUN_KEY, ""):
        request.run = run_name(ask, run)
    told: resources.Trace = (await ask.command(ask.services.tracking.LogTrace, request)).trace
    return {"trace": {"trace_info": await _info(ask, told)}}


async def _get_info(ask: Ask) -> Json:
    return {"trace": {"trace_info": await _info(ask, await _trace(ask, ask.path("trace_id")))}}


async def _get(ask: Ask) -> Json:
    trace = await _trace(ask, ask.required("trace_id"))
    spans = await _spans(ask, trace, room=MAX_ANSWER_BYTES)
    return {"trace": trace_json(trace, spans, await experiment_number(ask, trace.experiment))}


async def _batch_get(ask: Ask) -> Json:
    found: list[Json] = []
    room = MAX_ANSWER_BYTES
    for trace in await _asked(ask):
        spans = await _spans(ask, trace, room=room)
        room -= trace.size_bytes
        found.append(trace_json(trace, spans, await experiment_number(ask, trace.experiment)))
    return {"traces": found}


async def _batch_get_infos(ask: Ask) -> Json:
    return {"trace_infos": [await _info(ask, each) for each in await _asked(ask)]}


async def _search(ask: Ask) -> Json:
    wanted = ask.integer("max_results", 100)
    if not 0 < wanted <= MAX_RESULTS:
        raise MlflowError(f"Invalid value {wanted} for parameter 'max_results': give 1 to {MAX_RESULTS}.")
    identities = [*(_experiment_of(each) for each in ask.items("locations")), *ask.texts("experiment_ids")]
    if not identities:
        raise MlflowError("Missing value for required parameter 'locations'.")
    request = service.SearchTracesRequest(
        parent=ask.parent,
        filter=translated_filter(ask.text("filter")),
        order_by=translated_order(ask.texts("order_by")),
        page_token=ask.text("page_token"),
        page_size=wanted,
        experiments=[await experiment_name(ask, each) for each in identities],
    )
    page: service.SearchTracesResponse = await ask.call(ask.services.tracking.SearchTraces, request)
    answer: Json = {"traces": [await _info(ask, each) for each in page.traces]}
    return answer | ({"next_page_token": page.next_page_token} if page.next_page_token else {})


async def _delete(ask: Ask) -> Json:
    experiment = await experiment_name(ask, ask.required("experiment_id"))
    identities, wanted = ask.texts("request_ids"), ask.integer("max_traces")
    if ask.given("max_timestamp_millis") == bool(identities):
        raise MlflowError("Give either 'max_timestamp_millis' or 'request_ids'.")
    if ask.given("max_traces") and (identities or wanted <= 0):
        raise MlflowError("Invalid value for parameter 'max_traces': a positive number, without 'request_ids'.")
    request = service.DeleteTracesRequest(experiment=experiment)
    if identities:
        names = [trace_name(ask, each) for each in dict.fromkeys(identities) if _TRACE_ID.fullmatch(each)]
        count = 0
        for first in range(0, len(names), _CHUNK):
            del request.traces[:]
            request.traces.extend(names[first : first + _CHUNK])
            count += await _delete_all(ask, request, most=_CHUNK)
        return {"traces_deleted": count}
    # A trace began within its millisecond: the next one is the first that stays.
    request.filter = f"start_time < {(ask.integer('max_timestamp_millis') + 1) / 1000!r}"
    return {"traces_deleted": await _delete_all(ask, request, most=wanted)}


async def _set_tag(ask: Ask) -> Json:
    name, key = trace_name(ask, ask.path("trace_id")), ask.required("key")
    request = service.ChangeTraceTagsRequest(trace=name, set={key: ask.text("value")})
    await ask.command(ask.services.tracking.ChangeTraceTags, request)
    return {}


async def _delete_tag(ask: Ask) -> Json:
    identity, key = ask.path("trace_id"), ask.required("key")
    trace = await _trace(ask, identity)
    if key not in trace.tags:
        raise missing(f"No tag with name: {key[:250]} in trace with ID {identity}")
    request = service.ChangeTraceTagsRequest(trace=trace.name, removed=[key])
    await ask.command(ask.services.tracking.ChangeTraceTags, request)
    return {}


async def _delete_all(ask: Ask, request: service.DeleteTracesRequest, *, most: int) -> int:
    """Deletes what matches, at most so many (0 for all), call by call: each is a short transaction with its event."""
    count = 0
    while not most or count < most:
        request.limit = min(most - count, _CHUNK) if most else _CHUNK
        gone: service.DeleteTracesResponse = await ask.command(ask.services.tracking.DeleteTraces, request)
        count += gone.trace_count
        if not gone.more:
            break
    return count


async def _asked(ask: Ask) -> list[resources.Trace]:
    """The traces that are asked for, but for those that are not there."""
    identities = ask.texts("trace_ids")
    if not 0 < len(identities) <= MAX_AT_ONCE:
        raise MlflowError(f"Invalid value for parameter 'trace_ids': give 1 to {MAX_AT_ONCE}.")
    known = [each.removeprefix("tr-") for each in identities if _TRACE_ID.fullmatch(each)]
    if not known:
        return []
    listed = ", ".join(f'"{each}"' for each in dict.fromkeys(known))
    request = service.SearchTracesRequest(parent=ask.parent, filter=f"trace in ({listed})", page_size=MAX_AT_ONCE)
    request.experiments.extend([await experiment_name(ask, each) for each in ask.texts("experiment_ids")])
    found: service.SearchTracesResponse = await ask.call(ask.services.tracking.SearchTraces, request)
    order = {each: at for at, each in enumerate(known)}
    return sorted(found.traces, key=lambda each: order[each.name.rpartition("/")[2]])


async def _trace(ask: Ask, identity: str) -> resources.Trace:
    request = service.GetTraceRequest(name=trace_name(ask, identity))
    found: resources.Trace = (await ask.call(ask.services.tracking.GetTrace, request)).trace
    return found


async def _spans(ask: Ask, trace: resources.Trace, *, room: int) -> list[resources.Span]:
    if trace.size_bytes > room:
        raise MlflowError(f"The spans come to over {MAX_ANSWER_BYTES} bytes: ask for fewer traces at once.")
    request = service.ListSpansRequest(trace=trace.name, page_size=1000)
    found: list[resources.Span] = []
    while True:
        page: service.ListSpansResponse = await ask.call(ask.services.tracking.ListSpans, request)
        found.extend(page.spans)
        request.page_token = page.next_page_token
        if not request.page_token:
            return found


async def _info(ask: Ask, trace: resources.Trace) -> Json:
    return trace_info(trace, await experiment_number(ask, trace.experiment))


def _experiment_of(location: Arguments) -> str:
    return location.item("mlflow_experiment").required("experiment_id")


def _state(text: str) -> resources.TraceState.ValueType:
    if text == "STATE_UNSPECIFIED":
        return resources.TRACE_STATE_IN_PROGRESS
    if text not in _STATES:
        raise MlflowError(f"Invalid value {text[:100]!r} for parameter 'state': give one of {', '.join(_STATES)}.")
    return _STATES[text]


def _time(text: str) -> Timestamp:
    found = Timestamp()
    try:
        found.FromJsonString(text)
    except (ValueError, OverflowError):
        raise MlflowError(f"Invalid value {text[:100]!r} for parameter 'request_time': expected a time.") from None
    return found


def _duration(text: str) -> int:
    found = Duration()
    try:
        if text:
            found.FromJsonString(text)
    except (ValueError, OverflowError):
        message = f"Invalid value {text[:100]!r} for parameter 'execution_duration': expected seconds such as 1.5s."
        raise MlflowError(message) from None
    return max(found.ToNanoseconds(), 0)
