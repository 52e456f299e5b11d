"""``headrace log``: what happened, in order, and why."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace import causes, story
from headrace.cli import log_erase, log_export, log_rebuild, log_replay, log_tail, log_verify, past
from headrace.cli.entries import as_dict, note, print_entry
from headrace.cli.output import Json, print_fields, print_json, when
from headrace.client import connect
from headrace.people import display_names

app = typer.Typer(help="The event log of the whole platform.", no_args_is_help=True)
app.command()(log_tail.tail)
app.command()(log_export.export)
app.command()(log_replay.replay)
app.command()(log_rebuild.rebuild)
app.command()(log_erase.erase)
app.command()(log_verify.verify)
app.command()(log_verify.prove)
for _command in (past.who, past.at, past.diff, past.gaps, past.lag, past.parked, past.redrive):
    app.command()(_command)


@app.command()
def show(event_id: Annotated[str, typer.Argument(help="Id of the event.")], as_json: Json = False) -> None:
    """Print one event whole."""
    with connect() as client:
        entry = story.find_event(client, event_id)
        names = display_names(client, () if as_json else (entry.meta.actor, entry.meta.on_behalf_of))
    if as_json:
        print_json(as_dict(entry))
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
            ("given by", entry.meta.method),
            ("caused by", entry.meta.causation_id),
            ("chain", entry.meta.correlation_id),
            ("trace", entry.meta.traceparent),
            ("leaf", entry.leaf.hex()),
        ],
    )
    print_json(story.decode(entry) or {})


@app.command()
def chain(
    event_id: Annotated[str, typer.Argument(help="Any event of the chain.")],
    most: Annotated[int, typer.Option(min=1, help="Events told; those farthest from EVENT_ID are left out.")] = (
        causes.MOST
    ),
    as_json: Json = False,
) -> None:
    """Print the causal story of an event: what led to it, and what it led to."""
    with connect() as client:
        told = causes.tell(client, event_id, most=most)
    if as_json:
        print_json([{**as_dict(link.entry), "depth": link.depth} for link in told.links])
    else:
        for link in told.links:
            print_entry(link.entry, depth=link.depth, marked=link.entry.event_id == event_id)
    if told.more:
        note(f"there is more than {most} events: say --most")
    for sentence in causes.lacks(told.lacking):
        note(sentence)
