"""The counting process on real Kafka and PostgreSQL, killed again and again: counts are exact."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from headrace.api.common.v1 import telemetry_pb2
from headrace.kafka import ColumnData, group_labels
from headrace.kafka.producer import Prediction, ProducerConfig, TelemetryProducer
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.eventtypes import EventTypes
from headrace_kit.postgres import Database, create_pool, migrate
from headrace_local.testing import FreshDatabase, Infrastructure
from headrace_monitor.events import EVENT_TYPES
from tests.support.kit import until
from tests.support.telemetry import HOUR_US, World, create_monitor, hourly, service_environment

REQUESTS = 600
ROWS = 4


class Worker:
    """The counting process, of which there is one at a time."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self._environment = environment
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "headrace_monitor.streams", env=self._environment, stdout=log, stderr=log
            )

    async def end(self, by: signal.Signals) -> int:
        assert self._process is not None
        if self._process.returncode is None:
            os.kill(self._process.pid, by)
        async with asyncio.timeout(30):
            return await self._process.wait()


@asynccontextmanager
async def prepared(fresh: FreshDatabase, world: World) -> AsyncIterator[Database]:
    await migrate(fresh.migration_dsn, ["headrace_monitor"], service_dsn=fresh.service_dsn)
    database = await create_pool(fresh.service_dsn, max_size=4)
    store = PostgresEventStore(database, "headrace/monitor", EventTypes(*EVENT_TYPES))
    await create_monitor(store, world, hourly())
    try:
        yield database
    finally:
        await database.close()


def request_of(world: World, number: int) -> Prediction:
    x = np.arange(ROWS, dtype="<f8") + number
    return Prediction(
        project=world.project,
        endpoint=world.endpoint,
        model_version="app-model",
        time_us=HOUR_US * (number // 100),
        columns=[ColumnData.of("x", x), ColumnData.of("y", x, telemetry_pb2.COLUMN_ROLE_OUTPUT)],
    )


async def totals(database: Database, world: World) -> tuple[int, int, int, int]:
    row = await database.fetchrow(
        "SELECT coalesce(sum(predictions), 0)::bigint, coalesce(sum(labels_joined), 0)::bigint,"
        " coalesce(sum(batches_lost), 0)::bigint FROM endpoint_counts c JOIN watched_endpoints e"
        " ON e.id = c.endpoint_id WHERE e.endpoint = $1",
        world.endpoint,
    )
    slots = await database.fetchval(
        "SELECT coalesce(sum(rows), 0)::bigint FROM slots s JOIN watched_endpoints e ON e.id = s.endpoint_id"
        " WHERE e.endpoint = $1",
        world.endpoint,
    )
    assert row is not None
    return row[0], row[1], row[2], slots


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_counts_are_exact_however_often_the_process_is_killed(
    infrastructure: Infrastructure, database: FreshDatabase, tmp_path: Path
) -> None:
    world = World()
    environment = dict(service_environment(infrastructure, database, tmp_path / "data"))
    worker = Worker(environment, tmp_path / "log")
    producer = TelemetryProducer(
        infrastructure.addresses.kafka_bootstrap, config=ProducerConfig(batch_rows=40, linger_s=0.005)
    )
    async with prepared(database, world) as pool:
        await worker.start()
        sent: list[str] = []
        for number in range(REQUESTS):
            sent.append(await producer.send(request_of(world, number)) if number % 25 == 0 else "")
            if not sent[-1]:
                sent[-1] = producer.put(request_of(world, number))
            if number % 300 == 299:
                before = (await totals(pool, world))[0]
                await until(partial(has_more, pool, world, before), within_s=60)
                await worker.end(signal.SIGKILL)
                await worker.start()
        await producer.flush()
        await producer.send_labels(
            group_labels(
                world.project,
                world.endpoint,
                ids=[each for each in sent for _ in range(ROWS)],
                rows=list(range(ROWS)) * REQUESTS,
                values=ColumnData.of("label", np.zeros(REQUESTS * ROWS)),
                times_us=[HOUR_US * 20] * (REQUESTS * ROWS),
            )
        )
        expected = (REQUESTS * ROWS, REQUESTS * ROWS, 0, REQUESTS * ROWS)

        async def all_counted() -> bool:
            return await totals(pool, world) == expected

        try:
            await until(all_counted, within_s=60)
        except TimeoutError:
            pytest.fail(f"{await totals(pool, world)} is not {expected}\n{(tmp_path / 'log').read_text()[-4000:]}")
        finally:
            status = await worker.end(signal.SIGTERM)
            await producer.stop()
        assert status == 0


async def has_more(pool: Database, world: World, before: int) -> bool:
    return (await totals(pool, world))[0] > before


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("victim", ["postgres", "kafka"])
async def test_counts_are_exact_when_a_server_is_killed(
    infrastructure: Infrastructure, database: FreshDatabase, tmp_path: Path, victim: str
) -> None:
    world = World()
    environment = dict(service_environment(infrastructure, database, tmp_path / "data"))
    worker = Worker(environment, tmp_path / "log")
    producer = TelemetryProducer(
        infrastructure.addresses.kafka_bootstrap, config=ProducerConfig(batch_rows=40, linger_s=0.005, timeout_s=5)
    )
    async with prepared(database, world) as pool:
        await worker.start()
        await producer.send(request_of(world, 0))
        await until(partial(has_more, pool, world, 0), within_s=60)
        for number in range(1, 300):
            producer.put(request_of(world, number))
        killed = infrastructure.kill(victim)
        for number in range(300, 600):
            producer.put(request_of(world, number))
        infrastructure.wait_ready(victim, other_than=killed)
        await producer.flush()
        expected = (600 * ROWS, 0, 0, 600 * ROWS)

        async def all_counted() -> bool:
            return await totals(pool, world) == expected

        try:
            await until(all_counted, within_s=90)
        except TimeoutError:
            pytest.fail(f"{await totals(pool, world)} is not {expected}\n{(tmp_path / 'log').read_text()[-4000:]}")
        finally:
            await worker.end(signal.SIGTERM)
            await producer.stop()
