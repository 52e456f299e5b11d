"""Reads and drops records of topics by offset, outside of any consumer group."""
# aiokafka has no types: inside this module Any is what it gives.
# ruff: noqa: ANN401

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from headrace.archive.record import Record
from headrace.kafka.errors import TelemetryError

_TIMEOUT_S: Final = 10.0
_POLL_MS: Final = 500
_FETCH_BYTES: Final = 8 * 1024 * 1024
_POLL_RECORDS: Final = 500


class TopicUnreadable(TelemetryError):
    """Kafka can not be reached, or did not answer in time."""

    reason = "TOPIC_UNREADABLE"
    retryable = True


class RecordsGone(TelemetryError):
    """Kafka has dropped the records of this offset."""

    reason = "RECORDS_GONE"


class Bounds(NamedTuple):
    """What a partition holds: its first offset, and the one after its last."""

    first: int
    end: int


class TopicReader:
    """Reads the partitions of one topic. An asynchronous context manager; for one task at a time.

    Args:
        bootstrap: ``host:port,host:port``.
        topic: The topic.
        options: aiokafka's own settings, such as SASL and TLS.

    Every method raises TopicUnreadable when Kafka is away.
    """

    def __init__(self, bootstrap: str, topic: str, *, options: Mapping[str, Any] | None = None) -> None:
        self.topic = topic
        self._bootstrap, self._options = bootstrap, dict(options or {})
        self._client: Any = None

    async def __aenter__(self) -> Self:
        client = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="none",
            max_partition_fetch_bytes=_FETCH_BYTES,
            **self._options,
        )
        try:
            async with _answering():
                await client.start()
        except BaseException:
            await client.stop()
            raise
        self._client = client
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.stop()

    async def bounds(self) -> dict[int, Bounds]:
        """What each partition holds now; empty when there is no such topic."""
        async with _answering():
            found = await self._client._client.fetch_all_metadata()  # noqa: SLF001 - a topic nobody is assigned of
            lanes = [TopicPartition(self.topic, each) for each in sorted(found.partitions_for_topic(self.topic) or ())]
            first = await self._client.beginning_offsets(lanes)
            end = await self._client.end_offsets(lanes)
        return {lane.partition: Bounds(first[lane], end[lane]) for lane in lanes}

    async def read(self, partition: int, *, offset: int, end: int, max_bytes: int) -> list[Record]:
        """Records in ``[offset, end)`` in order, at least one; no more once ``max_bytes`` of values are there.

        Offsets may have holes. ``end`` is not above the end of the partition.

        Raises:
            RecordsGone: the first of them were dropped.
        """
        lane = TopicPartition(self.topic, partition)
        self._client.assign([lane])
        self._client.seek(lane, offset)
        found: list[Record] = []
        size = 0
        async with _answering():
            while size < max_bytes and await self._client.position(lane) < end:
                batches = await self._client.getmany(lane, timeout_ms=_POLL_MS, max_records=_POLL_RECORDS)
                for raw in batches.get(lane, ()):
                    if raw.offset >= end or size >= max_bytes:
                        return found
                    found.append(_record(raw))
                    size += len(raw.value or b"")
        return found


async def delete_records_before(
    bootstrap: str, topic: str, offsets: Mapping[int, int], *, options: Mapping[str, Any] | None = None
) -> None:
    """Drops the records of partitions below an offset each, for everybody and for ever.

    Raises:
        TopicUnreadable: Kafka is away, or refused.
    """
    admin: Any = AIOKafkaAdminClient(bootstrap_servers=bootstrap, **(options or {}))
    try:
        async with _answering():
            await admin.start()
            await admin.delete_records(
                {TopicPartition(topic, each): RecordsToDelete(before_offset=offset) for each, offset in offsets.items()}
            )
    finally:
        await admin.close()


@asynccontextmanager
async def _answering() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            yield
    except OffsetOutOfRangeError as error:
        raise RecordsGone("Kafka dropped the records of this offset") from error
    except (KafkaError, TimeoutError, OSError) as error:
        raise TopicUnreadable(f"Kafka: {str(error) or type(error).__name__}") from error


def _record(raw: Any) -> Record:
    return Record(raw.topic, raw.partition, raw.offset, raw.timestamp, raw.key, raw.value, tuple(raw.headers))
