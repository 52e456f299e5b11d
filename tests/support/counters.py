"""A small service of the tests' own: counters, whose events are numbers added."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid4

from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from headrace_kit.cloudevents import ReceivedEvent
from headrace_kit.context import CommandContext
from headrace_kit.eventstore import Aggregate, EventStore, Fence, LogEntry, Row
from headrace_kit.eventtypes import EventTypes

SOURCE = "headrace/counters"
TOPIC = "headrace.counters.events.v1"
TYPES = EventTypes(Int64Value)
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

TABLES = """
CREATE TABLE counters (
    name text PRIMARY KEY, total bigint NOT NULL, ratio float8, seen_at timestamptz, raw bytea, id uuid, facts jsonb,
    note text NOT NULL DEFAULT 'none', active boolean
);
CREATE TABLE points (
    name text NOT NULL, value bigint NOT NULL, arrived bigint GENERATED ALWAYS AS IDENTITY
);
"""


def evolve(state: Int64Value | None, event: Message) -> Int64Value:
    """Adds."""
    assert isinstance(event, Int64Value)
    return Int64Value(value=(state.value if state else 0) + event.value)


def rows(stream_id: str, state: Int64Value, _events: Sequence[Message]) -> Sequence[Row]:
    """One row a counter; a counter at zero has none."""
    return [Row("counters", {"name": stream_id}, {"total": state.value} if state.value else None)]


COUNTER = Aggregate("counter", Int64Value, evolve)
LISTED = Aggregate("counter", Int64Value, evolve, rows)


def stream(name: object) -> str:
    """A stream id."""
    return f"projects/p/counters/{name}"


def context(command_id: UUID | None = None, *, now: datetime = NOW, hlc: int = 0) -> CommandContext:
    """A command of the operator's."""
    return CommandContext(command_id or uuid4(), "persons/operator", now, hlc=hlc)


async def add(
    store: EventStore,
    name: object,
    *numbers: int,
    command_id: UUID | None = None,
    aggregate: Aggregate[Int64Value] = COUNTER,
    fence: Fence | None = None,
    hlc: int = 0,
    now: datetime = NOW,
) -> str:
    """Adds numbers to a counter, one event each; returns the total it was answered."""
    answer = await store.execute(
        aggregate,
        stream(name),
        context=context(command_id, now=now, hlc=hlc),
        request=StringValue(value=repr(numbers)),
        decide=lambda _: [Int64Value(value=each) for each in numbers],
        respond=lambda state: StringValue(value=str(state.value)),
        fence=fence,
    )
    return answer.value


async def whole_log(store: EventStore) -> list[LogEntry]:
    """All of a log."""
    return await store.read_log(1, 1_000_000)


def number(event: ReceivedEvent) -> int:
    """What an event adds."""
    return Int64Value.FromString(event.data).value
