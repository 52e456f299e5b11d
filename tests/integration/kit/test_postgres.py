"""Migrations, grants, read-model rows, and a server that dies under its clients."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import pytest
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from headrace_kit.causes import fill, filling
from headrace_kit.errors import Aborted, AlreadyExists, DeadlineExceeded, FailedPrecondition, InvalidArgument
from headrace_kit.eventstore import Aggregate, PostgresEventStore, Row, Within
from headrace_kit.lease import Leadership
from headrace_kit.log import MemoryLog
from headrace_kit.logkeeper import LogKeeper
from headrace_kit.postgres import Connection, ConnectionLost, UniqueViolation, connected, create_pool, migrate
from headrace_kit.sequencer import Sequencer
from headrace_kit.upkeep import Upkeep
from headrace_local.testing import FreshDatabase, Infrastructure
from tests.support.counters import COUNTER, LISTED, SOURCE, TYPES, add, context, evolve, stream, whole_log
from tests.support.kit import counter_store, pooled, prepare, until


def package(folder: Path, **files: str) -> Path:
    migrations = folder / "headrace_sample" / "migrations"
    migrations.mkdir(parents=True, exist_ok=True)
    for name, sql in files.items():
        (migrations / f"{name}.sql").write_text(sql)
    return migrations.parent


async def test_migrations_are_applied_once_and_in_order(database: FreshDatabase, tmp_path: Path) -> None:
    first = package(tmp_path, _0002_more="ALTER TABLE sample ADD b int", _0001_table="CREATE TABLE sample (a int)")
    for file in (first / "migrations").iterdir():
        file.rename(file.with_name(file.name[1:]))

    applied = await migrate(database.migration_dsn, [first], service_dsn=database.service_dsn)
    again = await asyncio.gather(
        *(migrate(database.migration_dsn, [first], service_dsn=database.service_dsn) for _ in range(3))
    )

    assert [(each.package, each.version) for each in applied][-2:] == [("headrace_sample", 1), ("headrace_sample", 2)]
    assert again == [[], [], []]
    async with pooled(database) as pool:
        await pool.execute("INSERT INTO sample VALUES (1, 2)")


async def test_a_migration_changed_after_the_fact_is_refused(database: FreshDatabase, tmp_path: Path) -> None:
    folder = package(tmp_path)
    file = folder / "migrations" / "0001_table.sql"
    file.write_text("CREATE TABLE sample (a int)")
    await migrate(database.migration_dsn, [folder])
    file.write_text("CREATE TABLE sample (a text)")

    with pytest.raises(FailedPrecondition) as refused:
        await migrate(database.migration_dsn, [folder])

    assert refused.value.reason == "MIGRATION_CHANGED"


async def test_a_failing_migration_leaves_nothing_of_itself(database: FreshDatabase, tmp_path: Path) -> None:
    folder = package(tmp_path)
    (folder / "migrations" / "0001_table.sql").write_text("CREATE TABLE sample (a int); SELECT 1/0")
    with pytest.raises(Exception, match="division by zero"):
        await migrate(database.migration_dsn, [folder])

    (folder / "migrations" / "0001_table.sql").write_text("CREATE TABLE sample (a int)")
    assert [each.version for each in await migrate(database.migration_dsn, [folder])] == [1]


async def test_rows_change_with_their_events(database: FreshDatabase) -> None:
    async with counter_store(database) as store:
        await add(store, "a", 5, aggregate=LISTED)
        await add(store, "b", 1, aggregate=LISTED)
        rows = await store.database.fetch("SELECT name, total, note FROM counters ORDER BY name")
        assert [tuple(row) for row in rows] == [(stream("a"), 5, "none"), (stream("b"), 1, "none")]

        await add(store, "a", -5, aggregate=LISTED)

        assert [row["name"] for row in await store.database.fetch("SELECT name FROM counters")] == [stream("b")]


async def test_every_kind_of_value_comes_back_as_it_went(database: FreshDatabase) -> None:
    values: dict[str, object] = {
        "total": 1 << 62,
        "ratio": float("inf"),
        "seen_at": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        "raw": bytes(range(256)),
        "id": UUID(int=7),
        "facts": {"list": [1, 2.5, None, "x"], "text": "\u00fc\U0001f600 '; --"},
        "note": "\u00fc\U0001f600 '; DROP TABLE events; --",
        "active": True,
    }
    aggregate = Aggregate(
        "counter", Int64Value, evolve, lambda stream_id, _state, _events: [Row("counters", {"name": stream_id}, values)]
    )
    async with counter_store(database) as store:
        await add(store, "a", 1, aggregate=aggregate)

        row = await store.database.fetchrow("SELECT * FROM counters")

    assert row is not None
    assert {name: row[name] for name in values} == values


async def test_a_row_that_cannot_be_stored_takes_its_events_with_it(database: FreshDatabase) -> None:
    def rows(stream_id: str, _state: Int64Value, _events: object) -> list[Row]:
        return [Row("counters", {"name": stream_id}, {"total": 1, "note": "a\x00b"})]

    async with counter_store(database) as store:
        with pytest.raises(InvalidArgument):
            await add(store, "a", 1, aggregate=Aggregate("counter", Int64Value, evolve, rows))

        assert await store.read_stream(stream("a")) == []


async def test_further_rows_share_the_transaction_of_the_events(database: FreshDatabase) -> None:
    async def points(connection: Connection) -> None:
        await connection.copy_rows("points", ["name", "value"], [("a", value) for value in range(1000)])

    async def points_then_fail(connection: Connection) -> None:
        await points(connection)
        raise Aborted("no")

    async with counter_store(database) as store:
        command_id = uuid4()
        for _ in range(2):
            await _add_within(store, command_id, points)
        with pytest.raises(Aborted):
            await _add_within(store, uuid4(), points_then_fail)

        assert await store.database.fetchval("SELECT count(*) FROM points") == 1000
        assert len(await store.read_stream(stream("a"))) == 1


async def _add_within(store: PostgresEventStore, command_id: UUID, within: Within) -> None:
    await store.execute(
        COUNTER,
        stream("a"),
        context=context(command_id),
        request=StringValue(value="points"),
        decide=lambda _: [Int64Value(value=1)],
        respond=lambda state: state,
        within=within,
    )


async def test_writers_of_other_processes_collide_and_retry(database: FreshDatabase) -> None:
    await prepare(database)
    async with pooled(database) as one, pooled(database) as other:
        stores = [PostgresEventStore(each, SOURCE, TYPES) for each in (one, other)]
        done = 0
        for _ in range(10):
            results = await asyncio.gather(*(add(each, "hot", 1) for each in stores), return_exceptions=True)
            assert all(isinstance(each, str | Aborted) for each in results)
            done += sum(isinstance(each, str) for each in results)

        loaded = await stores[0].load(COUNTER, stream("hot"))

    assert loaded is not None
    assert (loaded[0].value, loaded[1]) == (done, done)


async def test_a_state_of_another_revision_is_folded_anew(database: FreshDatabase) -> None:
    def doubled(state: Int64Value | None, event: object) -> Int64Value:
        assert isinstance(event, Int64Value)
        return Int64Value(value=(state.value if state else 0) + 2 * event.value)

    newer = Aggregate("counter", Int64Value, doubled, revision=2)
    async with counter_store(database) as store:
        await add(store, "a", 1, 2)

        assert await store.load(newer, stream("a")) == (Int64Value(value=6), 2)
        assert await add(store, "a", 3, aggregate=newer) == "12"


async def test_forgotten_responses_are_answered_from_the_state(database: FreshDatabase) -> None:
    async with counter_store(database) as store:
        command_id = uuid4()
        await add(store, "a", 1, command_id=command_id)
        await add(store, "a", 10)
        assert await store.database.fetchval("SELECT forget_responses('0 days', 100)") == 0
        async with connected(database.migration_dsn) as owner:
            await owner.execute("UPDATE commands SET recorded_at = recorded_at - interval '31 days'")

        assert await store.database.fetchval("SELECT forget_responses('30 days', 100)") == 2
        assert await add(store, "a", 1, command_id=command_id) == "11"
        with pytest.raises(AlreadyExists):
            await add(store, "a", 2, command_id=command_id)


async def test_upkeep_forgets_all_old_responses_in_chunks_and_no_young_one(database: FreshDatabase) -> None:
    async with counter_store(database) as store:
        for each in range(5):
            await add(store, each, 1)
        async with connected(database.migration_dsn) as owner:
            await owner.execute("UPDATE commands SET recorded_at = recorded_at - interval '31 days'")
        young = uuid4()
        await add(store, 0, 4, command_id=young)
        upkeep = Upkeep(store.database, chunk=2)

        forgotten = [await upkeep.step(), await upkeep.step()]

        assert (forgotten, upkeep.forgotten) == ([5, 0], 5)
        kept = "SELECT command_id FROM commands WHERE response IS NOT NULL"
        assert await store.database.fetchval(kept) == young
        assert await store.database.fetchval("SELECT count(*) FROM commands") == 6


async def test_the_keeper_of_the_log_keeps_it_up(database: FreshDatabase) -> None:
    async with counter_store(database) as store:
        await add(store, "a", 1)
        async with connected(database.migration_dsn) as owner:
            await owner.execute("UPDATE commands SET recorded_at = recorded_at - interval '31 days'")
        keeper = LogKeeper(store, MemoryLog())
        keeping = asyncio.create_task(keeper.run())

        async def forgotten() -> bool:
            return keeper.upkeep.forgotten == 1

        try:
            await until(forgotten, within_s=20)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)


async def test_causes_of_an_earlier_release_are_filled_in_and_nothing_else_of_an_event_may_change(
    database: FreshDatabase,
) -> None:
    async with counter_store(database) as store:
        cause = uuid4()
        for index in range(7):
            await store.execute(
                COUNTER,
                stream(index % 2),
                context=replace(context(), causation_id=cause if index % 3 else None),
                request=StringValue(),
                decide=lambda _: [Int64Value(value=1)],
                respond=lambda state: state,
            )
        fence = await Leadership(store.database, "log", ttl_s=0).take()
        assert fence is not None
        assert await Sequencer(store.database, SOURCE).step(fence) == 7
        expected, log = await store.effects_of([cause]), await whole_log(store)
        async with connected(database.migration_dsn) as owner:
            await owner.execute("UPDATE events SET causation_id = NULL")
            await owner.execute("UPDATE causes_filled SET until = 7")
        assert (await store.effects_of([cause]), await filling(store.database)) == ([], True)

        upkeep = Upkeep(store.database)
        assert await fill(store.database, chunk=2) == 2
        assert await store.effects_of([cause]) == expected[:1]
        assert (await upkeep.fill(), await upkeep.fill(), upkeep.looked_at) == (5, 0, 5)

        assert (await store.effects_of([cause]), await filling(store.database)) == (expected, False)
        assert await whole_log(store) == log
        assert len(expected) == 4
        refill = "SELECT fill_causes($1, $2)"
        assert await store.database.fetchval(refill, [expected[0].local_id], [uuid4()]) == 0
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await store.database.execute("UPDATE events SET causation_id = NULL")


async def test_errors_of_the_database_are_the_kits(database: FreshDatabase) -> None:
    await prepare(database)
    async with pooled(database) as pool:
        await pool.execute("INSERT INTO counters (name, total) VALUES ('a', 1)")
        with pytest.raises(UniqueViolation) as taken:
            await pool.execute("INSERT INTO counters (name, total) VALUES ('a', 1)")
        assert taken.value.constraint == "counters_pkey"
        async with pool.acquire() as connection:
            await connection.execute("SET statement_timeout = 20")
            with pytest.raises(DeadlineExceeded):
                await connection.execute("SELECT pg_sleep(5)")
    with pytest.raises(ConnectionLost):
        await create_pool("postgresql://a:b@127.0.0.1:1/none")


async def test_a_server_killed_under_load_loses_and_doubles_nothing(
    database: FreshDatabase, infrastructure: Infrastructure
) -> None:
    acknowledged = 0

    async with counter_store(database) as store:

        async def writer(name: int) -> None:
            nonlocal acknowledged
            for _ in range(150):
                await add(store, name, 1)
                acknowledged += 1

        writers = [asyncio.create_task(writer(name)) for name in range(8)]

        async def busy() -> bool:
            return acknowledged > 100

        await until(busy)
        killed = infrastructure.kill("postgres")
        await asyncio.gather(*writers)
        await asyncio.to_thread(infrastructure.wait_ready, "postgres", other_than=killed)
        totals = [await store.load(COUNTER, stream(name)) for name in range(8)]

    assert [each and (each[0].value, each[1]) for each in totals] == [(150, 150)] * 8
    assert store.unknown_outcomes > 0
