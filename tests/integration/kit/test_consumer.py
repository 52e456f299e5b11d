"""Consumers on a real database and a log in memory, whose groups, retention and outages the tests decide."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from headrace_kit.cloudevents import ReceivedEvent, to_headers
from headrace_kit.consumer import (
    Consumer,
    Handler,
    LogReader,
    ProjectionConsumer,
    ProjectionHandler,
    StoreLogReader,
    list_parked,
)
from headrace_kit.errors import FailedPrecondition, Unavailable
from headrace_kit.eventstore import MemoryEventStore
from headrace_kit.log import QUARANTINE, MemoryLog, OutgoingRecord, TopicPartition, partition_of
from headrace_kit.log.memory import MemoryConsumer
from headrace_kit.postgres import Connection, Database
from headrace_kit.tracing import traceparent
from headrace_local.testing import FreshDatabase
from tests.support.counters import COUNTER, SOURCE, TOPIC, TYPES, add, context, number, stream, whole_log
from tests.support.kit import pooled, prepare, until

PARTITIONS = 3


class World:
    """An owner of counters, its topic, and a consumer's database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.store = MemoryEventStore(SOURCE, TYPES)
        self.log = MemoryLog()
        self.log.create(TOPIC, PARTITIONS)
        self.log.create(QUARANTINE, 1)
        self.published = 0
        self.handled: list[tuple[str, int]] = []

    async def publish(self, *, again: int = 0, leave_out: Callable[[ReceivedEvent], bool] | None = None) -> None:
        """What the relay does; ``again`` events before its mark come once more."""
        producer = await self.log.open_producer()
        for entry in (await whole_log(self.store))[max(self.published - again, 0) :]:
            event = entry.received()
            if leave_out is None or not leave_out(event):
                lane = partition_of(event.subject.encode(), PARTITIONS)
                record = OutgoingRecord(event.subject.encode(), event.data, tuple(to_headers(event)))
                await producer.append(TOPIC, {lane: [record]})
        self.published = await self.store.head()

    async def note(self, event: ReceivedEvent) -> None:
        """A handler that remembers."""
        self.handled.append((event.subject, number(event)))

    def consumer(
        self,
        handler: Handler | None = None,
        *,
        read_owner: bool = True,
        stall_s: float = 15.0,
        handlers: Mapping[type[Message], Handler] | None = None,
    ) -> Consumer:
        readers: dict[str, LogReader] = {SOURCE: StoreLogReader(self.store)} if read_owner else {}
        chosen: Mapping[type[Message], Handler] = {Int64Value: handler or self.note} if handlers is None else handlers
        return Consumer("test", [TOPIC], chosen, self.database, self.log, readers=readers, stall_s=stall_s)

    def of(self, name: object) -> list[int]:
        return [value for subject, value in self.handled if subject == stream(name)]

    async def saw(self, count: int) -> None:
        async def enough() -> bool:
            return len(self.handled) >= count

        await until(enough)


@pytest.fixture
async def world(database: FreshDatabase) -> AsyncIterator[World]:
    await prepare(database)
    async with pooled(database) as pool:
        yield World(pool)


@asynccontextmanager
async def running(*consumers: Consumer | ProjectionConsumer) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(each.run()) for each in consumers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


async def offsets_reach_the_end(world: World) -> bool:
    moved = await world.database.fetchval("SELECT coalesce(sum(next_offset), 0) FROM consumer_offsets")
    return int(moved) == len(world.log.records(TOPIC))


async def test_hands_over_each_stream_in_order(world: World) -> None:
    for value in range(1, 21):
        await add(world.store, value % 4, value)
    await world.publish()

    async with running(world.consumer()):
        await world.saw(20)

    assert sorted(world.handled) == sorted((stream(value % 4), value) for value in range(1, 21))
    assert world.of(1) == [1, 5, 9, 13, 17]


async def test_a_trace_runs_through_the_headers_into_the_handler(world: World) -> None:
    written = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    seen: list[str] = []

    async def look(event: ReceivedEvent) -> None:
        seen.append(traceparent())
        await world.note(event)

    await world.store.execute(
        COUNTER,
        stream("a"),
        context=replace(context(), traceparent=written),
        request=StringValue(value="traced"),
        decide=lambda _: [Int64Value(value=1)],
        respond=lambda _: StringValue(),
    )
    await world.publish()

    async with running(world.consumer(look)):
        await world.saw(1)

    assert [each.split("-")[1] for each in seen] == [written.split("-")[1]]


async def test_resumes_where_it_left(world: World) -> None:
    await add(world.store, "a", 1)
    await world.publish()
    async with running(world.consumer()):
        await world.saw(1)
        await until(lambda: offsets_reach_the_end(world))
    await add(world.store, "a", 2)
    await world.publish()

    async with running(world.consumer()):
        await world.saw(2)

    assert world.of("a") == [1, 2]


async def test_drops_what_a_relay_published_again(world: World) -> None:
    await add(world.store, "a", 1, 2, 3)
    await world.publish()

    consumer = world.consumer()
    async with running(consumer):
        await world.saw(3)
        await world.publish(again=2)
        await add(world.store, "a", 4)
        await world.publish(again=1)
        await until(lambda: offsets_reach_the_end(world))

    assert world.of("a") == [1, 2, 3, 4]
    assert consumer.counters.repeats >= 3


async def test_a_new_consumer_reads_what_kafka_no_longer_keeps(world: World) -> None:
    await add(world.store, "a", 1, 2, 3)
    await world.publish()
    for lane in range(PARTITIONS):
        world.log.expire(TopicPartition(TOPIC, lane), 1_000)
    await add(world.store, "a", 4)

    async with running(world.consumer()):
        await world.saw(4)
        await world.publish()
        await add(world.store, "a", 5)
        await world.publish()
        await world.saw(5)

    assert world.of("a") == [1, 2, 3, 4, 5]


async def test_a_late_consumer_reads_what_expired_while_it_was_away(world: World) -> None:
    await add(world.store, "a", 1)
    await world.publish()
    async with running(world.consumer()):
        await until(lambda: offsets_reach_the_end(world))
    await add(world.store, "a", 2, 3)
    await world.publish()
    lane = TopicPartition(TOPIC, partition_of(stream("a").encode(), PARTITIONS))
    world.log.expire(lane, 3)
    await add(world.store, "a", 4)
    await world.publish()

    async with running(world.consumer()):
        await world.saw(4)

    assert world.of("a") == [1, 2, 3, 4]


async def test_fills_a_hole_from_the_owners_log(world: World) -> None:
    await add(world.store, "a", 1, 2, 3)
    await world.publish(leave_out=lambda event: event.sequence == 2)
    lane = TopicPartition(TOPIC, partition_of(stream("a").encode(), PARTITIONS))
    await world.database.execute("INSERT INTO consumer_offsets VALUES ('test', $1, $2, 0, 1)", *lane)

    consumer = world.consumer()
    async with running(consumer):
        await world.saw(3)

    assert world.of("a") == [1, 2, 3]
    assert consumer.counters.filled == 1


async def test_parks_a_stream_with_a_hole_nobody_can_fill(world: World) -> None:
    await add(world.store, "a", 1, 2, 3)
    await world.publish(leave_out=lambda event: event.sequence == 2)

    async with running(world.consumer(read_owner=False)):
        await until(lambda: offsets_reach_the_end(world))

    assert world.of("a") == [1]
    assert [each.cause[:12] for each in await list_parked(world.database, 10)] == ["VERSION_HOLE"]


async def test_poison_parks_its_stream_and_the_others_go_on(world: World) -> None:
    async def picky(event: ReceivedEvent) -> None:
        if number(event) == 13:
            raise FailedPrecondition("no thirteens")
        await world.note(event)

    await add(world.store, "bad", 1, 13, 14)
    await add(world.store, "good", 1, 2, 3)
    await world.publish()

    async with running(world.consumer(picky)):
        await until(lambda: offsets_reach_the_end(world))

    assert (world.of("bad"), world.of("good")) == ([1], [1, 2, 3])
    parked = await list_parked(world.database, 10)
    assert [(number(each.event), each.cause) for each in parked] == [
        (13, "FAILED_PRECONDITION: no thirteens"),
        (14, ""),
    ]
    (notice,) = world.log.records(QUARANTINE)
    assert dict(notice.headers)["headrace-cause"] == b"FAILED_PRECONDITION: no thirteens"


async def test_redrive_replays_in_order_and_lets_the_stream_flow(world: World) -> None:
    broken = True

    async def fails_at_first(event: ReceivedEvent) -> None:
        if broken:
            raise FailedPrecondition("not yet")
        await world.note(event)

    await add(world.store, "a", 1, 2)
    await world.publish()
    consumer = world.consumer(fails_at_first)
    async with running(consumer):
        await until(lambda: offsets_reach_the_end(world))
        with pytest.raises(FailedPrecondition):
            await consumer.redrive(stream("a"))
        assert [each.attempts for each in await list_parked(world.database, 10)] == [2, 0]
        broken = False
        redriven = await consumer.redrive(stream("a"))
        await add(world.store, "a", 3)
        await world.publish()
        await world.saw(3)

    assert (redriven.handled, redriven.still_parked) == (2, 0)
    assert world.of("a") == [1, 2, 3]
    assert await list_parked(world.database, 10) == []


async def test_an_outage_holds_the_event_until_it_goes_through(world: World) -> None:
    failures = 3

    async def comes_back(event: ReceivedEvent) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise Unavailable("the registry is away")
        await world.note(event)

    await add(world.store, "a", 1, 2)
    await world.publish()

    async with running(world.consumer(comes_back)):
        await world.saw(2)

    assert world.of("a") == [1, 2]
    assert await list_parked(world.database, 10) == []


async def test_a_bug_is_tried_three_times_then_parked(world: World) -> None:
    tries = 0

    async def stumbles(_event: ReceivedEvent) -> None:
        nonlocal tries
        tries += 1
        raise KeyError("surprise")

    await add(world.store, "a", 1)
    await world.publish()

    async with running(world.consumer(stumbles)):
        await until(lambda: offsets_reach_the_end(world))

    assert tries == 3
    assert [(each.attempts, each.cause) for each in await list_parked(world.database, 9)] == [
        (3, "KeyError: 'surprise'")
    ]


async def test_records_that_are_no_events_go_to_quarantine(world: World) -> None:
    producer = await world.log.open_producer()
    await producer.append(TOPIC, {0: [OutgoingRecord(b"k", b"junk", (("ce_id", b"no uuid"),))]})
    await add(world.store, "a", 1)
    await world.publish()

    consumer = world.consumer(read_owner=False)
    async with running(consumer):
        await until(lambda: offsets_reach_the_end(world))

    assert world.of("a") == [1]
    assert consumer.counters.malformed == 1
    assert [each.value for each in world.log.records(QUARANTINE)] == [b"junk"]


async def test_types_without_a_handler_still_count_as_versions(world: World) -> None:
    await add(world.store, "a", 1, 2)
    await world.publish()
    async with running(world.consumer(handlers={})):
        await until(lambda: offsets_reach_the_end(world))
    await add(world.store, "a", 3)
    await world.publish()

    async with running(world.consumer(read_owner=False)):
        await world.saw(1)

    assert world.of("a") == [3]


async def test_a_member_that_slept_through_a_rebalance_gives_the_partition_up(world: World) -> None:
    asleep, wake = asyncio.Event(), asyncio.Event()

    async def sleeps(event: ReceivedEvent, connection: Connection) -> None:
        asleep.set()
        await wake.wait()
        await connection.execute("INSERT INTO points (name, value) VALUES ($1, $2)", event.subject, number(event))

    async def writes(event: ReceivedEvent, connection: Connection) -> None:
        await connection.execute("INSERT INTO points (name, value) VALUES ($1, $2)", event.subject, number(event))

    def projection(handler: ProjectionHandler) -> ProjectionConsumer:
        readers: dict[str, LogReader] = {SOURCE: StoreLogReader(world.store)}
        return ProjectionConsumer("test", [TOPIC], {Int64Value: handler}, world.database, world.log, readers=readers)

    await add(world.store, "a", 1)
    await world.publish()
    sleeper = asyncio.create_task(projection(sleeps).run())
    await asyncio.wait_for(asleep.wait(), 10)
    world.log.forget("test")
    async with running(projection(writes)):
        await until(lambda: offsets_reach_the_end(world))
        wake.set()
        await add(world.store, "a", 2)
        await world.publish()
        await until(lambda: offsets_reach_the_end(world))
    sleeper.cancel()
    with suppress(asyncio.CancelledError):
        await sleeper

    rows = await world.database.fetch("SELECT value FROM points ORDER BY value")
    assert [row["value"] for row in rows] == [1, 2]


async def test_a_projection_commits_with_its_offset_or_not_at_all(world: World) -> None:
    async def writes_then_fails(event: ReceivedEvent, connection: Connection) -> None:
        await connection.execute("INSERT INTO points (name, value) VALUES ($1, $2)", event.subject, number(event))
        if number(event) == 2:
            raise FailedPrecondition("after the write")

    consumer = ProjectionConsumer("test", [TOPIC], {Int64Value: writes_then_fails}, world.database, world.log)
    await add(world.store, "a", 1, 2, 3)
    await add(world.store, "b", 7)
    await world.publish()

    async with running(consumer):
        await until(lambda: offsets_reach_the_end(world))

    rows = await world.database.fetch("SELECT value FROM points ORDER BY value")
    assert [row["value"] for row in rows] == [1, 7]
    assert [number(each.event) for each in await list_parked(world.database, 9)] == [2, 3]


async def members_are(world: World, count: int) -> bool:
    return len(world.log.members("test")) == count


async def test_survives_an_outage_of_the_log(world: World) -> None:
    await add(world.store, "a", 1)
    await world.publish()
    async with running(world.consumer()):
        await world.saw(1)
        world.log.available = False
        await until(lambda: members_are(world, 0))
        world.log.available = True
        await add(world.store, "a", 2)
        await world.publish()
        await world.saw(2)

    assert world.of("a") == [1, 2]


async def test_a_client_that_stalls_is_made_anew(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = 0
    open_consumer = world.log.open_consumer

    async def first_is_deaf(topics: list[str], *, group: str) -> MemoryConsumer:
        nonlocal opened
        opened += 1
        client = await open_consumer(topics, group=group)
        if opened == 1:

            async def nothing(*_: object, timeout_s: float, **__: object) -> dict[object, object]:
                await asyncio.sleep(min(timeout_s, 0.05))
                return {}

            monkeypatch.setattr(client, "poll", nothing)
        return client

    monkeypatch.setattr(world.log, "open_consumer", first_is_deaf)
    consumer = world.consumer(read_owner=False, stall_s=0.4)
    await add(world.store, "a", 1)
    await world.publish()

    async with running(consumer):
        await world.saw(1)

    assert consumer.counters.recreated == 1
