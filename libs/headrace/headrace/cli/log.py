"""``headrace log``: what happened, in order, and why."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from google.protobuf.json_format import MessageToDict
from rich.text import Text

from headrace import story
from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.cli import log_erase, log_export, log_replay, past
from headrace.cli.output import Json, Project, console, print_fields, print_json, short, when
from headrace.client import connect
from headrace.people import display_names

app = typer.Typer(help="The event log of the whole platform.", no_args_is_help=True)
app.command()(log_export.export)
app.command()(log_replay.replay)
app.command()(log_erase.erase)
for _command in (past.who, past.at, past.diff, past.gaps, past.lag, past.parked, past.redrive):
    app.command()(_command)
_FOLLOW_POLL_S = 0.5
_COLOURS = {
    "tracking": "cyan",
    "registry": "magenta",
    "orchestrator": "blue",
    "serving": "green",
    "monitor": "yellow",
}


@app.command()
def tail(
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="Events to begin with.")] = 20,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as events come.")] = False,
    stream: Annotated[str, typer.Option(help="Only streams that start so, such as models/delays.")] = "",
    event_type: Annotated[list[str] | None, typer.Option("--type", help="Only this type; may be repeated.")] = None,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Print the last events of all services, merged so that no effect precedes its cause."""
    prefix = f"projects/{project}/{stream}"
    seen: set[str] = set()
    first = True
    with connect() as client:
        while True:
            entries = story.read_logs(client, prefix=prefix, types=event_type or ())
            new = [entry for entry in entries if entry.event_id not in seen]
            for entry in new[max(len(new) - lines, 0) :] if first else new:
                _print(entry, as_json=as_json)
            seen.update(entry.event_id for entry in new)
            first = False
            if not follow:
                return
            time.sleep(_FOLLOW_POLL_S)


@app.command()
def show(event_id: Annotated[str, typer.Argument(help="Id of the event.")], as_json: Json = False) -> None:
    """Print one event whole."""
    with connect() as client:
        entry = story.find_event(client, event_id)
        names = display_names(client, () if as_json else (entry.meta.actor, entry.meta.on_behalf_of))
    if as_json:
        print_json(_as_dict(entry))
        return
    print_fields(
        entry.type,
        [
            ("event", entry.event_id),
            ("stream", f"{entry.stream_id} (version {entry.version})"),
            ("log", f"{entry.source}, position {entry.position}"),
            ("happened", when(entry.occurred_at)),
            ("recorded", when(entry.recorded_at)),
            ("by", names.get(entry.meta.actor)),
            ("on behalf of", names.get(entry.meta.on_behalf_of)),
            ("caused by", entry.meta.causation_id),
            ("chain", entry.meta.correlation_id),
            ("leaf", entry.leaf.hex()),
        ],
    )
    print_json(story.decode(entry) or {})


@app.command()
def chain(event_id: Annotated[str, typer.Argument(help="Any event of the chain.")], as_json: Json = False) -> None:
    """Print the causal story of an event: what led to it, and what it led to."""
    with connect() as client:
        links = story.chain(story.read_logs(client), event_id)
    if as_json:
        print_json([{**_as_dict(link.entry), "depth": link.depth} for link in links])
        return
    for link in links:
        _print(link.entry, depth=link.depth, marked=link.entry.event_id == event_id)


def line_of(entry: LogEntry, *, depth: int = 0) -> Text:
    """One line about an event, for terminals."""
    service = short(entry.source)
    _, _, name = entry.type.rpartition(".")
    line = Text(f"{entry.occurred_at.ToDatetime():%H:%M:%S.%f}"[:-3] + "  ", style="dim")
    line.append(f"{service:<13}", style=_COLOURS.get(service, ""))
    line.append("  " * depth + ("└ " if depth else "") + name, style="bold")
    line.append(f"  {entry.stream_id.partition('/')[2].partition('/')[2]}")
    line.append(f"  {entry.meta.actor}", style="dim")
    line.append(f"  {entry.event_id}", style="dim")
    return line


def _print(entry: LogEntry, *, depth: int = 0, marked: bool = False, as_json: bool = False) -> None:
    if as_json:
        print_json(_as_dict(entry))
        return
    line = line_of(entry, depth=depth)
    if marked:
        line.stylize("reverse")
    console.print(line, soft_wrap=True)


def _as_dict(entry: LogEntry) -> dict[str, object]:
    message = story.decode(entry)
    plain: dict[str, object] = MessageToDict(entry, preserving_proto_field_name=True)
    if message is not None:
        plain["data"] = MessageToDict(message, preserving_proto_field_name=True)
    plain["leaf"] = entry.leaf.hex()
    return plain
