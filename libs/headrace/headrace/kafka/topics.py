"""Everything that a topic holds now."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from headrace.errors import Unavailable
from headrace.kafka.client import partitions_of

_TIMEOUT_S: Final = 10.0
_POLL_MS: Final = 1000


async def read_topic(bootstrap: str, topic: str) -> list[bytes]:
    """The values of all records of a topic, partition by partition, in order.

    Raises:
        Unavailable: Kafka does not answer, or stops answering, or has no such topic.
    """
    try:
        count = await partitions_of(bootstrap, topic, timeout_s=_TIMEOUT_S)
        if not count:
            raise Unavailable(f"there is no topic {topic}", reason="KAFKA_UNAVAILABLE")
        return await _read(bootstrap, [TopicPartition(topic, number) for number in range(count)])
    except (KafkaError, TimeoutError, OSError) as error:
        raise Unavailable(f"the topic {topic} can not be read: {error!r}", reason="KAFKA_UNAVAILABLE") from error


async def _read(bootstrap: str, partitions: Iterable[TopicPartition]) -> list[bytes]:
    # Any: aiokafka has no types.
    consumer: Any = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    values: list[bytes] = []
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await consumer.start()
        for partition in partitions:
            consumer.assign([partition])
            async with asyncio.timeout(_TIMEOUT_S):
                at: int = (await consumer.beginning_offsets([partition]))[partition]
                end: int = (await consumer.end_offsets([partition]))[partition]
            consumer.seek(partition, at)
            while at < end:
                async with asyncio.timeout(_TIMEOUT_S):
                    polled = await consumer.getmany(partition, timeout_ms=_POLL_MS)
                for record in polled.get(partition, ()):
                    values.append(record.value or b"")
                    at = record.offset + 1
    finally:
        async with asyncio.timeout(_TIMEOUT_S):
            await consumer.stop()
    return values
