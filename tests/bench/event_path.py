"""How fast the event path is, on a real PostgreSQL and Kafka: `python -m tests.bench.event_path`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from uuid import uuid4

from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.log import KafkaLog, KafkaSettings, TopicSpec, events_topic
from headrace_kit.logkeeper import LogKeeper
from headrace_local.testing import Infrastructure, run_infrastructure
from tests.support.counters import add
from tests.support.kit import counter_store, until


async def rate(one: Callable[[int], Awaitable[object]], *, at_once: int, seconds: float = 3.0) -> float:
    """Calls a second with so many at once."""
    end, done = time.monotonic() + seconds, 0

    async def caller(number: int) -> None:
        nonlocal done
        while time.monotonic() < end:
            await one(number)
            done += 1

    began = time.monotonic()
    await asyncio.gather(*(caller(number) for number in range(at_once)))
    return done / (time.monotonic() - began)


async def lag(store: PostgresEventStore, keeper: LogKeeper) -> tuple[list[float], list[float]]:
    """Milliseconds from acknowledgement to a position, and to Kafka, one event at a time."""
    to_log: list[float] = []
    to_kafka: list[float] = []
    for _ in range(200):
        await add(store, "lag", 1)
        began, position = time.perf_counter(), keeper.sequencer.position + 1
        while keeper.sequencer.position < position:
            await asyncio.sleep(0.0005)
        to_log.append((time.perf_counter() - began) * 1000)
        while keeper.relay.position < position:
            await asyncio.sleep(0.0005)
        to_kafka.append((time.perf_counter() - began) * 1000)
    return sorted(to_log), sorted(to_kafka)


async def measure(infrastructure: Infrastructure) -> None:
    """Runs everything once."""
    source = f"headrace/bench-{uuid4().hex[:8]}"
    log = KafkaLog(KafkaSettings(infrastructure.addresses.kafka_bootstrap))
    await log.ensure_topics([TopicSpec(events_topic(source), 6)])
    with infrastructure.database() as fresh:
        async with counter_store(fresh) as counters:
            store = PostgresEventStore(counters.database, source, counters.types)
            for at_once in (1, 16, 64):
                spread = await rate(lambda number: add(store, number, 1), at_once=at_once)
                print(f"commands/s, {at_once} streams at once: {spread:.0f}")
            print(f"commands/s, 16 at once on one stream: {await rate(lambda _: add(store, 'hot', 1), at_once=16):.0f}")
            keeper = LogKeeper(store, log)
            keeping = asyncio.create_task(keeper.run())
            began = time.monotonic()

            async def relayed() -> bool:
                return keeper.relay.position == keeper.sequencer.position > 0 and not keeper.sequencer.tail_age_s

            await until(relayed, within_s=120)
            count = keeper.relay.position
            print(
                f"backlog of {count} events, sequenced and in Kafka: {count / (time.monotonic() - began):.0f} events/s"
            )
            to_log, to_kafka = await lag(store, keeper)
            for name, values in (("to a position", to_log), ("to Kafka", to_kafka)):
                print(f"acknowledged {name}: p50 {values[100]:.1f} ms, p99 {values[198]:.1f} ms")
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping


if __name__ == "__main__":
    with run_infrastructure() as running:
        asyncio.run(measure(running))
