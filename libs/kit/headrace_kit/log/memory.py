"""A log in memory: the twin of Kafka, with groups, retention and faults under a test's control."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence

from headrace_kit.log.records import LogRecord, LogUnavailable, OutgoingRecord, TopicPartition


class MemoryLog:
    """Topics of one pretended cluster. For one loop.

    Attributes:
        available: Set to False, every call raises ``LogUnavailable``.
        batch_limit: Most records of a partition that one append takes.
    """

    def __init__(self, batch_limit: int = 1_000_000) -> None:
        self.available = True
        self.batch_limit = batch_limit
        self._partitions: dict[TopicPartition, list[LogRecord]] = {}
        self._counts: dict[str, int] = {}
        self._first: dict[TopicPartition, int] = {}
        self._groups: dict[str, list[MemoryConsumer]] = {}
        self._arrived = asyncio.Event()

    def create(self, topic: str, partitions: int) -> None:
        """Creates a topic."""
        self._counts[topic] = partitions
        for number in range(partitions):
            self._partitions.setdefault(TopicPartition(topic, number), [])

    async def open_producer(self) -> MemoryProducer:
        """A new producer."""
        self.require_available()
        return MemoryProducer(self)

    async def open_consumer(self, topics: Collection[str], *, group: str) -> MemoryConsumer:
        """A new member of a group; partitions are dealt anew."""
        self.require_available()
        member = MemoryConsumer(self, topics, group=group)
        self._groups.setdefault(group, []).append(member)
        self.rebalance(group)
        return member

    def rebalance(self, group: str) -> None:
        """Deals the group's partitions to its members in turn."""
        members = self._groups.get(group, [])
        dealt: dict[int, set[TopicPartition]] = {index: set() for index in range(len(members))}
        subscribed = {topic for member in members for topic in member.topics}
        for index, partition in enumerate(sorted(each for each in self._partitions if each.topic in subscribed)):
            dealt[index % len(members)].add(partition)
        for index, member in enumerate(members):
            member.assign(frozenset(dealt[index]))

    def leave(self, member: MemoryConsumer, group: str) -> None:
        """Takes a member out of its group."""
        if member in self._groups.get(group, []):
            self._groups[group].remove(member)
            self.rebalance(group)

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """As ``Log.end_offsets``."""
        self.require_available()
        return {each: self.bounds(each)[1] for each in partitions if each in self._partitions}

    def members(self, group: str) -> tuple[MemoryConsumer, ...]:
        """The members of a group."""
        return tuple(self._groups.get(group, ()))

    def forget(self, group: str) -> None:
        """Takes all members out without telling them, as a broker does with those that sleep."""
        self._groups[group] = []

    def expire(self, partition: TopicPartition, before: int) -> None:
        """Drops the records below an offset, as retention does."""
        self._first[partition] = max(before, self._first.get(partition, 0))

    def records(self, topic: str) -> list[LogRecord]:
        """Everything a topic ever held, partition by partition."""
        partitions = (TopicPartition(topic, number) for number in range(self._counts[topic]))
        return [each for partition in partitions for each in self._partitions[partition]]

    def count(self, topic: str) -> int:
        """Partitions of a topic."""
        self.require_available()
        if topic not in self._counts:
            raise LogUnavailable(f"no topic {topic}")
        return self._counts[topic]

    def require_available(self) -> None:
        """Raises when a test has cut the wire."""
        if not self.available:
            raise LogUnavailable("the log is away")

    def store(self, partition: TopicPartition, records: Sequence[OutgoingRecord]) -> None:
        """Appends to one partition."""
        held = self._partitions[partition]
        for each in records:
            record = LogRecord(
                partition.topic, partition.partition, len(held), 0, each.key, each.value, tuple(each.headers)
            )
            held.append(record)
        self._arrived.set()

    def bounds(self, partition: TopicPartition) -> tuple[int, int]:
        """First offset still kept, and the one after the last."""
        return self._first.get(partition, 0), len(self._partitions[partition])

    def read(self, partition: TopicPartition, offset: int, limit: int) -> list[LogRecord]:
        """Records from an offset on."""
        start = max(offset, self._first.get(partition, 0))
        return self._partitions[partition][start : start + limit]

    async def wait(self, timeout_s: float) -> None:
        """Returns when something was stored, or after a while."""
        self._arrived.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._arrived.wait()
        except TimeoutError:
            return


class MemoryProducer:
    """``LogProducer`` in memory."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    async def partitions(self, topic: str) -> int:
        """As ``LogProducer.partitions``."""
        return self._log.count(topic)

    async def append(self, topic: str, records: Mapping[int, Sequence[OutgoingRecord]]) -> Mapping[int, int]:
        """As ``LogProducer.append``."""
        self._log.count(topic)
        taken = {number: list(members)[: self._log.batch_limit] for number, members in records.items()}
        for number, members in taken.items():
            self._log.store(TopicPartition(topic, number), members)
        await asyncio.sleep(0)
        return {number: len(members) for number, members in taken.items()}

    async def close(self) -> None:
        """As ``LogProducer.close``."""


class MemoryConsumer:
    """``LogConsumer`` in memory."""

    def __init__(self, log: MemoryLog, topics: Collection[str], *, group: str) -> None:
        self.topics = tuple(topics)
        self._log = log
        self._group = group
        self._assignment: frozenset[TopicPartition] = frozenset()
        self._offsets: dict[TopicPartition, int] = {}
        self._rebalances = 0

    def assign(self, partitions: frozenset[TopicPartition]) -> None:
        """What a rebalance does: positions are forgotten."""
        self._assignment = partitions
        self._offsets = {}
        self._rebalances += 1

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """As ``LogConsumer.assignment``."""
        return self._assignment

    @property
    def rebalances(self) -> int:
        """As ``LogConsumer.rebalances``."""
        return self._rebalances

    async def partitions(self, topic: str) -> int:
        """As ``LogConsumer.partitions``."""
        return self._log.count(topic)

    async def poll(
        self, partitions: Collection[TopicPartition], *, timeout_s: float, max_records: int
    ) -> Mapping[TopicPartition, Sequence[LogRecord]]:
        """As ``LogConsumer.poll``."""
        self._log.require_available()
        found = self._take(partitions, max_records)
        if not found:
            await self._log.wait(timeout_s)
            found = self._take(partitions, max_records)
        return found

    def _take(self, partitions: Collection[TopicPartition], limit: int) -> dict[TopicPartition, Sequence[LogRecord]]:
        found: dict[TopicPartition, Sequence[LogRecord]] = {}
        for partition in partitions:
            if partition in self._assignment and limit > 0:
                records = self._log.read(partition, self._offsets.get(partition, 0), limit)
                if records:
                    found[partition] = records
                    self._offsets[partition] = records[-1].offset + 1
                    limit -= len(records)
        return found

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """As ``LogConsumer.seek``."""
        if partition in self._assignment:
            self._offsets[partition] = offset

    async def bounds(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, tuple[int, int]]:
        """As ``LogConsumer.bounds``."""
        self._log.require_available()
        return {each: self._log.bounds(each) for each in partitions}

    async def close(self) -> None:
        """As ``LogConsumer.close``."""
        self._log.leave(self, self._group)
