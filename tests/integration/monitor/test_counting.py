"""Stage 1 on real PostgreSQL: whatever the order, the chunks and the deaths, the tables say the same."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import numpy as np
import pytest

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.kafka import LABELS_TOPIC, PREDICTIONS_TOPIC, encode_labels, encode_predictions, new_id, partition_of
from headrace.kafka.ledger import Kind
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.eventtypes import EventTypes
from headrace_kit.postgres import Database, create_pool, migrate
from headrace_local.testing import FreshDatabase, Infrastructure
from headrace_monitor.counting import Counter, Effects, Misplaced, Poison, Record
from headrace_monitor.countstore import CountStore, Fenced, Partition
from headrace_monitor.events import EVENT_TYPES
from headrace_monitor.watching import Watching
from tests.support.telemetry import HOUR_US, World, create_monitor, hourly, profile_of

PARTITIONS = 4
TOPICS = {Kind.PREDICTIONS: PREDICTIONS_TOPIC, Kind.LABELS: LABELS_TOPIC}
PROFILE = ObjectRef(uri="default/sha256/aa/aa", sha256="aa", size_bytes=1)


class Sink:
    """Keeps what leaves stage 1."""

    def __init__(self) -> None:
        self.forwarded: list[Misplaced] = []
        self.poison: list[Poison] = []

    async def forward(self, batch: Misplaced) -> None:
        self.forwarded.append(batch)

    async def quarantine(self, poison: Poison) -> None:
        self.poison.append(poison)


@dataclass(slots=True)
class Bench:
    """A database, and workers on it."""

    database: Database
    sink: Sink
    offsets: dict[Partition, int]

    async def worker(self) -> Counter:
        store = CountStore(self.database)

        async def fetch(_: ObjectRef) -> bytes:
            return profile_of().SerializeToString()

        effects = Effects(self.sink.forward, self.sink.quarantine)
        counter = Counter(store, Watching(store, fetch, wait_s=0), effects, topics=TOPICS, partitions=PARTITIONS)
        await counter.assign({Partition(topic, number): 0 for topic in TOPICS.values() for number in range(PARTITIONS)})
        return counter

    def record(self, kind: Kind, shard: int, value: bytes, *, partition: int | None = None) -> Record:
        at = Partition(TOPICS[kind], partition_of(shard, PARTITIONS) if partition is None else partition)
        offset = self.offsets.get(at, 0)
        self.offsets[at] = offset + 1
        return Record(at.topic, at.partition, offset, 2_000_000_000_000, value)

    async def tables(self) -> dict[str, list[tuple[object, ...]]]:
        wanted = {
            "slots": "endpoint_id, start_us, version_id, shard, rows, labels, correct, error_sum, error_square, cells",
            "endpoint_counts": "*",
            "producers": "kind, shard, producer_id, epoch, last_seq",
            "waiting_predictions": "endpoint_id, key, version_id, start_us, predicted, labelled",
            "waiting_labels": "endpoint_id, key, row_number, shard, value",
            "shard_progress": "endpoint_id, kind, shard, max_time_us",
            "consumer_offsets": "topic, partition, next_offset",
        }
        return {
            table: sorted(tuple(row) for row in await self.database.fetch(f"SELECT {columns} FROM {table}"))
            for table, columns in wanted.items()
        }


@asynccontextmanager
async def bench_on(fresh: FreshDatabase, world: World) -> AsyncIterator[Bench]:
    await migrate(fresh.migration_dsn, ["headrace_monitor"], service_dsn=fresh.service_dsn)
    database = await create_pool(fresh.service_dsn, max_size=4)
    config = hourly()
    config.reference_profile.CopyFrom(PROFILE)
    store = PostgresEventStore(database, "headrace/monitor", EventTypes(*EVENT_TYPES))
    await create_monitor(store, world, config)
    try:
        yield Bench(database, Sink(), {})
    finally:
        await database.close()


def traffic(bench: Bench, world: World, seed: int) -> tuple[list[Record], list[Record]]:
    """Predictions and labels of a random day, as two topics: repeats, holes, duplicates and orphans among them."""
    rng = random.Random(seed)
    numbers = np.random.default_rng(seed)
    predictions: list[Record] = []
    labels: list[Record] = []
    for index in range(60):
        shard = rng.randrange(24)
        ids = [new_id(shard) for _ in range(rng.randint(1, 5))]
        rows = rng.randint(1, 3)
        x = numbers.normal(size=len(ids) * rows)
        times = [rng.randrange(24) * HOUR_US + rng.randrange(HOUR_US) for _ in ids]
        batch = world.predictions(ids, x, x + 0.25, times_us=times, shard=shard)
        seq = index // 3 + 1 if rng.random() < 0.9 else index + 50
        value = encode_predictions(batch, producer_id="app", epoch=1, seq=seq).SerializeToString()
        predictions.extend(bench.record(Kind.PREDICTIONS, shard, value) for _ in range(rng.choice([1, 1, 1, 2])))
        named = [each for each in ids for _ in range(rows)]
        within = list(range(rows)) * len(ids)
        chosen = sorted(rng.sample(range(len(named)), rng.randint(0, len(named))))
        if chosen:
            known = world.labels(
                [named[at] for at in chosen] + [new_id(shard)],
                [within[at] for at in chosen] + [0],
                np.append(x[chosen], 0.0),
                time_us=times[0] + HOUR_US,
                shard=shard,
            )
            for part in (known, replace(known, rows=known.rows + np.uint32(rng.choice([0, 1])))):
                seq = len(labels) + 1
                value = encode_labels(part, producer_id="app", epoch=1, seq=seq).SerializeToString()
                labels.append(bench.record(Kind.LABELS, shard, value))
    return predictions, labels


def interleaved(rng: random.Random, topics: Sequence[Sequence[Record]]) -> list[Record]:
    """Any order that keeps that of each partition."""
    lanes: dict[tuple[str, int], list[Record]] = {}
    for record in (each for topic in topics for each in topic):
        lanes.setdefault((record.topic, record.partition), []).append(record)
    order: list[Record] = []
    while lanes:
        key = rng.choice(sorted(lanes))
        order.append(lanes[key].pop(0))
        if not lanes[key]:
            del lanes[key]
    return order


async def count_in_chunks(bench: Bench, records: Sequence[Record], rng: random.Random, *, deaths: float) -> None:
    """Counts chunk by chunk; a worker that dies is followed by one that reads from the stored offsets."""
    worker = await bench.worker()
    at = 0
    while at < len(records):
        size = rng.randint(1, 12)
        await worker.count(records[at : at + size])
        at += size
        if rng.random() < deaths:
            worker = await bench.worker()
            stored = {partition: position.next_offset for partition, position in worker.positions.items()}
            at = next(
                (
                    index
                    for index, each in enumerate(records)
                    if each.offset >= stored[Partition(each.topic, each.partition)]
                ),
                len(records),
            )


@pytest.mark.parametrize("seed", range(4))
async def test_any_order_and_any_death_give_the_same_tables(infrastructure: Infrastructure, seed: int) -> None:
    world = World()
    topics: tuple[list[Record], list[Record]] | None = None
    found: list[dict[str, list[tuple[object, ...]]]] = []
    for attempt in range(3):
        rng = random.Random(f"{seed}-{attempt}")
        with infrastructure.database() as fresh:
            async with bench_on(fresh, world) as bench:
                topics = topics or traffic(bench, world, seed)
                await count_in_chunks(bench, interleaved(rng, topics), rng, deaths=0.0 if attempt == 0 else 0.3)
                found.append(await bench.tables())

    assert found[0]["slots"]
    assert found[0]["waiting_labels"]
    assert found[1] == found[0]
    assert found[2] == found[0]


async def test_counts_are_those_of_a_plain_loop(database: FreshDatabase) -> None:
    world = World()
    async with bench_on(database, world) as bench:
        ids = [new_id(5) for _ in range(40)]
        x = np.linspace(-2, 2, 80)
        times = [HOUR_US * (index % 3) for index in range(40)]
        batch = world.predictions(ids, x, x + 0.4, times_us=times, shard=5)
        known = world.labels(ids, [1] * 40, x[1::2], time_us=HOUR_US * 5, shard=5)
        worker = await bench.worker()

        await worker.count(
            [
                bench.record(Kind.LABELS, 5, encode_labels(known, producer_id="a", epoch=1, seq=1).SerializeToString()),
                bench.record(
                    Kind.PREDICTIONS, 5, encode_predictions(batch, producer_id="a", epoch=1, seq=3).SerializeToString()
                ),
            ]
        )

        rows = await bench.database.fetch("SELECT start_us, rows, labels, error_sum FROM slots ORDER BY start_us")
        assert [(row["start_us"], row["rows"], row["labels"]) for row in rows] == [
            (0, 28, 14),
            (HOUR_US, 26, 13),
            (2 * HOUR_US, 26, 13),
        ]
        assert sum(int(row["error_sum"]) for row in rows) == 40 * round(0.4 * 2**20)
        counts = await bench.database.fetchrow("SELECT * FROM endpoint_counts")
        assert counts is not None
        assert (counts["predictions"], counts["labels_joined"], counts["labels_waiting"]) == (80, 40, 0)
        assert counts["batches_lost"] == 2


async def test_an_id_that_comes_again_counts_as_a_prediction_and_keeps_its_first_value(database: FreshDatabase) -> None:
    world = World()
    async with bench_on(database, world) as bench:
        worker = await bench.worker()
        own = [new_id(5)]
        for seq, value in enumerate((1.0, 9.0), start=1):
            batch = world.predictions(own, np.array([value]), np.array([value]), times_us=[0], shard=5)
            data = encode_predictions(batch, producer_id="a", epoch=1, seq=seq).SerializeToString()
            await worker.count([bench.record(Kind.PREDICTIONS, 5, data)])
        known = world.labels(own, [0], np.array([1.5]), time_us=1, shard=5)
        data = encode_labels(known, producer_id="a", epoch=1, seq=1).SerializeToString()

        await worker.count([bench.record(Kind.LABELS, 5, data)])

        row = await bench.database.fetchrow("SELECT rows, labels, error_sum FROM slots")
        assert row is not None
        assert (row["rows"], row["labels"], int(row["error_sum"])) == (2, 1, 2**19)


async def test_a_worker_that_lost_its_partitions_writes_nothing(database: FreshDatabase) -> None:
    world = World()
    async with bench_on(database, world) as bench:
        sleeper, successor = await bench.worker(), await bench.worker()
        batch = world.predictions([new_id(1)], np.zeros(1), np.zeros(1), times_us=[0], shard=1)
        record = bench.record(
            Kind.PREDICTIONS, 1, encode_predictions(batch, producer_id="a", epoch=1, seq=1).SerializeToString()
        )

        with pytest.raises(Fenced):
            await sleeper.count([record])
        await successor.count([record])

        assert await bench.database.fetchval("SELECT sum(rows)::bigint FROM slots") == 1


async def test_what_cannot_be_read_is_quarantined_and_what_lies_wrong_is_forwarded(database: FreshDatabase) -> None:
    world = World()
    async with bench_on(database, world) as bench:
        worker = await bench.worker()
        batch = world.predictions([new_id(1)], np.zeros(1), np.zeros(1), times_us=[0], shard=1)
        value = encode_predictions(batch, producer_id="a", epoch=1, seq=1).SerializeToString()

        await worker.count(
            [
                bench.record(Kind.PREDICTIONS, 2, b"no batch"),
                bench.record(Kind.PREDICTIONS, 1, value, partition=2),
                bench.record(Kind.PREDICTIONS, 1, value),
            ]
        )

        assert [each.shard for each in bench.sink.forwarded] == [1]
        assert len(bench.sink.poison) == 1
        counts = await bench.database.fetchrow(
            "SELECT sum(predictions) AS p, sum(quarantined) AS q, sum(batches_forwarded) AS f FROM endpoint_counts"
        )
        assert counts is not None
        assert (counts["p"], counts["q"], counts["f"]) == (1, 1, 1)
