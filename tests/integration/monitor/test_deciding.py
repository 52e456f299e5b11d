"""Stage 2 on real PostgreSQL: from counted slots to events, once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypedDict, TypeVar
from uuid import uuid4

import numpy as np
import pytest
from google.protobuf.message import Message

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.monitor.v1 import events_pb2 as events
from headrace.api.monitor.v1 import resources_pb2 as resources
from headrace.api.monitor.v1.resources_pb2 import MonitorConfig
from headrace.kafka import LABELS_TOPIC, PREDICTIONS_TOPIC, encode_labels, encode_predictions, new_id, partition_of
from headrace.kafka.ledger import Kind
from headrace.reference import reference_profile
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.eventtypes import EventTypes
from headrace_kit.postgres import Database, create_pool, migrate
from headrace_local.testing import FreshDatabase
from headrace_monitor.counting import Counter, Effects, Misplaced, Poison, Record
from headrace_monitor.countstore import CountStore, Partition
from headrace_monitor.deciding import Decider
from headrace_monitor.events import EVENT_TYPES
from headrace_monitor.watching import Watching
from headrace_monitor.windowstore import WindowStore
from tests.support.telemetry import HOUR_US, VERSION, World, create_monitor, hourly

TOPICS = {Kind.PREDICTIONS: PREDICTIONS_TOPIC, Kind.LABELS: LABELS_TOPIC}
M = TypeVar("M", bound=Message)
ROWS = 100
NEXT_VERSION = VERSION.removesuffix("1") + "2"
PROFILE = ObjectRef(uri="default/sha256/aa/aa", sha256="aa", size_bytes=1)


def history_profile(*, days: int = 14) -> bytes:
    """Reference of a standard normal input, an error of 0.5 on average, with hourly history."""
    generator = np.random.default_rng(7)
    rows = days * 24 * ROWS
    x = generator.normal(size=rows)
    times = np.repeat(np.arange(days * 24) * HOUR_US, ROWS)
    labels = x + generator.exponential(0.5, size=rows)
    profile = reference_profile({"x": x}, x, labels, times, slot_s=3600, prediction_name="y")
    return profile.SerializeToString()


class Numbers(TypedDict):
    producer_id: str
    epoch: int
    seq: int


async def nothing(_: Misplaced | Poison) -> None:
    """No effect."""


@dataclass(slots=True)
class Rig:
    """Counter and decider on one database, and the traffic of one endpoint."""

    database: Database
    world: World
    counter: Counter
    store: PostgresEventStore
    generator: np.random.Generator
    offsets: dict[Partition, int] = field(default_factory=dict[Partition, int])
    seqs: dict[tuple[Kind, int], int] = field(default_factory=dict[tuple[Kind, int], int])

    def decider(self) -> Decider:
        async def partitions() -> int:
            return 1

        return Decider(
            self.store,
            CountStore(self.database),
            WindowStore(self.database),
            topics=TOPICS,
            partitions=partitions,
            idle_s=3600.0,
            every_s=0.1,
        )

    def number(self, kind: Kind, shard: int) -> Numbers:
        self.seqs[kind, shard] = self.seqs.get((kind, shard), 0) + 1
        return {"producer_id": "app", "epoch": 1, "seq": self.seqs[kind, shard]}

    def record(self, kind: Kind, shard: int, value: bytes) -> Record:
        at = Partition(TOPICS[kind], partition_of(shard, 1))
        self.offsets[at] = self.offsets.get(at, -1) + 1
        return Record(at.topic, at.partition, self.offsets[at], 2_000_000_000_000, value)

    async def hours(
        self, first: int, count: int, *, version: str = VERSION, shift: float = 0.0, error: float = 0.5
    ) -> None:
        """Counts hours of traffic: inputs moved by ``shift``, labels off by ``error`` on average."""
        records: list[Record] = []
        for hour in range(first, first + count):
            shard = hour % 2
            ids = [new_id(shard) for _ in range(ROWS)]
            x = self.generator.normal(size=ROWS) + shift
            off = self.generator.exponential(error, size=ROWS)
            start = hour * HOUR_US
            batch = self.world.predictions(ids, x, x, times_us=[start] * ROWS, shard=shard, version=version)
            known = self.world.labels(ids, [0] * ROWS, x + off, time_us=start + HOUR_US // 2, shard=shard)
            numbers = self.number(Kind.PREDICTIONS, shard)
            records.append(
                self.record(Kind.PREDICTIONS, shard, encode_predictions(batch, **numbers).SerializeToString())
            )
            numbers = self.number(Kind.LABELS, shard)
            records.append(self.record(Kind.LABELS, shard, encode_labels(known, **numbers).SerializeToString()))
        await self.counter.count(records)
        await CountStore(self.database).caught_up([Partition(topic, 0) for topic in TOPICS.values()])

    async def emitted(self, kind: type[M]) -> list[M]:
        return [
            kind.FromString(each.data)
            for each in await self.store.read_stream(self.world.monitor)
            if each.type.endswith("." + kind.__name__)
        ]


@asynccontextmanager
async def rig_on(fresh: FreshDatabase, config: MonitorConfig) -> AsyncIterator[Rig]:
    await migrate(fresh.migration_dsn, ["headrace_monitor"], service_dsn=fresh.service_dsn)
    database = await create_pool(fresh.service_dsn, max_size=4)
    store = PostgresEventStore(database, "headrace/monitor", EventTypes(*EVENT_TYPES))
    world = World(endpoint=f"e-{uuid4().hex[:6]}")
    config.reference_profile.CopyFrom(PROFILE)
    await create_monitor(store, world, config)
    counts = CountStore(database)
    profile = history_profile()

    async def fetch(_: ObjectRef) -> bytes:
        return profile

    counter = Counter(counts, Watching(counts, fetch, wait_s=0), Effects(nothing, nothing), topics=TOPICS, partitions=1)
    await counter.assign({Partition(topic, 0): 0 for topic in TOPICS.values()})
    try:
        yield Rig(database, world, counter, store, np.random.default_rng(11))
    finally:
        await database.close()


async def test_calm_traffic_raises_no_alert(database: FreshDatabase) -> None:
    async with rig_on(database, hourly(lateness_s=3600, drift_action=resources.DRIFT_ACTION_RETRAIN)) as rig:
        await rig.hours(0, 24 * 7)

        decided = await rig.decider().step()

        assert decided == 24 * 7 - 3
        assert await rig.emitted(events.AlertRaised) == []


async def test_drift_leads_to_one_alert_and_one_request_to_retrain_with_its_onset(database: FreshDatabase) -> None:
    config = hourly(
        lateness_s=3600, cooldown_s=30 * 86_400, consecutive_slots=2, drift_action=resources.DRIFT_ACTION_RETRAIN
    )
    async with rig_on(database, config) as rig:
        await rig.hours(0, 48)
        await rig.hours(48, 24, shift=1.0)
        decider = rig.decider()

        await decider.step()
        await decider.step()
        await rig.decider().step()

        (alert,) = [each.alert for each in await rig.emitted(events.AlertRaised)]
        assert alert.kind in {resources.ALERT_KIND_INPUT_DRIFT, resources.ALERT_KIND_PREDICTION_DRIFT}
        assert alert.findings[0].channel in {"input:x", "prediction"}
        assert alert.slot.ToMicroseconds() == 49 * HOUR_US
        assert 46 <= alert.onset.ToMicroseconds() / HOUR_US <= 48
        (retrain,) = await rig.emitted(events.RetrainRequested)
        assert (retrain.alert, retrain.model) == (alert.name, "projects/default/models/m")
        assert retrain.data_until.ToMicroseconds() == 50 * HOUR_US


@pytest.mark.parametrize("detector", ["multiscale", "adwin", "page_hinkley"])
async def test_a_growing_error_is_concept_drift(database: FreshDatabase, detector: str) -> None:
    config = hourly(lateness_s=3600, cooldown_s=30 * 86_400, error_detector=detector)
    async with rig_on(database, config) as rig:
        await rig.hours(0, 48)
        await rig.hours(48, 48, error=0.65)

        await rig.decider().step()

        alerts = [each.alert for each in await rig.emitted(events.AlertRaised)]
        assert [alert.kind for alert in alerts] == [resources.ALERT_KIND_CONCEPT_DRIFT]
        assert (alerts[0].findings[0].channel, alerts[0].findings[0].statistic) == ("error", detector)


async def test_a_bad_version_is_rolled_back_once(database: FreshDatabase) -> None:
    config = hourly(lateness_s=3600, roll_back_bad_versions=True, bad_version_factor=1.5)
    async with rig_on(database, config) as rig:
        await rig.database.execute(
            "INSERT INTO aliases VALUES ('projects/default/models/m', 'production', $1, $2, 7)", NEXT_VERSION, VERSION
        )
        await rig.hours(0, 30)
        await rig.hours(30, 10, version=NEXT_VERSION, error=1.2)

        await rig.decider().step()

        (rollback,) = await rig.emitted(events.RollbackRequested)
        assert (rollback.bad_version, rollback.alias, rollback.alias_revision) == (NEXT_VERSION, "production", 7)
        bad = [
            each.alert
            for each in await rig.emitted(events.AlertRaised)
            if each.alert.kind == resources.ALERT_KIND_BAD_VERSION
        ]
        assert [each.name for each in bad] == [rollback.alert]


async def test_late_predictions_are_counted_and_decide_nothing(database: FreshDatabase) -> None:
    async with rig_on(database, hourly(lateness_s=3600)) as rig:
        await rig.hours(0, 10)
        await rig.decider().step()
        frozen = await rig.database.fetch("SELECT * FROM windows ORDER BY start_us")

        await rig.hours(2, 1, shift=9.0)
        await rig.decider().step()

        assert await rig.database.fetch("SELECT * FROM windows ORDER BY start_us") == frozen
        assert await rig.emitted(events.AlertRaised) == []
