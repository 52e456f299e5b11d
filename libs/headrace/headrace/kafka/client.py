"""aiokafka's producer behind one typed call, made again when it stalls or breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordTooLargeError

from headrace.kafka.batches import MAX_BATCH_BYTES
from headrace.kafka.errors import TelemetryError
from headrace.kafka.shards import partition_of

_MAX_RECORD_BYTES = MAX_BATCH_BYTES + 64 * 1024


class TooLarge(TelemetryError):
    """The broker refuses records of this size: sending it again is of no use."""

    reason = "RECORD_TOO_LARGE"


class KafkaSender:
    """Sends records to the partition of their shard; idempotent, acknowledged by all replicas.

    Connects when first needed. A failed call leaves the outcome unknown; the client is made anew for the next one.
    Safe for many tasks of one loop.
    """

    def __init__(self, bootstrap: str, *, timeout_s: float, options: Mapping[str, Any] | None = None) -> None:
        self._bootstrap = bootstrap
        self._timeout_s = timeout_s
        self._options = dict(options or {})  # Any: aiokafka's own settings, such as SASL and TLS
        self._client: Any = None
        self._lock = asyncio.Lock()

    async def send(self, topic: str, *, shard: int, value: bytes) -> None:
        """Sends one record and waits until it is acknowledged.

        Raises:
            TooLarge: it can never be sent.
            KafkaError, TimeoutError, OSError: it may or may not be there; send it again.
        """
        client = None
        try:
            async with asyncio.timeout(self._timeout_s):
                client = await self._connected()
                partitions = await client.partitions_for(topic)
                partition = partition_of(shard, len(partitions))
                await client.send_and_wait(topic, value, key=str(shard).encode(), partition=partition)
        except (MessageSizeTooLargeError, RecordTooLargeError) as error:
            raise TooLarge(f"Kafka refuses a record of {len(value)} bytes") from error
        except (KafkaError, TimeoutError, OSError):
            await self._discard(client)
            raise

    async def close(self) -> None:
        """Disconnects."""
        await self._discard(self._client)

    async def _connected(self) -> Any:  # noqa: ANN401 - aiokafka has no types
        async with self._lock:
            if self._client is None:
                client = AIOKafkaProducer(
                    bootstrap_servers=self._bootstrap,
                    enable_idempotence=True,
                    compression_type="lz4",
                    linger_ms=0,  # batches were filled before; each shard has one record in flight
                    max_request_size=_MAX_RECORD_BYTES,
                    request_timeout_ms=int(self._timeout_s * 1000),
                    **self._options,
                )
                try:
                    await client.start()
                except BaseException:
                    await client.stop()
                    raise
                self._client = client
            return self._client

    async def _discard(self, client: Any) -> None:  # noqa: ANN401 - aiokafka has no types
        if client is None or client is not self._client:
            return
        self._client = None
        try:
            async with asyncio.timeout(self._timeout_s):
                await client.stop()
        except (KafkaError, TimeoutError, OSError):
            return  # it was broken before


async def first_offset_from(bootstrap: str, topic: str, partition: int, *, offset: int, timeout_s: float = 10.0) -> int:
    """Offset of the first record at or after ``offset`` of a partition; waits for one.

    Raises:
        KafkaError, TimeoutError: Kafka does not answer, or there is none in time.
    """
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
    chosen = TopicPartition(topic, partition)
    async with asyncio.timeout(timeout_s):
        await consumer.start()
        try:
            consumer.assign([chosen])
            consumer.seek(chosen, offset)
            record = await consumer.getone(chosen)
            return int(record.offset)
        finally:
            await consumer.stop()


async def partitions_of(bootstrap: str, topic: str, *, timeout_s: float = 10.0) -> int:
    """How many partitions a topic has; 0 when it does not exist.

    Raises:
        KafkaError, TimeoutError: Kafka does not answer.
    """
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, enable_auto_commit=False)
    async with asyncio.timeout(timeout_s):
        await consumer.start()
        try:
            return len(consumer.partitions_for_topic(topic) or ())
        finally:
            await consumer.stop()
