"""``headrace log tail``: the last events, and those that come."""

from __future__ import annotations

import heapq
from typing import Annotated

import grpc
import typer

from headrace import story
from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.causes import AWAY
from headrace.cli.entries import note, print_entry
from headrace.cli.output import Json, Project
from headrace.client import Client, connect
from headrace.connection import SERVICES
from headrace.events.cursor import MemoryCursor
from headrace.events.event import EventFilter
from headrace.events.start import Start
from headrace.events.subscription import Subscription, SubscriptionConfig


def tail(
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="Events to begin with.")] = 20,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as events come.")] = False,
    stream: Annotated[str, typer.Option(help="Only streams that start so, such as models/delays.")] = "",
    event_type: Annotated[list[str] | None, typer.Option("--type", help="Only this type; may be repeated.")] = None,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Print the last events of all services, merged so that no effect precedes its cause.

    With --follow it goes on for ever; a service that goes away is waited for, and its events come late.
    """
    wanted = EventFilter.of(event_type or (), project=project, stream=stream)
    with connect() as client:
        names = [name for name in SERVICES if client.connection.addresses.get(name)]
        entries, heads = last_events(client, names, lines, wanted)
        for entry in entries:
            print_entry(entry, as_json=as_json)
        for name in names:
            if name not in heads:
                note(f"{name} does not answer: its events are left out" + (" until it does" if follow else ""))
        if follow:
            _follow(client, names, heads, wanted, as_json=as_json)


def last_events(
    client: Client, names: list[str], count: int, wanted: EventFilter
) -> tuple[list[LogEntry], dict[str, int]]:
    """The last events of some services together, and where each log ended; those that do not answer are left out."""
    logs: list[list[LogEntry]] = []
    heads: dict[str, int] = {}
    for name in names:
        try:
            entries, heads[name] = story.newest(client, name, count, prefix=wanted.stream_prefix, types=wanted.types)
        except grpc.RpcError as error:
            if error.code() not in AWAY:
                raise
            continue
        logs.append(entries)
    merged = list(heapq.merge(*logs, key=story.order_of))
    return merged[max(len(merged) - count, 0) :], heads


def _follow(client: Client, names: list[str], heads: dict[str, int], wanted: EventFilter, *, as_json: bool) -> None:
    start = Start(positions={name: head + 1 for name, head in heads.items()}, now=True)
    with Subscription(
        client.connection,
        services=names,
        wanted=wanted,
        start=start,
        cursor=MemoryCursor(),
        config=SubscriptionConfig(),
    ) as events:
        for delivery in events:
            with delivery as event:
                print_entry(event.entry, as_json=as_json)
