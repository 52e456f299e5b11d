"""Traces of applications: the list, and one with its spans as they followed each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import grpc
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.errors import error_details
from headrace.spantrees import in_order
from headrace_gateway.pages import Pages
from headrace_gateway.platform import Platform

SHOWN: Final = 50
"""Traces of a page."""
SPANS_SHOWN: Final = 500
MAX_VALUE: Final = 20_000
"""Characters of a value that are shown."""
MAX_CHARACTERS: Final = 2_000_000
"""Characters of all values of a page; once they are used up, values are cut short."""
SHORT: Final = 200
DEEPEST: Final = 12
"""Spans that lie deeper are not moved further to the right."""
INPUTS: Final = ("mlflow.spanInputs", "input.value", "gen_ai.input.messages")
OUTPUTS: Final = ("mlflow.spanOutputs", "output.value", "gen_ai.output.messages")
HIDDEN: Final = ("mlflow.traceRequestId", "mlflow.spanFunctionName", "mlflow.spanLogLevel")
"""Attributes that only say what the page says anyway."""
_TYPES: Final = ("mlflow.spanType", "openinference.span.kind", "gen_ai.operation.name")


@dataclass(frozen=True, slots=True)
class Bar:
    """A span as the page shows it.

    Attributes:
        span: The span.
        depth: How far to the right its name stands.
        x: Where its bar begins, in thousandths of the trace.
        width: How long its bar is.
        kind: What kind of work it says it is.
        inputs: What it took, as text; empty for nothing.
        outputs: What it gave.
        attributes: All else that is known of it, by key.
        events: What happened in it: name, nanoseconds after its start, what is known.
    """

    span: resources.Span
    depth: int
    x: float
    width: float
    kind: str
    inputs: str
    outputs: str
    attributes: Sequence[tuple[str, str]]
    events: Sequence[tuple[str, int, Sequence[tuple[str, str]]]]


def routes(platform: Platform, pages: Pages) -> list[BaseRoute]:
    """Every page about traces."""
    read = platform.read

    async def listing(request: Request) -> Response:
        given = request.query_params
        asked = service.SearchTracesRequest(
            parent=platform.parent,
            filter=condition(given),
            order_by=given.get("order_by", ""),
            page_size=SHOWN,
            page_token=given.get("page", ""),
        )
        if given.get("experiment"):
            asked.experiments.append(f"{platform.parent}/experiments/{given['experiment']}")
        problem, status, found = "", HTTPStatus.OK, service.SearchTracesResponse()
        try:
            found = await read.tracking.SearchTraces(asked)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                raise
            problem, status = error_details(error)[1].message, HTTPStatus.BAD_REQUEST
        known = service.ListExperimentsRequest(parent=platform.parent, page_size=1000)
        experiments = (await read.tracking.ListExperiments(known)).experiments
        return pages.render(
            request,
            "traces.html",
            status=status,
            traces=found.traces,
            next_page=found.next_page_token,
            problem=problem,
            experiments=experiments,
            State=resources.TraceState,
            base=str(request.base_url).rstrip("/"),
            longest=max((each.duration_ns for each in found.traces), default=0),
        )

    async def show(request: Request) -> Response:
        name = f"{platform.parent}/traces/{request.path_params['trace'].removeprefix('tr-')}"
        trace: resources.Trace = (await read.tracking.GetTrace(service.GetTraceRequest(name=name))).trace
        asked = service.ListSpansRequest(
            trace=name, page_size=SPANS_SHOWN, page_token=request.query_params.get("page", "")
        )
        page: service.ListSpansResponse = await read.tracking.ListSpans(asked)
        return pages.render(
            request,
            "trace.html",
            trace=trace,
            bars=bars(page.spans),
            next_page=page.next_page_token,
            State=resources.TraceState,
            Status=resources.SpanStatus,
            Kind=resources.SpanKind,
        )

    return [Route("/traces", listing), Route("/traces/{trace}", show)]


def condition(given: Mapping[str, str]) -> str:
    """The filter of a request: what was written, and the run it is about."""
    text, run = given.get("filter", "").strip(), given.get("run", "")
    of_run = f'run = "{run.replace(chr(92), "").replace(chr(34), "")}"' if run else ""
    return f"({text}) and {of_run}" if text and run else text or of_run


def bars(spans: Iterable[resources.Span]) -> list[Bar]:
    """Spans in the order of their tree, each with its place in time."""
    placed = in_order(spans)
    start = min((each.span.start_time_ns for each in placed), default=0)
    end = max((max(each.span.start_time_ns, each.span.end_time_ns) for each in placed), default=0)
    whole = max(end - start, 1)
    room = MAX_CHARACTERS
    found: list[Bar] = []
    for depth, span in placed:
        values = {key: readable(text, MAX_VALUE if room > 0 else SHORT) for key, text in span.attributes.items()}
        room -= sum(len(each) for each in values.values())
        apart = {*INPUTS, *OUTPUTS, *_TYPES, *HIDDEN}
        last = span.end_time_ns or end
        found.append(
            Bar(
                span=span,
                depth=min(depth, DEEPEST),
                x=round((span.start_time_ns - start) * 1000 / whole, 2),
                width=round(max((last - span.start_time_ns) * 1000 / whole, 2), 2),
                kind=_first(values, _TYPES),
                inputs=_first(values, INPUTS),
                outputs=_first(values, OUTPUTS),
                attributes=[(key, values[key]) for key in sorted(values) if key not in apart],
                events=[
                    (each.name, each.time_ns - span.start_time_ns, _listed(each.attributes)) for each in span.events
                ],
            )
        )
    return found


def readable(text: str, most: int) -> str:
    """A JSON text for a person: texts as they are, all else with line ends, and no more than so many characters."""
    if len(text) <= MAX_VALUE * 4:
        try:
            value: object = orjson.loads(text)
        except orjson.JSONDecodeError:
            value = text
        text = value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    return text if len(text) <= most else f"{text[:most]}…"


def _first(values: Mapping[str, str], keys: Sequence[str]) -> str:
    return next((values[key] for key in keys if key in values), "")


def _listed(values: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(key, readable(values[key], MAX_VALUE)) for key in sorted(values)]
