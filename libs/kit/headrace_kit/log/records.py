"""What moves over a log, and what its clients promise: the Kafka ones and their twins in memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from headrace_kit.errors import Unavailable


class LogUnavailable(Unavailable):
    """The broker cannot be reached or did not answer in time; what was sent may have arrived."""

    default_reason = "LOG_UNAVAILABLE"


class TopicPartition(NamedTuple):
    """One partition of a topic."""

    topic: str
    partition: int


class OutgoingRecord(NamedTuple):
    """A record to be written."""

    key: bytes | None
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()


class LogRecord(NamedTuple):
    """A record as it lies in its partition."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


class LogProducer(Protocol):
    """Writes records; acknowledged means stored by every replica in sync. For one task at a time."""

    async def partitions(self, topic: str) -> int:
        """How many partitions a topic has.

        Raises:
            LogUnavailable: the broker is away, or the topic does not exist (yet).
        """
        ...

    async def append(self, topic: str, records: Mapping[int, Sequence[OutgoingRecord]]) -> Mapping[int, int]:
        """Appends to partitions; returns how many of each one's records, from the first, were acknowledged.

        Each partition's records go as one batch, whole or not at all, so no record is ever stored without those
        before it. What is over a batch's size is left to the next call.

        Raises:
            LogUnavailable: some batches may have been stored and some not.
        """
        ...

    async def close(self) -> None:
        """Lets go of the broker."""
        ...


class LogConsumer(Protocol):
    """Reads records of topics as a member of a group. For one task at a time."""

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions this member has now."""
        ...

    @property
    def rebalances(self) -> int:
        """How often partitions were assigned; after a change every position must be sought anew."""
        ...

    async def partitions(self, topic: str) -> int:
        """How many partitions a topic has.

        Raises:
            LogUnavailable: the broker is away, or the topic does not exist (yet).
        """
        ...

    async def poll(
        self, partitions: Collection[TopicPartition], *, timeout_s: float, max_records: int
    ) -> Mapping[TopicPartition, Sequence[LogRecord]]:
        """Records of some assigned partitions, in order of offset; empty after ``timeout_s`` without.

        Raises:
            LogUnavailable: the client is broken and must be made anew.
        """
        ...

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """The next poll reads from ``offset``; nothing happens when the partition was taken away."""
        ...

    async def bounds(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, tuple[int, int]]:
        """First offset still kept, and the one after the last, of each partition.

        Raises:
            LogUnavailable: the broker is away.
        """
        ...

    async def close(self) -> None:
        """Leaves the group."""
        ...


class Log(Protocol):
    """One cluster: ``KafkaLog``, or ``MemoryLog`` in tests."""

    async def open_producer(self) -> LogProducer:
        """A new producer.

        Raises:
            LogUnavailable: the broker cannot be reached.
        """
        ...

    async def open_consumer(self, topics: Collection[str], *, group: str) -> LogConsumer:
        """A new member of a consumer group.

        Raises:
            LogUnavailable: the broker cannot be reached.
        """
        ...

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The offset after the last record of each partition; topics that do not exist are left out.

        Raises:
            LogUnavailable: the broker cannot be reached.
        """
        ...
