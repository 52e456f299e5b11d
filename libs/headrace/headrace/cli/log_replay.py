"""``headrace log replay``: a part of the log, played again for a sandbox."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from headrace.cli.log_export import progress_bar
from headrace.cli.output import Json, console, print_json
from headrace.client import Client
from headrace.connection import SERVICES, find
from headrace.errors import FailedPrecondition, InvalidArgument, NotConnected, rpc_errors
from headrace.events.event import EventFilter, chosen_services


def replay(
    to: Annotated[str, typer.Option("--to", help="Topic of your own; it must exist.")],
    sandbox: Annotated[bool, typer.Option("--sandbox", help="Say that whoever reads the topic is a sandbox.")] = False,
    rate: Annotated[float, typer.Option(min=0.0, help="Copies a second at most; 0 for as many as go.")] = 0.0,
    start: Annotated[str, typer.Option("--from", help="First event: a time, or a position of one service.")] = "",
    until: Annotated[str, typer.Option("--until", help="First event no longer taken: likewise.")] = "",
    service: Annotated[list[str] | None, typer.Option(help="Only this service; may be repeated.")] = None,
    event_type: Annotated[list[str] | None, typer.Option("--type", help="Only this type; may be repeated.")] = None,
    project: Annotated[str, typer.Option(help="Only this project.")] = "",
    stream: Annotated[str, typer.Option(help="Only streams that start so, such as models/delays.")] = "",
    bootstrap: Annotated[str, typer.Option(help="Another Kafka than the platform's.")] = "",
    as_json: Json = False,
) -> None:
    """Publish copies of a part of the log to a topic of yours; each names its original in ce_replayof."""
    try:
        from headrace.kafka.copies import CopyPublisher, require_sandbox
        from headrace.kafka.replay import replay as play
    except ImportError as error:
        message = "replay needs aiokafka: install headrace[kafka]"
        raise FailedPrecondition(message, reason="AIOKAFKA_MISSING") from error
    from headrace.export import parse_bound, resolve

    require_sandbox(to)
    if not sandbox:
        raise InvalidArgument("say --sandbox: whoever reads the topic would act on what is long past", field="sandbox")
    wanted = EventFilter.of(event_type or (), project=project, stream=stream)
    first, after = parse_bound(start, name="from"), parse_bound(until, name="until")
    connection = find()
    where = bootstrap or connection.kafka_bootstrap
    if not where:
        raise NotConnected("nothing is known of Kafka: give --bootstrap", reason="KAFKA_UNKNOWN")
    known = tuple(name for name in SERVICES if connection.addresses.get(name))
    services = chosen_services(service or None, SERVICES if service else known)

    async def work(client: Client) -> int:
        ranges = resolve(client, services, start=first, end=after, end_name="until")
        async with CopyPublisher(where, to) as publisher:
            with progress_bar() as bar:
                task = bar.add_task("events", total=sum(each.count for each in ranges))
                return await play(
                    client,
                    ranges,
                    publisher,
                    topic=to,
                    wanted=wanted,
                    rate=rate,
                    advance=lambda count: bar.advance(task, count),
                )

    with Client(connection) as client, rpc_errors():
        published = asyncio.run(work(client))
    if as_json:
        print_json({"topic": to, "published": published})
        return
    console.print(f"{published} copies in {to}", soft_wrap=True)
