"""Read models made anew on real PostgreSQL: the same bytes, whatever is appended meanwhile, and whoever is killed."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import Int64Value

from headrace_kit.errors import FailedPrecondition, Unavailable
from headrace_kit.eventstore import PostgresEventStore, Row
from headrace_kit.postgres import connected
from headrace_kit.rebuild import Comparison, Progress, Rebuild, Report
from headrace_kit.rebuild import rebuilding as rebuilding_module
from headrace_kit.rebuild import streams as streams_module
from headrace_local.testing import FreshDatabase
from tests.support.counters import add, stream
from tests.support.kit import counter_store, until
from tests.support.rebuilder import KEPT

TABLES = ("streams", "counters")


@pytest.fixture
async def store(database: FreshDatabase) -> AsyncIterator[PostgresEventStore]:
    async with counter_store(database) as found:
        yield found


async def some_history(store: PostgresEventStore, *, seed: int, commands: int = 60) -> None:
    chance = random.Random(seed)
    for _ in range(commands):
        numbers = [chance.randrange(-3, 4) for _ in range(chance.randrange(1, 5))]
        await add(store, chance.randrange(20), *numbers, aggregate=KEPT)


async def dumps(store: PostgresEventStore) -> dict[str, tuple[int, bytes]]:
    return {table: await (await Comparison.of(store.database, table)).digest(store.database) for table in TABLES}


async def rebuild(store: PostgresEventStore, *, check: bool = False) -> Report:
    return await Rebuild(store, [KEPT]).run(check=check)


def differing(report: Report) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(each.table, each.key, each.columns) for table in report.tables for each in table.differences]


@pytest.mark.parametrize("seed", [1, 2])
async def test_what_is_rebuilt_is_what_the_appends_left(
    store: PostgresEventStore, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams_module, "PAGE", 7)  # streams are cut by pages and written in many batches
    monkeypatch.setattr(streams_module, "SLICE", 3)
    monkeypatch.setattr(streams_module, "BATCH", 4)
    await some_history(store, seed=seed)
    before = await dumps(store)

    report = await rebuild(store)

    assert (differing(report), report.swapped) == ([], True)
    assert await dumps(store) == before == {each.table: (each.rows, each.sha256) for each in report.tables}


async def test_the_swapped_tables_have_the_shape_of_those_before(store: PostgresEventStore) -> None:
    shape = """
        SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
            WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT table_name || ' ' || column_name || ' ' || data_type || is_nullable
            || coalesce(column_default, '') FROM information_schema.columns WHERE table_schema = 'public'
        UNION ALL SELECT relname || ' ' || coalesce(reloptions::text, '') || coalesce(obj_description(oid), '')
            || (SELECT string_agg(each::text, ',' ORDER BY each::text) FROM unnest(relacl) each) FROM pg_class
            WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
        ORDER BY 1
    """
    await some_history(store, seed=3)
    before = [row[0] for row in await store.database.fetch(shape)]

    await rebuild(store)

    assert [row[0] for row in await store.database.fetch(shape)] == before
    assert (
        await store.database.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname IN ('rebuild', 'replaced')") == 0
    )


async def test_appends_during_a_rebuild_are_in_it(store: PostgresEventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_module, "PAGE", 5)
    await some_history(store, seed=4)
    expected: dict[int, int] = {}
    stop = asyncio.Event()

    async def writer(first: int) -> None:
        for number in range(1, 100_000):
            if stop.is_set():
                return
            name = first + 10 * (number % 5)
            total = await add(store, name, number, aggregate=KEPT)
            expected[name] = int(total)
            seen = await store.database.fetchval("SELECT total FROM counters WHERE name = $1", stream(name))
            assert seen == (expected[name] or None)  # whoever wrote reads what it wrote

    writers = [asyncio.create_task(writer(first)) for first in range(4)]
    for _ in range(5):
        assert differing(await rebuild(store)) == []
    stop.set()
    await asyncio.gather(*writers)

    rows = {row["name"]: row["total"] for row in await store.database.fetch("SELECT name, total FROM counters")}
    assert {name: rows.get(stream(name), 0) for name in expected} == expected
    assert differing(await rebuild(store, check=True)) == []


async def test_an_append_that_commits_late_is_not_missed(store: PostgresEventStore, database: FreshDatabase) -> None:
    await some_history(store, seed=5)
    async with connected(database.service_dsn) as late:
        async with late.transaction():
            # Its local_id is lower than those that follow, and it commits when they were folded.
            await late.execute(
                "INSERT INTO events (stream_id, version, event_id, type, occurred_at, hlc, meta, data)"
                " VALUES ($1, 1, gen_random_uuid(), 'google.protobuf.Int64Value', now(), 7, '', $2)",
                stream("late"),
                Int64Value(value=5).SerializeToString(),
            )
            await some_history(store, seed=6)
            folded = asyncio.Event()
            running = asyncio.create_task(
                Rebuild(store, [KEPT]).run(check=False, tell=lambda at: folded.set() if at.phase.value > 1 else None)
            )
            await folded.wait()
        await running

    found = await store.database.fetchrow("SELECT total FROM counters WHERE name = $1", stream("late"))
    assert found is not None
    assert found["total"] == 5


async def test_a_check_names_what_was_altered_and_a_rebuild_mends_it(store: PostgresEventStore) -> None:
    for name, total in (("a", 1), ("b", 2), ("c", 3)):
        await add(store, name, total, aggregate=KEPT)
    good = await dumps(store)
    database = store.database
    await database.execute("UPDATE counters SET total = 9, note = 'x' WHERE name = $1", stream("b"))
    await database.execute("DELETE FROM counters WHERE name = $1", stream("c"))
    await database.execute("INSERT INTO counters (name, total) VALUES ('z', 0)")
    bad = await dumps(store)

    checked = await rebuild(store, check=True)

    assert await dumps(store) == bad
    assert differing(checked)[0] == ("counters", '{"name": "projects/p/counters/b"}', ("total", "note"))
    sides = [(each.live, each.rebuilt) for table in checked.tables for each in table.differences]
    assert sides == [(True, True), (False, True), (True, False)]

    assert differing(await rebuild(store)) == differing(checked)
    assert await dumps(store) == good
    assert differing(await rebuild(store, check=True)) == []


async def test_a_rebuild_that_is_stopped_changes_nothing_and_the_next_one_goes_through(
    store: PostgresEventStore,
) -> None:
    await some_history(store, seed=7)
    await store.database.execute("UPDATE counters SET total = 0")
    before, begun = await dumps(store), asyncio.Event()

    def stop_there(_: Progress) -> None:
        begun.set()

    task = asyncio.create_task(Rebuild(store, [KEPT]).run(check=False, tell=stop_there))
    await begun.wait()
    with pytest.raises(FailedPrecondition, match="another rebuild"):
        await rebuild(store)
    task.cancel()
    await asyncio.wait({task})

    assert await dumps(store) == before
    assert (await rebuild(store)).swapped


@pytest.mark.parametrize("unlock", ["SELECT 1 / ($1::bigint - $1)", "SELECT $1::bigint IS NULL"])
async def test_a_lock_that_can_not_be_let_go_ends_with_its_session(
    store: PostgresEventStore, monkeypatch: pytest.MonkeyPatch, unlock: str
) -> None:
    await some_history(store, seed=11)
    monkeypatch.setattr(rebuilding_module, "_UNLOCK", unlock)

    assert (await rebuild(store)).swapped

    await until(lambda: unlocked(store))


async def test_a_lock_ends_with_its_session_when_its_holder_is_stopped_while_letting_go(
    store: PostgresEventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await some_history(store, seed=12)
    monkeypatch.setattr(rebuilding_module, "_UNLOCK", "SELECT $1::bigint IS NULL FROM pg_sleep(3)")
    task = asyncio.create_task(rebuild(store))

    async def letting_go() -> bool:
        sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
        return bool(await store.database.fetchval(sql))

    await until(letting_go)
    task.cancel()
    await asyncio.wait({task})

    assert task.cancelled()
    await until(lambda: unlocked(store))
    monkeypatch.undo()
    assert (await rebuild(store)).swapped


async def unlocked(store: PostgresEventStore) -> bool:
    """Whether no session of this database holds an advisory lock."""
    sql = (
        "SELECT NOT EXISTS (SELECT FROM pg_locks JOIN pg_database d ON d.oid = database"
        " WHERE locktype = 'advisory' AND datname = current_database())"
    )
    return bool(await store.database.fetchval(sql))


async def test_events_this_code_does_not_know_stop_a_rebuild(store: PostgresEventStore) -> None:
    await add(store, "a", 1, aggregate=KEPT)
    await store.database.execute(
        "INSERT INTO events (stream_id, version, event_id, type, occurred_at, hlc, meta, data)"
        " VALUES ($1, 2, gen_random_uuid(), 'headrace.later.v1.Thing', now(), 7, '', '')",
        stream("a"),
    )
    with pytest.raises(FailedPrecondition, match=r"headrace\.later\.v1\.Thing"):
        await rebuild(store)


def doubled_rows(stream_id: str, state: Int64Value, _events: Sequence[Message]) -> Sequence[Row]:
    return [Row("counters", {"name": stream_id}, {"total": 2 * state.value, "note": "doubled"})]


async def test_older_code_may_not_append_once_newer_code_has_rebuilt(store: PostgresEventStore) -> None:
    newer = replace(KEPT, rows=doubled_rows, revision=2)
    await add(store, "a", 1, aggregate=KEPT)

    await Rebuild(store, [newer]).run(check=False)

    with pytest.raises(Unavailable, match="newer process"):
        await add(store, "a", 1, aggregate=KEPT)
    with pytest.raises(FailedPrecondition, match="older"):
        await rebuild(store)
    assert await add(store, "a", 2, aggregate=newer) == "3"
    row = await store.database.fetchrow("SELECT total, note FROM counters")
    assert row is not None
    assert tuple(row) == (6, "doubled")


async def test_tables_the_role_may_not_delete_from_are_never_replaced(store: PostgresEventStore) -> None:
    for call in ("begin_rebuild", "swap_rebuilt"):
        for table in ("events", "log_entries", "commands", "schema_migrations"):
            with pytest.raises(Exception, match="may not be"):
                await store.database.execute(f"SELECT {call}($1)", [table])


async def test_readers_never_see_an_empty_or_half_table(store: PostgresEventStore) -> None:
    await some_history(store, seed=8)
    count = await store.database.fetchval("SELECT count(*) FROM counters c JOIN streams s ON s.stream_id = c.name")
    stop, reads = asyncio.Event(), 0

    async def reader() -> None:
        nonlocal reads
        while not stop.is_set():
            sql = "SELECT count(*) FROM counters c JOIN streams s ON s.stream_id = c.name"
            assert await store.database.fetchval(sql) == count
            reads += 1

    readers = [asyncio.create_task(reader()) for _ in range(4)]
    for _ in range(5):
        await rebuild(store)
    await until(lambda: _true(reads > 50))
    stop.set()
    await asyncio.gather(*readers)


@pytest.mark.parametrize("mode", ["ACCESS SHARE", "SHARE UPDATE EXCLUSIVE"])  # a long read, and a vacuum
async def test_who_is_in_a_table_is_waited_for_and_appends_go_on(
    store: PostgresEventStore, database: FreshDatabase, mode: str
) -> None:
    await some_history(store, seed=10)
    swapping = asyncio.Event()
    async with connected(database.migration_dsn) as other:
        async with other.transaction():
            await other.execute(f"LOCK TABLE counters IN {mode} MODE")
            task = asyncio.create_task(
                Rebuild(store, [KEPT]).run(check=False, tell=lambda at: swapping.set() if at.phase.value == 4 else None)
            )
            await swapping.wait()
            for _ in range(20):
                await add(store, "during", 1, aggregate=KEPT)
            assert not task.done()
        await task

    assert differing(await rebuild(store, check=True)) == []
    assert await store.database.fetchval("SELECT total FROM counters WHERE name = $1", stream("during")) == 20


async def test_tables_of_before_are_dropped_one_by_one(store: PostgresEventStore, database: FreshDatabase) -> None:
    async def left() -> list[str]:
        rows = await store.database.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'replaced' ORDER BY 1")
        return [row["tablename"] for row in rows]

    async def waits() -> bool:
        sql = "SELECT count(*) FROM pg_locks JOIN pg_class c ON c.oid = relation WHERE NOT granted AND relname = 'b'"
        return bool(await store.database.fetchval(sql))

    async with connected(database.migration_dsn) as reader:
        await reader.execute("CREATE TABLE replaced.a (); CREATE TABLE replaced.b (); CREATE TABLE replaced.c ()")
        async with reader.transaction():
            await reader.execute("LOCK TABLE replaced.b IN ACCESS SHARE MODE")  # as a plan of before the swap does
            task = asyncio.create_task(rebuild(store))
            await until(waits)
            assert await left() == ["b", "c"]  # who waits for one holds no other, which a reader may come to
            await reader.execute("LOCK TABLE replaced.c IN ACCESS SHARE MODE")
    assert (await task).swapped
    assert await left() == []


async def _true(value: bool) -> bool:
    return value


@pytest.mark.parametrize("phase", ["FOLDING 0", "FOLDING 100", "COMPARING", "SWAPPING"])
async def test_a_rebuild_that_is_killed_leaves_the_live_tables_or_has_swapped_them(
    store: PostgresEventStore, database: FreshDatabase, phase: str
) -> None:
    await some_history(store, seed=9, commands=150)
    good = await dumps(store)
    await store.database.execute("UPDATE counters SET total = 1000 + total")
    bad = await dumps(store)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.rebuilder", database.service_dsn, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async for line in process.stdout:
        if line.decode().startswith(phase):
            break
    process.kill()
    await process.wait()

    left = await dumps(store)

    assert left == bad or (phase == "SWAPPING" and left == good)
    await until(lambda: free_again(store))
    assert await dumps(store) == good


async def free_again(store: PostgresEventStore) -> bool:
    """Rebuilds, once the server has noticed that the other one is gone."""
    try:
        await rebuild(store)
    except FailedPrecondition:
        return False
    return True
