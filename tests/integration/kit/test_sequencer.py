"""The sequencer against transactions that begin, wait and end in every order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from headrace_kit.errors import Deposed
from headrace_kit.eventstore import PostgresEventStore, Within
from headrace_kit.lease import Fence, Leadership
from headrace_kit.postgres import connected
from headrace_kit.sequencer import _OLDEST_UNSEQUENCED, _STATE, _WINDOW, Sequencer
from headrace_local.testing import FreshDatabase
from tests.support.counters import COUNTER, SOURCE, add, context, stream, whole_log
from tests.support.kit import counter_store, until


@pytest.fixture
async def store(database: FreshDatabase) -> AsyncIterator[PostgresEventStore]:
    async with counter_store(database) as opened:
        yield opened


async def lead(store: PostgresEventStore) -> Fence:
    fence = await Leadership(store.database, "log", ttl_s=0).take()
    assert fence is not None
    return fence


async def settle(sequencer: Sequencer, fence: Fence) -> None:
    while await sequencer.step(fence) or sequencer.tail_age_s:
        await asyncio.sleep(0)


async def test_waits_for_a_transaction_that_wrote_first_and_commits_last(store: PostgresEventStore) -> None:
    fence, sequencer = await lead(store), Sequencer(store.database, SOURCE)
    written, go_on = asyncio.Event(), asyncio.Event()

    async def dawdle(_connection: object) -> None:
        written.set()
        await go_on.wait()

    slow = asyncio.create_task(_add_within(store, "slow", dawdle))
    await asyncio.wait_for(written.wait(), 10)
    await add(store, "quick", 1)

    assert await sequencer.step(fence) == 0
    assert sequencer.tail_age_s > 0
    go_on.set()
    await slow
    await settle(sequencer, fence)

    assert [each.event.stream_id for each in await whole_log(store)] == [stream("slow"), stream("quick")]
    assert sequencer.tail_age_s == 0


async def test_leaves_no_hole_for_what_was_rolled_back(store: PostgresEventStore) -> None:
    fence, sequencer = await lead(store), Sequencer(store.database, SOURCE)

    async def fail(_connection: object) -> None:
        raise RuntimeError("changed my mind")

    await add(store, "a", 1)
    with pytest.raises(RuntimeError):
        await _add_within(store, "b", fail)
    await add(store, "a", 2)
    await settle(sequencer, fence)

    assert [each.position for each in await whole_log(store)] == [1, 2]


async def test_takes_a_transaction_larger_than_a_batch_in_pieces(store: PostgresEventStore) -> None:
    fence, sequencer = await lead(store), Sequencer(store.database, SOURCE, batch=3)
    for _ in range(3):
        await add(store, "a", *([1] * 10))

    pieces = [await sequencer.step(fence) for _ in range(10)]
    await settle(sequencer, fence)

    assert sum(pieces) == 30
    assert max(pieces) == 6
    assert [each.event.version for each in await whole_log(store)] == list(range(1, 31))


async def test_takes_a_backlog_in_windows_of_a_batch_behind_their_first_transaction(store: PostgresEventStore) -> None:
    fence, sequencer = await lead(store), Sequencer(store.database, SOURCE, batch=3)
    for _ in range(10):
        await add(store, "a", 1)

    pieces = [await sequencer.step(fence) for _ in range(3)]

    assert pieces == [4, 4, 2]
    assert [each.event.version for each in await whole_log(store)] == list(range(1, 11))


@pytest.mark.parametrize(
    ("statement", "arguments"),
    [(_OLDEST_UNSEQUENCED, ()), (_STATE, ("log", 1, 10)), (_WINDOW, ("1000000000", "2000000000", 0, 10))],
)
async def test_looking_costs_no_more_for_a_long_log(
    store: PostgresEventStore, statement: str, arguments: tuple[object, ...]
) -> None:
    fence, sequencer = await lead(store), Sequencer(store.database, SOURCE)
    for number in range(50):
        await add(store, str(number), *([1] * 100))
    await settle(sequencer, fence)

    plan = await store.database.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *arguments)

    blocks = orjson.loads(plan)[0]["Plan"]["Shared Hit Blocks"]
    assert blocks < 40  # of 5,000 events that take hundreds


async def test_a_deposed_sequencer_writes_nothing(store: PostgresEventStore) -> None:
    old = await lead(store)
    await lead(store)
    await add(store, "a", 1)

    with pytest.raises(Deposed):
        await Sequencer(store.database, SOURCE).step(old)

    assert await store.head() == 0


async def test_two_that_believe_to_lead_give_no_position_twice(store: PostgresEventStore) -> None:
    fence = await lead(store)
    rivals = [Sequencer(store.database, SOURCE, batch=2) for _ in range(3)]
    for _ in range(10):
        await add(store, "a", 1)

    await asyncio.gather(*(settle(each, fence) for each in rivals))

    entries = await whole_log(store)
    assert [each.position for each in entries] == list(range(1, 11))
    assert [each.event.version for each in entries] == list(range(1, 11))


async def test_the_log_grows_while_writers_write(store: PostgresEventStore) -> None:
    fence, sequencer = await lead(store), Sequencer(store.database, SOURCE, wake=store.appended)
    keeping = asyncio.create_task(sequencer.run(fence))
    try:
        await asyncio.gather(*(add(store, number % 7, 1, 1) for number in range(100)))

        async def complete() -> bool:
            return await store.head() == 200

        await until(complete)
    finally:
        keeping.cancel()

    entries = await whole_log(store)
    for name in range(7):
        versions = [each.event.version for each in entries if each.event.stream_id == stream(name)]
        assert versions == list(range(1, len(versions) + 1))


async def test_the_services_role_cannot_change_the_log(store: PostgresEventStore, database: FreshDatabase) -> None:
    fence, sequencer = await lead(store), Sequencer(store.database, SOURCE)
    await add(store, "a", 1)
    await settle(sequencer, fence)

    async with connected(database.service_dsn) as connection:
        for statement in (
            "UPDATE events SET data = ''",
            "DELETE FROM events",
            "TRUNCATE log_entries",
            "UPDATE log_entries SET leaf = leaf",
            "UPDATE commands SET response = NULL",
            "DROP TABLE events",
        ):
            with pytest.raises(Exception, match=r"permission denied|must be owner"):
                await connection.execute(statement)


async def _add_within(store: PostgresEventStore, name: str, within: Within) -> None:
    await store.execute(
        COUNTER,
        stream(name),
        context=context(),
        request=StringValue(value=name),
        decide=lambda _: [Int64Value(value=1)],
        respond=lambda state: state,
        within=within,
    )
