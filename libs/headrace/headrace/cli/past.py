"""Commands of ``headrace log`` about the past of entities and the health of the logs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Annotated
from uuid import uuid4

import typer
from google.protobuf.json_format import MessageToDict

from headrace.api.audit.v1 import service_pb2 as service
from headrace.api.audit.v1.service_pb2_grpc import AuditServiceStub
from headrace.cli.entries import as_dict
from headrace.cli.output import Json, Project, console, fields_of, print_fields, print_json, print_table, short, when
from headrace.client import connect
from headrace.connection import SERVICES
from headrace.errors import InvalidArgument
from headrace.past import changes_between, events_of, holes, reason_of, state_at
from headrace.people import display_names

Entity = Annotated[str, typer.Argument(help="Resource name, such as projects/default/models/m, or that with @ALIAS.")]


def who(entity: Entity, as_json: Json = False) -> None:
    """Print every event of an entity, or of a model's alias: when, by whom, on whose behalf, how, and why."""
    with connect() as client:
        entries = events_of(client, entity)
        principals = [each for entry in entries for each in (entry.meta.actor, entry.meta.on_behalf_of)]
        names = display_names(client, () if as_json else principals)
    if as_json:
        print_json([{**as_dict(each), "reason": reason_of(each)} for each in entries])
        return
    rows = [
        (
            when(each.occurred_at),
            each.type.rpartition(".")[2],
            names.get(each.meta.actor, ""),
            names.get(each.meta.on_behalf_of, ""),
            each.meta.method.rpartition("/")[2] or each.meta.command_id,
            reason_of(each),
            trace_id(each.meta.traceparent),
            each.event_id,
        )
        for each in entries
    ]
    columns = ["time", "event", "by", "on behalf of", "command", "reason", "trace", "id"]
    print_table(entity, columns, rows, empty="No events.")


def at(
    entity: Entity,
    time: Annotated[str, typer.Option("--time", help="RFC 3339, such as 2026-05-03T14:03:00Z.")] = "",
    position: Annotated[int, typer.Option("--position", min=0, help="Position in the log of its service.")] = 0,
    as_json: Json = False,
) -> None:
    """Print the state of an entity at a time or a position; now, without either."""
    if time and position:
        raise InvalidArgument("give --time or --position, not both")
    with connect() as client:
        found = state_at(client, entity, position=position or None, time=moment(time, "--time") if time else None)
    if as_json:
        print_json(found)
        return
    entry = found.entry
    made = f"{entry.type} at position {entry.position}, {when(entry.sequenced_at)}"
    print_fields(entity, [("made so by", made), ("event", entry.event_id), ("by", entry.meta.actor)])
    print_json(MessageToDict(found.state, preserving_proto_field_name=True))


def diff(
    first: Annotated[str, typer.Argument(metavar="T1", help="From, RFC 3339.")],
    second: Annotated[str, typer.Argument(metavar="T2", help="To, RFC 3339.")],
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Print what changed between two times, field by field, each with its event and who wrote it."""
    start, end = moment(first, "T1"), moment(second, "T2")
    if end < start:
        raise InvalidArgument("T2 lies before T1")
    with connect() as client:
        changes = changes_between(client, start, end, prefix=f"projects/{project}/")
    if as_json:
        print_json([each.as_dict() for each in changes])
        return
    rows = [
        (each.entity, each.field, each.before, each.after, each.entry.meta.actor, each.entry.event_id)
        for each in changes
    ]
    print_table("changes", ["entity", "field", "before", "after", "by", "event"], rows, empty="Nothing changed.")


def lag(as_json: Json = False) -> None:
    """Print how far each log came, what of it is not yet in Kafka, and how far behind each consumer is."""
    with connect() as client:
        names = [name for name in SERVICES if name in client.connection.addresses]
        found = [client.log(name).GetLogStatus(service.GetLogStatusRequest()) for name in names]
        consumers = [list(client.log(name).ListConsumers(service.ListConsumersRequest()).consumers) for name in names]
    if as_json:
        logs = zip(found, consumers, strict=True)
        print_json([{**fields_of(log), "consumers": [consumer_dict(each) for each in own]} for log, own in logs])
        return
    rows = [
        (
            short(each.source),
            each.last_position,
            each.last_position - each.relayed_position,
            f"{each.unsequenced_age_s:.3f}",
        )
        for each in found
    ]
    columns = ["service", "position", "not yet in Kafka", "unsequenced for (s)"]
    print_table("logs", columns, rows, empty="No service runs.")
    console.print()
    behind = [row for own in consumers for each in own for row in consumer_rows(each)]
    columns = ["consumer", "topic", "behind", "to position", "parked events"]
    print_table("consumers", columns, behind, empty="No service consumes anything.")


def gaps(as_json: Json = False) -> None:
    """Look through every log for positions that are missing, and for events that wait for one."""
    found: list[dict[str, object]] = []
    with connect() as client:
        for name in SERVICES:
            if name in client.connection.addresses:
                status = client.log(name).GetLogStatus(service.GetLogStatusRequest())
                found.append(
                    {"service": name, "holes": holes(client, name), "unsequenced_age_s": status.unsequenced_age_s}
                )
    if as_json:
        print_json(found)
        return
    columns = ["service", "holes", "unsequenced_age_s"]
    print_table("gaps", columns, [[each[key] for key in columns] for each in found], empty="No service runs.")


def consumer_rows(status: service.ConsumerStatus) -> list[tuple[str, str, str, str, int]]:
    """A row for each topic of a consumer: its name, the topic, records behind, last position taken, events parked."""
    parked_events = status.parked_events
    topics: dict[str, list[service.PartitionStatus]] = {}
    for each in status.partitions:
        topics.setdefault(each.topic, []).append(each)
    rows = [
        (
            status.consumer,
            topic,
            "?" if (behind := records_behind(partitions)) is None else str(behind),
            str(max(each.position for each in partitions)) if partitions[0].source else "",
            parked_events,
        )
        for topic, partitions in topics.items()
    ]
    return rows or [(status.consumer, "", "not begun", "", parked_events)]


def records_behind(partitions: Iterable[service.PartitionStatus]) -> int | None:
    """Records not yet taken from begun partitions; None when it is not known of one of them."""
    begun = [each for each in partitions if each.HasField("next_offset")]
    if any(not each.HasField("end_offset") for each in begun):
        return None
    return sum(max(each.end_offset - each.next_offset, 0) for each in begun)


def consumer_dict(status: service.ConsumerStatus) -> dict[str, object]:
    """A consumer for JSON, with the records it is behind (null when that is not known)."""
    return {**fields_of(status), "behind": records_behind(status.partitions)}


def trace_id(traceparent: str) -> str:
    """The trace id of a W3C trace context; empty when there is none."""
    parts = traceparent.split("-")
    return parts[1] if len(parts) == 4 else ""


def parked(as_json: Json = False) -> None:
    """Print the events that consumers set aside, and why."""
    with connect() as client:
        names = [name for name in SERVICES if name in client.connection.addresses]
        found = [each for name in names for each in _parked_in(client.log(name))]
    if as_json:
        print_json(found)
        return
    rows = [(each.consumer, each.stream_id, each.entry.event_id, each.attempts, each.cause) for each in found]
    print_table("parked", ["consumer", "stream", "event", "attempts", "cause"], rows, empty="Nothing is parked.")


def _parked_in(log: AuditServiceStub) -> Iterator[service.ParkedEvent]:
    token = ""
    while True:
        page = log.ListParked(service.ListParkedRequest(page_size=1000, page_token=token))
        yield from page.parked
        token = page.next_page_token
        if not token:
            return


def redrive(
    consumer: Annotated[str, typer.Argument(help="Such as registry.rollback.")],
    stream: Annotated[str, typer.Argument(help="The parked stream.")],
    as_json: Json = False,
) -> None:
    """Hand a parked stream to its consumer again, in order."""
    request = service.RedriveParkedRequest(command_id=str(uuid4()), consumer=consumer, stream_id=stream)
    with connect() as client:
        done = client.log(owner_of_consumer(consumer)).RedriveParked(request)
    if as_json:
        print_json(done)
        return
    console.print(f"{done.handled} handled, {done.still_parked} still parked")


def owner_of_consumer(consumer: str) -> str:
    """The service of a consumer, whose name begins with it. Raises InvalidArgument."""
    name = consumer.partition(".")[0]
    if name not in SERVICES:
        raise InvalidArgument(f"CONSUMER begins with a service, such as registry.rollback; not {consumer!r}")
    return name


def moment(text: str, argument: str) -> datetime:
    """A time as given; without an offset it is UTC. Raises InvalidArgument naming the argument."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidArgument(f"{argument}: give a time such as 2026-05-03T14:03:00Z, not {text!r}") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


__all__ = ["at", "diff", "gaps", "lag", "moment", "parked", "redrive", "who"]
