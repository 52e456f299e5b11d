"""``headrace traces``: what applications did, request by request."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated
from uuid import uuid4

import typer
from rich.markup import escape

from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.resources_pb2 import SPAN_STATUS_ERROR, Span, Trace, TraceState
from headrace.cli.output import (
    Json,
    Project,
    console,
    fields_of,
    point_at,
    print_done,
    print_fields,
    print_json,
    print_table,
    short,
    when,
    words,
)
from headrace.client import Client, connect
from headrace.errors import InvalidArgument
from headrace.spantrees import in_order, took

app = typer.Typer(help="Traces of applications: list, show, delete.", no_args_is_help=True)
_ID = re.compile(r"(?:tr-)?([0-9a-f]{32})")


@app.command("list")
def list_traces(
    filter_text: Annotated[
        str, typer.Option("--filter", "-f", help="Such as: status = 'ERROR' and duration_s > 2 and span.name = 'find'")
    ] = "",
    order_by: Annotated[str, typer.Option("--order-by", "-o", help="Such as: duration_s desc")] = "",
    experiment: Annotated[str, typer.Option(help="Only this experiment.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most traces to print.")] = 20,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """List traces, newest first, or by filter and order."""
    parent = f"projects/{project}"
    request = service.SearchTracesRequest(parent=parent, filter=filter_text, order_by=order_by, page_size=limit)
    if experiment:
        request.experiments.append(f"{parent}/experiments/{experiment}")
    try:
        with connect() as client:
            traces = client.tracking.SearchTraces(request).traces
    except InvalidArgument as error:
        point_at(error, {"filter": filter_text, "order_by": order_by})
        raise
    if as_json:
        print_json(list(traces))
        return
    rows = [
        (
            short(each.name),
            escape(each.display_name),
            _state(each),
            when(each.start_time),
            took(each.duration_ns) if each.duration_ns else "",
            each.span_count,
            escape(each.request_preview[:60]),
        )
        for each in traces
    ]
    columns = ("trace", "name", "state", "began (UTC)", "took", "spans", "asked")
    print_table("Traces", columns, rows, empty="No traces. Send some: see docs/traces.md")


@app.command()
def show(
    trace: Annotated[str, typer.Argument(help="Id of the trace, as OpenTelemetry or as MLflow writes it.")],
    attributes: Annotated[bool, typer.Option("--attributes", "-a", help="Each span's attributes too.")] = False,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Show a trace: what was done, in what order, and how long each part took."""
    with connect() as client:
        found = client.tracking.GetTrace(service.GetTraceRequest(name=_name(project, trace))).trace
        spans = list(_spans(client, found.name))
    if as_json:
        print_json({**fields_of(found), "spans": spans})
        return
    print_fields(
        escape(found.display_name),
        [
            ("trace", found.name),
            ("experiment", short(found.experiment)),
            ("run", short(found.run)),
            ("state", _state(found)),
            ("began", when(found.start_time)),
            ("took", took(found.duration_ns) if found.duration_ns else ""),
            ("asked", escape(found.request_preview)),
            ("answered", escape(found.response_preview)),
            ("tags", escape(", ".join(f"{key} = {found.tags[key]}" for key in sorted(found.tags)))),
            ("dropped spans", found.dropped_span_count),
        ],
    )
    console.print()
    for depth, span in in_order(spans):
        _print_span(depth, span, attributes=attributes)


@app.command()
def delete(
    traces: Annotated[list[str] | None, typer.Argument(help="Ids of traces.")] = None,
    experiment: Annotated[str, typer.Option(help="The experiment they belong to.")] = "Default",
    filter_text: Annotated[str, typer.Option("--filter", "-f", help="Instead of ids: which, oldest first.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Most traces to delete.")] = 1000,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Delete traces and their spans for good. The log tells which, and in whose name."""
    names = [_name(project, each) for each in traces or []]
    if bool(names) == bool(filter_text):
        raise typer.BadParameter("give ids of traces, or --filter")
    if not yes:
        what = f"{len(names)} traces" if names else f"at most {limit} traces with {filter_text}"
        typer.confirm(f"Delete {what} of {experiment} for good?", abort=True)
    total = service.DeleteTracesResponse()
    with connect() as client:
        for first in range(0, max(len(names), 1), 1000):
            request = service.DeleteTracesRequest(
                experiment=f"projects/{project}/experiments/{experiment}",
                traces=names[first : first + 1000],
                filter=filter_text,
            )
            while total.trace_count < limit:
                request.command_id, request.limit = str(uuid4()), min(limit - total.trace_count, 1000)
                try:
                    gone = client.tracking.DeleteTraces(request)
                except InvalidArgument as error:
                    point_at(error, {"filter": filter_text})
                    raise
                total.trace_count += gone.trace_count
                total.span_count += gone.span_count
                total.size_bytes += gone.size_bytes
                total.more = gone.more
                if not gone.more:
                    break
    sentence = f"Deleted {total.trace_count} traces with {total.span_count} spans, {total.size_bytes} bytes."
    print_done(f"{sentence} More match." if total.more else sentence, total, as_json=as_json)


def _spans(client: Client, trace: str) -> Iterator[Span]:
    request = service.ListSpansRequest(trace=trace, page_size=1000)
    while True:
        page = client.tracking.ListSpans(request)
        yield from page.spans
        request.page_token = page.next_page_token
        if not request.page_token:
            return


def _print_span(depth: int, span: Span, *, attributes: bool) -> None:
    length = took(span.end_time_ns - span.start_time_ns) if span.end_time_ns else "goes on"
    failed = span.status == SPAN_STATUS_ERROR
    indent = "  " * depth
    name = f"[red]{escape(span.name)}[/red]" if failed else escape(span.name)
    message = f"  [red]{escape(span.status_message.partition(chr(10))[0])}[/red]" if failed else ""
    console.print(f"{indent}{name}  [dim]{length}[/dim]{message}", soft_wrap=True)
    if attributes:
        for key in sorted(span.attributes):
            console.print(f"{indent}    [dim]{escape(key)}[/dim] {escape(span.attributes[key])}", soft_wrap=True)


def _state(trace: Trace) -> str:
    return words(TraceState.Name(trace.state), "TRACE_STATE_")


def _name(project: str, trace: str) -> str:
    found = _ID.fullmatch(trace)
    return f"projects/{project}/traces/{found[1]}" if found else trace
