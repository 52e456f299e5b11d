"""The relay on a real database: to a log in memory whose outages the test decides, and to Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from uuid import uuid4

import pytest
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from headrace_kit.cloudevents import from_headers
from headrace_kit.errors import Deposed, NotFound
from headrace_kit.eventstore import Aggregate, LogEntry, PostgresEventStore
from headrace_kit.eventtypes import EventTypes
from headrace_kit.lease import Fence, Leadership
from headrace_kit.log import (
    KafkaLog,
    KafkaSettings,
    LogRecord,
    LogUnavailable,
    MemoryLog,
    OutgoingRecord,
    TopicPartition,
    TopicSpec,
    events_topic,
)
from headrace_kit.logkeeper import LogKeeper
from headrace_kit.relay import Relay
from headrace_kit.sequencer import Sequencer
from headrace_local.testing import FreshDatabase, Infrastructure
from tests.support.counters import SOURCE, TOPIC, add, context, stream, whole_log
from tests.support.kit import counter_store, until


@pytest.fixture
async def store(database: FreshDatabase) -> AsyncIterator[PostgresEventStore]:
    async with counter_store(database) as opened:
        yield opened


class Places:
    """Large values in memory."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    async def put(self, project: str, data: bytes) -> str:
        self.held[f"{project}/{len(data)}"] = data
        return f"{project}/{len(data)}"

    async def get(self, reference: str) -> bytes:
        if reference not in self.held:
            raise NotFound("object", reference)
        return self.held[reference]


class LosesTheAnswer:
    """A producer whose broker stores everything and whose acknowledgements are lost."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    async def partitions(self, topic: str) -> int:
        return self._log.count(topic)

    async def append(self, topic: str, records: Mapping[int, Sequence[OutgoingRecord]]) -> Mapping[int, int]:
        producer = await self._log.open_producer()
        await producer.append(topic, records)
        raise LogUnavailable("no answer")

    async def close(self) -> None:
        """Nothing to let go of."""


async def sequenced(store: PostgresEventStore) -> Fence:
    fence = await Leadership(store.database, "log", ttl_s=0).take()
    assert fence is not None
    sequencer = Sequencer(store.database, SOURCE)
    while await sequencer.step(fence) or sequencer.tail_age_s:
        await asyncio.sleep(0)
    return fence


def memory() -> MemoryLog:
    log = MemoryLog()
    log.create(TOPIC, 3)
    return log


def positions(records: Sequence[LogRecord]) -> list[int]:
    return [from_headers(each.headers, each.value)[0].position for each in records]


async def test_publishes_every_event_once_with_its_whole_envelope(store: PostgresEventStore) -> None:
    await add(store, "a", 1, 2)
    await add(store, "b", 3)
    fence, log = await sequenced(store), memory()
    relay = Relay(store, log)

    moved = await relay.step(await log.open_producer(), fence)

    assert (moved, relay.position, relay.backlog) == (3, 3, 0)
    assert await relay.step(await log.open_producer(), fence) == 0
    entries = await whole_log(store)
    received = sorted(
        (from_headers(each.headers, each.value)[0] for each in log.records(TOPIC)), key=lambda e: e.position
    )
    assert [_but_message(each.received()) for each in entries] == [_but_message(each) for each in received]
    assert {each.key for each in log.records(TOPIC)} == {stream("a").encode(), stream("b").encode()}


async def test_dying_between_publish_and_mark_repeats_a_contiguous_suffix(store: PostgresEventStore) -> None:
    for number in range(6):
        await add(store, number % 2, number)
    fence, log = await sequenced(store), memory()
    relay = Relay(store, log)
    with pytest.raises(LogUnavailable):
        await relay.step(LosesTheAnswer(log), fence)
    assert relay.position == 0

    await relay.step(await log.open_producer(), fence)

    for lane in range(3):
        seen = positions([each for each in log.records(TOPIC) if each.partition == lane])
        once = sorted(set(seen))
        assert seen == once + once


async def test_what_does_not_fit_a_batch_waits_and_nothing_overtakes_it(store: PostgresEventStore) -> None:
    await add(store, "a", 1, 2, 3, 4, 5)
    fence, log = await sequenced(store), MemoryLog(batch_limit=2)
    log.create(TOPIC, 1)
    relay = Relay(store, log)
    producer = await log.open_producer()

    moves = [await relay.step(producer, fence) for _ in range(4)]

    assert moves == [2, 2, 1, 0]
    assert positions(log.records(TOPIC)) == [1, 2, 3, 4, 5]


async def test_a_deposed_relay_does_not_move_the_mark(store: PostgresEventStore) -> None:
    await add(store, "a", 1)
    old, log = await sequenced(store), memory()
    await Leadership(store.database, "log", ttl_s=0).take()

    with pytest.raises(Deposed):
        await Relay(store, log).step(await log.open_producer(), old)

    assert await store.database.fetchval("SELECT position FROM relay_state") == 0


async def test_a_large_event_travels_by_reference(database: FreshDatabase) -> None:
    text = Aggregate("text", StringValue, lambda _, event: _text(event))
    async with counter_store(database) as counters:
        store = PostgresEventStore(counters.database, SOURCE, EventTypes(StringValue))
        await store.execute(
            text,
            stream("large"),
            context=context(),
            request=Int64Value(),
            decide=lambda _: [StringValue(value="x" * 300_000)],
            respond=lambda _: Int64Value(),
        )
        fence, log, places = await sequenced(store), memory(), Places()

        await Relay(store, log, data_refs=places).step(await log.open_producer(), fence)

        (record,) = log.records(TOPIC)
        _, reference = from_headers(record.headers, record.value)
        assert record.value == b""
        assert StringValue.FromString(await places.get(reference)).value == "x" * 300_000


async def test_commands_go_on_while_the_broker_is_away_and_the_backlog_drains(store: PostgresEventStore) -> None:
    log = memory()
    log.available = False
    keeper = LogKeeper(store, log, ttl_s=1.0)
    keeping = asyncio.create_task(keeper.run())
    try:
        for number in range(20):
            await add(store, number % 3, 1)

        async def counted() -> bool:
            return keeper.relay.backlog == 20 and keeper.relay.failures > 0

        await until(counted)
        log.available = True

        async def drained() -> bool:
            return keeper.relay.position == 20

        await until(drained)
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
    assert sorted(positions(log.records(TOPIC))) == list(range(1, 21))


async def test_a_standby_takes_over_when_the_leader_stops(store: PostgresEventStore) -> None:
    log = memory()
    keepers = [LogKeeper(store, log, ttl_s=0.5) for _ in range(2)]
    tasks = [asyncio.create_task(each.run()) for each in keepers]
    try:

        async def one_leads() -> bool:
            return any(each.leadership.fence for each in keepers)

        await until(one_leads)
        leader = next(index for index, each in enumerate(keepers) if each.leadership.fence)
        await add(store, "a", 1)

        async def published(position: int) -> bool:
            return position in positions(log.records(TOPIC))

        await until(lambda: published(1))
        tasks[leader].cancel()
        await add(store, "a", 2)
        await until(lambda: published(2))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert sorted(set(positions(log.records(TOPIC)))) == [1, 2]
    assert keepers[leader].leadership.fence is None


async def test_the_log_reaches_kafka_in_order(database: FreshDatabase, infrastructure: Infrastructure) -> None:
    source = f"headrace/counters-{uuid4().hex[:8]}"
    topic = events_topic(source)
    kafka = KafkaLog(KafkaSettings(infrastructure.addresses.kafka_bootstrap))
    await kafka.ensure_topics([TopicSpec(topic, 3)])
    async with counter_store(database) as counters:
        store = PostgresEventStore(counters.database, source, counters.types)
        keeper = LogKeeper(store, kafka)
        keeping = asyncio.create_task(keeper.run())
        try:
            await asyncio.gather(*(add(store, number % 5, 1) for number in range(200)))

            async def published() -> bool:
                return keeper.relay.position == 200

            await until(published, within_s=30)
        finally:
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping
        entries = await whole_log(store)
    await _assert_published(kafka, topic, entries)


async def _assert_published(kafka: KafkaLog, topic: str, entries: list[LogEntry]) -> None:
    client = await kafka.open_consumer([topic], group=f"reader-{uuid4().hex[:8]}")
    found: dict[TopicPartition, list[LogRecord]] = {}

    async def everything() -> bool:
        for partition, records in (await client.poll(client.assignment, timeout_s=0.2, max_records=500)).items():
            found.setdefault(partition, []).extend(records)
        return sum(len(each) for each in found.values()) >= len(entries)

    try:
        await until(everything, within_s=20)
    finally:
        await client.close()
    for records in found.values():
        assert positions(records) == sorted(positions(records))
    assert sorted(position for each in found.values() for position in positions(each)) == list(
        range(1, len(entries) + 1)
    )


def _text(event: object) -> StringValue:
    assert isinstance(event, StringValue)
    return event


def _but_message(event: object) -> list[object]:
    return [getattr(event, name) for name in event.__slots__ if name != "message"]  # type: ignore[attr-defined]
