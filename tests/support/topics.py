"""What lies in a topic, all of it."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from headrace_kit.log import KafkaLog, KafkaSettings, LogRecord, TopicPartition


async def whole_topic(bootstrap: str, topic: str, *, within_s: float = 60.0) -> list[LogRecord]:
    """Every record that a topic holds now, each partition's in order."""
    consumer = await KafkaLog(KafkaSettings(bootstrap)).open_consumer([topic], group=f"all-{uuid4()}")
    try:
        lanes = [TopicPartition(topic, each) for each in range(await consumer.partitions(topic))]
        bounds = await consumer.bounds(lanes)
        ends = {lane: end for lane, (first, end) in bounds.items() if first < end}
        found: list[LogRecord] = []
        async with asyncio.timeout(within_s):
            while consumer.assignment != frozenset(lanes):
                await asyncio.sleep(0.05)
            for lane in lanes:
                consumer.seek(lane, bounds[lane][0])
            while ends:
                for lane, records in (await consumer.poll(lanes, timeout_s=0.2, max_records=500)).items():
                    found += records
                    if records[-1].offset + 1 >= ends.get(lane, 0):
                        ends.pop(lane, None)
        return found
    finally:
        await consumer.close()
