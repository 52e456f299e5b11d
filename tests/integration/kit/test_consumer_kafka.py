"""Consumers on Kafka: members that come and go, and a broker that is killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from google.protobuf.wrappers_pb2 import Int64Value

from headrace_kit.cloudevents import ReceivedEvent
from headrace_kit.consumer import LogReader, ProjectionConsumer, StoreLogReader
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.log import KafkaLog, KafkaSettings, TopicSpec, events_topic
from headrace_kit.logkeeper import LogKeeper
from headrace_kit.postgres import Connection
from headrace_local.testing import FreshDatabase, Infrastructure
from tests.support.counters import add, number, stream
from tests.support.kit import counter_store, until


class World:
    """Counters relayed over Kafka into a projection in the same database."""

    def __init__(self, store: PostgresEventStore, log: KafkaLog, topic: str) -> None:
        self.store = store
        self.log = log
        self.topic = topic
        self.keeper = LogKeeper(store, log)
        self.members: list[asyncio.Task[None]] = []

    def join(self) -> ProjectionConsumer:
        readers: dict[str, LogReader] = {self.store.source: StoreLogReader(self.store)}
        consumer = ProjectionConsumer(
            "fold", [self.topic], {Int64Value: fold}, self.store.database, self.log, readers=readers, stall_s=4.0
        )
        self.members.append(asyncio.create_task(consumer.run()))
        return consumer

    async def values(self, name: object) -> list[int]:
        statement = "SELECT value FROM points WHERE name = $1 ORDER BY arrived"
        return [row["value"] for row in await self.store.database.fetch(statement, stream(name))]

    async def folded(self, count: int) -> bool:
        return int(await self.store.database.fetchval("SELECT count(*) FROM points")) >= count


async def fold(event: ReceivedEvent, connection: Connection) -> None:
    await connection.execute("INSERT INTO points (name, value) VALUES ($1, $2)", event.subject, number(event))


@asynccontextmanager
async def running(world: World) -> AsyncIterator[None]:
    keeping = asyncio.create_task(world.keeper.run())
    try:
        yield
    finally:
        tasks = [keeping, *world.members]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def world(database: FreshDatabase, infrastructure: Infrastructure) -> AsyncIterator[World]:
    source = f"headrace/counters-{uuid4().hex[:8]}"
    log = KafkaLog(KafkaSettings(infrastructure.addresses.kafka_bootstrap))
    await log.ensure_topics([TopicSpec(events_topic(source), 4)])
    async with counter_store(database) as counters:
        yield World(PostgresEventStore(counters.database, source, counters.types), log, events_topic(source))


async def test_members_that_come_and_go_fold_each_event_once(world: World) -> None:
    async with running(world):
        world.join()
        for value in range(1, 31):
            await add(world.store, value % 6, value)
        await until(lambda: world.folded(10), within_s=30)
        world.join()
        for value in range(31, 61):
            await add(world.store, value % 6, value)
        await until(lambda: world.folded(40), within_s=30)
        world.members.pop(0).cancel()
        for value in range(61, 91):
            await add(world.store, value % 6, value)
        await until(lambda: world.folded(90), within_s=40)

    for name in range(6):
        assert await world.values(name) == [value for value in range(1, 91) if value % 6 == name]


async def test_a_broker_killed_under_way_costs_nothing(world: World, infrastructure: Infrastructure) -> None:
    async with running(world):
        world.join()
        for value in range(1, 21):
            await add(world.store, value % 3, value)
        await until(lambda: world.folded(20), within_s=30)
        killed = infrastructure.kill("kafka")
        for value in range(21, 41):
            await add(world.store, value % 3, value)
        await asyncio.to_thread(infrastructure.wait_ready, "kafka", other_than=killed)
        await until(lambda: world.folded(40), within_s=50)

    for name in range(3):
        assert await world.values(name) == [value for value in range(1, 41) if value % 3 == name]
