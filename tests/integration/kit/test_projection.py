"""Read models that cross the streams of a service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from google.protobuf.wrappers_pb2 import Int64Value

from headrace_kit.cloudevents import ReceivedEvent
from headrace_kit.errors import DeadlineExceeded
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.lease import Leadership
from headrace_kit.postgres import Connection
from headrace_kit.projection import LogProjection
from headrace_kit.sequencer import Sequencer
from headrace_local.testing import FreshDatabase
from tests.support.counters import SOURCE, add, number
from tests.support.kit import counter_store


@pytest.fixture
async def store(database: FreshDatabase) -> AsyncIterator[PostgresEventStore]:
    async with counter_store(database) as opened:
        yield opened


async def sequence(store: PostgresEventStore) -> None:
    fence = await Leadership(store.database, "log", ttl_s=0).take()
    assert fence is not None
    sequencer = Sequencer(store.database, SOURCE)
    while await sequencer.step(fence) or sequencer.tail_age_s:
        await asyncio.sleep(0)


async def write(event: ReceivedEvent, connection: Connection) -> None:
    await connection.execute("INSERT INTO points (name, value) VALUES ($1, $2)", event.subject, number(event))


async def values(store: PostgresEventStore) -> list[int]:
    return [row["value"] for row in await store.database.fetch("SELECT value FROM points ORDER BY arrived")]


async def test_folds_each_event_once_in_order_of_position(store: PostgresEventStore) -> None:
    for value in range(1, 7):
        await add(store, value % 2, value)
    await sequence(store)
    rivals = [LogProjection("all", store, {Int64Value: write}) for _ in range(3)]

    folded = await asyncio.gather(*(each.step() for each in rivals))

    assert sum(folded) == 6
    assert await values(store) == [1, 2, 3, 4, 5, 6]
    assert await rivals[0].position() == 6


async def test_a_batch_that_fails_leaves_nothing(store: PostgresEventStore) -> None:
    async def fails_at_two(event: ReceivedEvent, connection: Connection) -> None:
        await write(event, connection)
        if number(event) == 2:
            raise RuntimeError("two")

    await add(store, "a", 1, 2)
    await sequence(store)
    projection = LogProjection("all", store, {Int64Value: fails_at_two})

    with pytest.raises(RuntimeError):
        await projection.step()

    assert (await values(store), await projection.position()) == ([], 0)


async def test_a_reader_waits_for_what_it_wrote(store: PostgresEventStore) -> None:
    projection = LogProjection("all", store, {Int64Value: write})
    await add(store, "a", 1)
    await sequence(store)
    with pytest.raises(DeadlineExceeded):
        await projection.wait_for(1, timeout_s=0.03)

    folding = asyncio.create_task(projection.run())
    await projection.wait_for(1, timeout_s=10)
    folding.cancel()

    assert await values(store) == [1]
