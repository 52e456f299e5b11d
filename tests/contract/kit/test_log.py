"""What every log does: Kafka, and its twin in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest

from headrace_kit.log import (
    KafkaLog,
    KafkaSettings,
    Log,
    LogConsumer,
    LogProducer,
    LogRecord,
    LogUnavailable,
    MemoryLog,
    OutgoingRecord,
    TopicPartition,
    TopicSpec,
)
from tests.support.kit import until


class Subject:
    def __init__(self, log: Log, topic: str) -> None:
        self.log = log
        self.topic = topic

    def lane(self, number: int) -> TopicPartition:
        return TopicPartition(self.topic, number)


@pytest.fixture(params=["memory", "kafka"])
async def subject(request: pytest.FixtureRequest) -> Subject:
    topic = f"contract-{uuid4().hex[:12]}"
    if request.param == "memory":
        memory = MemoryLog()
        memory.create(topic, 2)
        return Subject(memory, topic)
    kafka = KafkaLog(KafkaSettings(request.getfixturevalue("infrastructure").addresses.kafka_bootstrap))
    await kafka.ensure_topics([TopicSpec(topic, 2)])
    await kafka.ensure_topics([TopicSpec(topic, 2)])
    return Subject(kafka, topic)


@asynccontextmanager
async def producing(subject: Subject) -> AsyncIterator[LogProducer]:
    producer = await subject.log.open_producer()
    try:
        yield producer
    finally:
        await producer.close()


@asynccontextmanager
async def consuming(subject: Subject, group: str) -> AsyncIterator[LogConsumer]:
    client = await subject.log.open_consumer([subject.topic], group=group)
    try:
        yield client
    finally:
        await client.close()


async def assigned(client: LogConsumer, count: int) -> None:
    async def enough() -> bool:
        await client.poll(client.assignment, timeout_s=0, max_records=1)
        return len(client.assignment) == count

    await until(enough, within_s=20)


async def read(client: LogConsumer, lane: TopicPartition, count: int) -> Sequence[LogRecord]:
    found: list[LogRecord] = []

    async def enough() -> bool:
        found.extend((await client.poll([lane], timeout_s=0.2, max_records=100)).get(lane, ()))
        return len(found) >= count

    await until(enough, within_s=20)
    return found


def numbered(*numbers: int) -> list[OutgoingRecord]:
    return [OutgoingRecord(b"k", str(each).encode(), (("h", b"v"), ("h2", b""))) for each in numbers]


async def test_records_come_back_whole_and_in_order(subject: Subject) -> None:
    async with producing(subject) as producer, consuming(subject, uuid4().hex) as client:
        assert await producer.partitions(subject.topic) == 2
        assert await producer.append(subject.topic, {0: numbered(1, 2), 1: numbered(9)}) == {0: 2, 1: 1}
        await producer.append(subject.topic, {0: numbered(3)})
        await assigned(client, 2)
        client.seek(subject.lane(0), 0)

        records = await read(client, subject.lane(0), 3)

    assert [(each.offset, each.value) for each in records] == [(0, b"1"), (1, b"2"), (2, b"3")]
    assert (records[0].key, records[0].headers) == (b"k", (("h", b"v"), ("h2", b"")))


async def test_a_seek_decides_what_is_read_next(subject: Subject) -> None:
    async with producing(subject) as producer, consuming(subject, uuid4().hex) as client:
        await producer.append(subject.topic, {1: numbered(1, 2, 3)})
        await assigned(client, 2)

        client.seek(subject.lane(1), 2)
        assert [each.value for each in await read(client, subject.lane(1), 1)] == [b"3"]
        client.seek(subject.lane(1), 1)
        assert [each.value for each in await read(client, subject.lane(1), 2)] == [b"2", b"3"]

        assert await client.bounds([subject.lane(1), subject.lane(0)]) == {
            subject.lane(1): (0, 3),
            subject.lane(0): (0, 0),
        }


async def test_members_of_a_group_share_the_partitions(subject: Subject) -> None:
    group = uuid4().hex
    async with consuming(subject, group) as first:
        await assigned(first, 2)
        alone = first.rebalances
        async with consuming(subject, group) as second:
            await assigned(second, 1)
            await assigned(first, 1)

            assert first.assignment.isdisjoint(second.assignment)

            async def rebalanced() -> bool:  # the count follows the assignment
                return first.rebalances > alone

            await until(rebalanced)
        await assigned(first, 2)


async def test_only_partitions_that_are_asked_for_are_read(subject: Subject) -> None:
    async with producing(subject) as producer, consuming(subject, uuid4().hex) as client:
        await producer.append(subject.topic, {0: numbered(1), 1: numbered(2)})
        await assigned(client, 2)
        client.seek(subject.lane(0), 0)
        client.seek(subject.lane(1), 0)

        await read(client, subject.lane(1), 1)
        only = await client.poll([subject.lane(1)], timeout_s=0.1, max_records=10)

        assert dict(only) == {}
        assert [each.value for each in await read(client, subject.lane(0), 1)] == [b"1"]


async def test_where_partitions_end_is_told_without_a_group(subject: Subject) -> None:
    async with producing(subject) as producer:
        await producer.append(subject.topic, {1: [OutgoingRecord(None, b"1"), OutgoingRecord(None, b"2")]})

    ends = await subject.log.end_offsets([subject.lane(0), subject.lane(1), TopicPartition("no-such-topic", 0)])

    assert ends == {subject.lane(0): 0, subject.lane(1): 2}
    assert await subject.log.end_offsets([]) == {}


async def test_a_topic_that_is_missing_is_unavailable(subject: Subject) -> None:
    async with producing(subject) as producer:
        with pytest.raises(LogUnavailable):
            await producer.partitions(f"missing-{uuid4().hex}")


async def test_a_log_that_is_away_is_unavailable() -> None:
    with pytest.raises(LogUnavailable):
        await KafkaLog(KafkaSettings("127.0.0.1:1")).open_producer()
    with pytest.raises(LogUnavailable):
        await KafkaLog(KafkaSettings("127.0.0.1:1")).open_consumer(["t"], group="g")
