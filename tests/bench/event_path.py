"""The event path on a real PostgreSQL and Kafka; alone: ``python -m tests.bench.event_path``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from statistics import median, quantiles
from typing import Final
from uuid import uuid4

import uvloop

from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.garbage import collect_seldom
from headrace_kit.log import KafkaLog, KafkaSettings, TopicSpec, events_topic
from headrace_kit.logkeeper import LogKeeper
from headrace_kit.postgres import Database
from headrace_local.testing import FreshDatabase, Infrastructure, run_infrastructure
from tests.bench.figures import Figure
from tests.support.counters import LISTED, NOW, TYPES, add, stream
from tests.support.kit import pooled, prepare, until

AT_ONCE: Final = (1, 16, 64)
ROUNDS: Final = 3
"""Each is measured so often, by turns with what it is compared with; the median counts."""
_BARE: Final = """
WITH command AS (
    INSERT INTO commands (command_id, request_hash, stream_id, response_type, response) VALUES ($1, $2, $3, $4, $5)
), stream AS (
    INSERT INTO streams (stream_id, aggregate, version, hlc, revision, state) VALUES ($3, $6, $7, $8, $9, $10)
), counter AS (
    INSERT INTO counters (name, total) VALUES ($3, $7)
)
INSERT INTO events (stream_id, version, event_id, type, occurred_at, hlc, meta, data)
VALUES ($3, $7, $11, $12, $13, $8, $14, $15)
"""
"""The rows of a command that begins a stream, written by one who knows them all and checks nothing."""


async def rate(one: Callable[[], Awaitable[object]], *, at_once: int, seconds: float) -> float:
    """Calls a second with so many at once."""
    end, done = time.monotonic() + seconds, 0

    async def caller() -> None:
        nonlocal done
        while time.monotonic() < end:
            await one()
            done += 1

    began = time.monotonic()
    await asyncio.gather(*(caller() for _ in range(at_once)))
    return done / (time.monotonic() - began)


async def bare_insert(database: Database) -> None:
    """The rows of one command by one statement."""
    name = stream(uuid4())
    state = b"\x08\x01"
    await database.execute(
        _BARE,
        *(uuid4(), bytes(32), name, "google.protobuf.StringValue", b"\x0a\x011", "counter", 1, 1, 1, state),
        *(uuid4(), "headrace.counters.Int64Value", NOW, bytes(80), state),
    )


async def whole_command(store: PostgresEventStore) -> None:
    """The same rows by the command path: look-up, load, decide, append."""
    await add(store, uuid4(), 1, aggregate=LISTED)


async def command_paths(store: PostgresEventStore, *, seconds: float) -> AsyncIterator[Figure]:
    """The command path against the bare statement, by turns."""
    for at_once in AT_ONCE:
        pairs = [
            (
                await rate(lambda: bare_insert(store.database), at_once=at_once, seconds=seconds),
                await rate(lambda: whole_command(store), at_once=at_once, seconds=seconds),
            )
            for _ in range(ROUNDS)
        ]
        bare, whole = (median(values) for values in zip(*pairs, strict=True))
        ratio = median(each[1] / each[0] for each in pairs)
        yield Figure(
            f"whole commands/s beside bare INSERTs of the same rows, {at_once} at once",
            f"{whole:,.0f} beside {bare:,.0f}: {ratio:.2f}",
            "0.4",
            "two round trips beside one" if at_once == 1 else "the client's core, two statements beside one",
        )


async def log_path(store: PostgresEventStore, log: KafkaLog, *, events: int) -> AsyncIterator[Figure]:
    """A backlog from commit to Kafka, and how long one event takes to a consumer that waits for it."""
    await _fill(store, events)
    keeper = LogKeeper(store, log)
    keeping = asyncio.create_task(keeper.run())
    try:
        total = int(await store.database.fetchval("SELECT count(*) FROM events"))
        began = time.monotonic()

        async def relayed() -> bool:
            return keeper.relay.position >= total

        await until(relayed, within_s=300)
        yield Figure(
            "events/s from commit through sequencer and relay to Kafka, a backlog",
            f"{total / (time.monotonic() - began):,.0f}/s",
            "30,000/s",
            "one Python process",
        )
        taken = await _to_consumer(store, log)
        yield Figure(
            "append to a consumer in hand",
            f"p50 {median(taken):.1f} ms, p99 {quantiles(taken, n=100)[98]:.1f} ms",
            "p50 15 ms",
            "four statements and two commits, and Kafka's acknowledgement",
        )
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping


async def _fill(store: PostgresEventStore, events: int) -> None:
    """Commands of a hundred events each, in many streams."""
    waiting = iter(range(events // 100))

    async def writer() -> None:
        for _ in waiting:
            await add(store, uuid4(), *range(100))

    await asyncio.gather(*(writer() for _ in range(8)))


async def _to_consumer(store: PostgresEventStore, log: KafkaLog) -> list[float]:
    """Milliseconds from the call of a command to its record in a consumer's hands, one at a time."""
    topic = events_topic(store.source)
    consumer = await log.open_consumer([topic], group=f"bench-{uuid4().hex[:8]}")
    try:
        await until(lambda: _assigned(consumer), within_s=30)
        bounds = await consumer.bounds(consumer.assignment)
        for partition, (_, end) in bounds.items():
            consumer.seek(partition, end)
        taken: list[float] = []
        for _ in range(200):
            command_id = uuid4()
            began = time.perf_counter()
            await add(store, uuid4(), 1, command_id=command_id)
            while not any((await consumer.poll(consumer.assignment, timeout_s=5, max_records=100)).values()):
                pass
            taken.append((time.perf_counter() - began) * 1000)
        return taken
    finally:
        await consumer.close()


async def _assigned(consumer: object) -> bool:
    return bool(getattr(consumer, "assignment", None))


@asynccontextmanager
async def _store(fresh: FreshDatabase, source: str) -> AsyncIterator[PostgresEventStore]:
    await prepare(fresh)
    async with pooled(fresh, max_size=64) as database:
        yield PostgresEventStore(database, source, TYPES)


async def _measure(infrastructure: Infrastructure, *, quick: bool) -> list[Figure]:
    log = KafkaLog(KafkaSettings(infrastructure.addresses.kafka_bootstrap))
    figures: list[Figure] = []
    source = f"headrace/bench-{uuid4().hex[:8]}"
    await log.ensure_topics([TopicSpec(events_topic(source), 6)])
    with infrastructure.database() as fresh:
        async with _store(fresh, source) as store:
            figures += [each async for each in command_paths(store, seconds=0.5 if quick else 2.0)]
    with infrastructure.database() as fresh:
        async with _store(fresh, source) as store:
            figures += [each async for each in log_path(store, log, events=5_000 if quick else 100_000)]
    return figures


def measure(infrastructure: Infrastructure, *, quick: bool) -> Iterator[Figure]:
    """Measures everything once."""
    collect_seldom()  # as every service does
    yield from uvloop.run(_measure(infrastructure, quick=quick))


if __name__ == "__main__":
    with run_infrastructure() as running:
        for figure in measure(running, quick=False):
            print(f"{figure.what}: {figure.value}", flush=True)
