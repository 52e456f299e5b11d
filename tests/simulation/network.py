"""Kafka, as one process reaches it: a ``MemoryLog`` behind delays, lost answers, and batches that arrive late."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from headrace_kit.log import LogRecord, LogUnavailable, MemoryLog, OutgoingRecord, TopicPartition
from headrace_kit.log.memory import MemoryConsumer
from tests.simulation.host import Host

SESSION_S = 3.0
"""How long the broker takes to notice that a member is gone."""
LATE_S = 2.0


@contextmanager
def unavailable() -> Iterator[None]:
    """A broken connection, in the words of the log."""
    try:
        yield
    except ConnectionResetError as error:
        raise LogUnavailable(str(error)) from error


class SimLog:
    """``Log`` for one process."""

    def __init__(self, broker: MemoryLog, host: Host) -> None:
        self._broker, self._host = broker, host
        self._members: list[tuple[MemoryConsumer, str]] = []

    async def open_producer(self) -> SimProducer:
        """As ``Log.open_producer``."""
        with unavailable():
            await self._host.pause()
        self._broker.require_available()
        return SimProducer(self._broker, self._host)

    async def open_consumer(self, topics: Collection[str], *, group: str) -> SimConsumer:
        """As ``Log.open_consumer``."""
        with unavailable():
            await self._host.pause()
        member = await self._broker.open_consumer(topics, group=group)
        self._members.append((member, group))
        return SimConsumer(member, self._host)

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """As ``Log.end_offsets``."""
        with unavailable():
            await self._host.pause()
        return await self._broker.end_offsets(partitions)

    def forget(self) -> None:
        """The process is dead: after a while the broker deals its partitions to others."""
        loop = asyncio.get_running_loop()
        for member, group in self._members:
            loop.call_later(SESSION_S, self._broker.leave, member, group)


class SimProducer:
    """``LogProducer`` whose batches may arrive and not be acknowledged, at once or much later."""

    def __init__(self, broker: MemoryLog, host: Host) -> None:
        self._broker, self._host = broker, host

    async def partitions(self, topic: str) -> int:
        """As ``LogProducer.partitions``."""
        return self._broker.count(topic)

    async def append(self, topic: str, records: Mapping[int, Sequence[OutgoingRecord]]) -> Mapping[int, int]:
        """As ``LogProducer.append``."""
        taken: dict[int, int] = {}
        with unavailable():
            await self._host.pause()
            self._host.lose_before()
            for lane in sorted(records):
                batch = list(records[lane])[: self._broker.batch_limit]
                self._broker.count(topic)
                if self._host.random.random() < self._host.faults.late:
                    delay = self._host.random.random() * LATE_S
                    asyncio.get_running_loop().call_later(delay, self._broker.store, TopicPartition(topic, lane), batch)
                    raise LogUnavailable("the batch is on its way, and nobody waits for it")
                self._broker.store(TopicPartition(topic, lane), batch)
                taken[lane] = len(batch)
            self._host.lose_after()
            await self._host.pause()
        return taken

    async def close(self) -> None:
        """As ``LogProducer.close``."""


class SimConsumer:
    """``LogConsumer`` that hears of rebalances late, as one does that was frozen."""

    def __init__(self, member: MemoryConsumer, host: Host) -> None:
        self._member, self._host = member, host

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """As ``LogConsumer.assignment``."""
        return self._member.assignment

    @property
    def rebalances(self) -> int:
        """As ``LogConsumer.rebalances``."""
        return self._member.rebalances

    async def partitions(self, topic: str) -> int:
        """As ``LogConsumer.partitions``."""
        return await self._member.partitions(topic)

    async def poll(
        self, partitions: Collection[TopicPartition], *, timeout_s: float, max_records: int
    ) -> Mapping[TopicPartition, Sequence[LogRecord]]:
        """As ``LogConsumer.poll``."""
        with unavailable():
            self._host.lose_before()
            found = await self._member.poll(partitions, timeout_s=timeout_s, max_records=max_records)
            await self._host.pause()
        return found

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """As ``LogConsumer.seek``."""
        self._member.seek(partition, offset)

    async def bounds(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, tuple[int, int]]:
        """As ``LogConsumer.bounds``."""
        with unavailable():
            await self._host.pause()
        return await self._member.bounds(partitions)

    async def close(self) -> None:
        """As ``LogConsumer.close``."""
        with unavailable():
            self._host.require()
        await self._member.close()
