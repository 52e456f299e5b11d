"""What waited too long for its counterpart goes, and is counted; what has not, stays."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
from google.protobuf.message import Message

from headrace.kafka import encode_labels, encode_predictions, new_id
from headrace.kafka.ledger import Kind
from headrace_kit.postgres import connected
from headrace_local.testing import FreshDatabase
from headrace_monitor.retention import GivenUp, Retention
from headrace_monitor.store import MonitorStore
from tests.integration.monitor.test_counting import Bench, bench_on
from tests.support.telemetry import HOUR_US, World

SHARD = 5
WAIT = timedelta(days=30)
AGE = "UPDATE {} SET counted_at = counted_at - interval '31 days'"


class Stream:
    """One producer's numbered telemetry on one shard."""

    def __init__(self, bench: Bench, world: World) -> None:
        self._bench, self._world = bench, world
        self._seq = 0

    async def predict(self, ids: list[str], *, rows: int = 1) -> None:
        self._seq += 1
        x = np.zeros(len(ids) * rows)
        batch = self._world.predictions(ids, x, x, times_us=[HOUR_US] * len(ids), shard=SHARD)
        await self._count(Kind.PREDICTIONS, encode_predictions(batch, producer_id="a", epoch=1, seq=self._seq))

    async def label(self, ids: list[str], *, row: int = 0) -> None:
        self._seq += 1
        zeros = np.zeros(len(ids))
        batch = self._world.labels(ids, [row] * len(ids), zeros, time_us=2 * HOUR_US, shard=SHARD)
        await self._count(Kind.LABELS, encode_labels(batch, producer_id="b", epoch=self._seq, seq=1))

    async def counts(self) -> dict[str, int]:
        store = MonitorStore(self._bench.database)
        endpoint_id = await store.endpoint_id(self._world.project, self._world.endpoint)
        assert endpoint_id is not None
        return await store.counts(endpoint_id)

    async def _count(self, kind: Kind, batch: Message) -> None:
        worker = await self._bench.worker()
        await worker.count([self._bench.record(kind, SHARD, batch.SerializeToString())])


async def age(database: FreshDatabase) -> None:
    """Everything that waits now has waited for 31 days."""
    async with connected(database.migration_dsn) as owner:
        for table in ("waiting_predictions", "waiting_labels"):
            await owner.execute(AGE.format(table))


async def test_rows_without_label_and_labels_without_prediction_are_given_up(database: FreshDatabase) -> None:
    world = World()
    async with bench_on(database, world) as bench:
        stream = Stream(bench, world)
        half, whole, orphan, young = (new_id(SHARD) for _ in range(4))
        await stream.predict([half, "an id of the client's own"], rows=2)
        await stream.predict([whole])
        await stream.label([half], row=1)
        await stream.label([whole])
        await stream.label([orphan])
        await age(database)
        await stream.predict([young])
        before = await stream.counts()

        given_up = await Retention(bench.database, wait=WAIT).step()

        assert given_up == GivenUp(predictions=3, labels=1, more=False)
        after = await stream.counts()
        changed = {name: after[name] - before[name] for name in after if after[name] != before[name]}
        assert changed == {"predictions_unlabelled": 3, "labels_waiting": -1, "labels_unmatched": 1}
        assert (after["labels_waiting"], after["predictions"], after["labels_joined"]) == (0, 6, 2)
        assert await bench.database.fetchval("SELECT count(*) FROM waiting_predictions") == 1
        await stream.label([young])
        assert (await stream.counts())["labels_joined"] == 3


async def test_a_label_that_comes_too_late_waits_and_is_given_up_in_its_turn(database: FreshDatabase) -> None:
    world = World()
    async with bench_on(database, world) as bench:
        stream, retention = Stream(bench, world), Retention(bench.database, wait=WAIT)
        late = new_id(SHARD)
        await stream.predict([late])
        await age(database)
        await retention.step()

        await stream.label([late])
        waiting = await stream.counts()
        await age(database)
        await retention.step()

        assert (waiting["labels_joined"], waiting["labels_waiting"]) == (0, 1)
        counts = await stream.counts()
        assert (counts["labels_waiting"], counts["labels_unmatched"], counts["predictions_unlabelled"]) == (0, 1, 1)


async def test_much_is_given_up_in_chunks(database: FreshDatabase) -> None:
    world = World()
    async with bench_on(database, world) as bench:
        stream, retention = Stream(bench, world), Retention(bench.database, wait=WAIT, chunk=4)
        await stream.predict([new_id(SHARD) for _ in range(10)])
        await age(database)

        steps = [await retention.step() for _ in range(3)]

        assert [(each.predictions, each.more) for each in steps] == [(4, True), (4, True), (2, False)]
        assert (await stream.counts())["predictions_unlabelled"] == 10
