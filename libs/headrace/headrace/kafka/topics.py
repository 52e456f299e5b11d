"""Everything that a topic holds now."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from headrace.errors import Unavailable

_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 1.0


async def read_topic(bootstrap: str, topic: str) -> list[bytes]:
    """The values of all records of a topic, partition by partition, in order.

    Raises:
        Unavailable: Kafka does not answer, or stops answering, or has no such topic.
    """
    consumer: Any = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, enable_auto_commit=False
    )  # Any: aiokafka has no types
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await consumer.start()
        try:
            return await _read(consumer, topic)
        finally:
            async with asyncio.timeout(_TIMEOUT_S):
                await consumer.stop()
    except (KafkaError, TimeoutError, OSError) as error:
        raise Unavailable(f"the topic {topic} can not be read: {error!r}", reason="KAFKA_UNAVAILABLE") from error


async def _read(consumer: Any, topic: str) -> list[bytes]:  # noqa: ANN401 - aiokafka has no types
    async with asyncio.timeout(_TIMEOUT_S):
        await consumer.topics()
    numbers = sorted(consumer.partitions_for_topic(topic) or ())
    if not numbers:
        raise Unavailable(f"there is no topic {topic}", reason="KAFKA_UNAVAILABLE")
    values: list[bytes] = []
    for partition in [TopicPartition(topic, number) for number in numbers]:
        consumer.assign([partition])
        async with asyncio.timeout(_TIMEOUT_S):
            at: int = (await consumer.beginning_offsets([partition]))[partition]
            end: int = (await consumer.end_offsets([partition]))[partition]
        consumer.seek(partition, at)
        while at < end:
            async with asyncio.timeout(_TIMEOUT_S):
                polled = await consumer.getmany(partition, timeout_ms=int(_POLL_S * 1000))
            for record in polled.get(partition, ()):
                values.append(record.value or b"")
                at = record.offset + 1
    return values
