"""What tracking acknowledged is there when its process is killed, and its events follow exactly once.

The process is a real one, killed by SIGKILL: between the commit of points and their event, and anywhere else.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time

import pytest

from headrace_kit.eventstore import EventMeta
from headrace_kit.postgres import connected
from headrace_local.testing import FreshDatabase
from headrace_tracking.store import RUN
from tests.support.pointlogger import KEY, command
from tests.support.points import digest_of, points_of
from tests.support.tracking import Tracking, recorded

APART = 1_000_000
"""Numbers of one process; the next one's begin there."""


SLOW_EVENTS = """
CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.03); RETURN NEW; END';
CREATE TRIGGER dawdle BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION dawdle();
"""
"""Most of the time an event is being written: kills meet that."""


def killed_after(
    database: FreshDatabase, run: str, *, first: int, acknowledged: int, seal_s: float, delay_s: float = 0
) -> list[int]:
    """The numbers that a process acknowledged before it was killed."""
    arguments = (database.service_dsn, run, str(first), str(seal_s))
    told: list[int] = []
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.pointlogger", *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            told.append(int(line))
            if len(told) == acknowledged:
                time.sleep(delay_s)
                process.kill()
    assert len(told) >= acknowledged, "the process ended by itself"
    return told


async def stored(tracking: Tracking, run: str) -> list[int]:
    return sorted((await tracking.runs.series(run, KEY)).steps)


async def assert_each_point_has_one_event(tracking: Tracking, run: str) -> None:
    """The events' batches are those of the points, each once, and what events say of them is so."""
    assert await tracking.points.unsealed() == {}
    found = await recorded(tracking, run)
    told: list[int] = []
    for event in found:
        points = points_of(await tracking.points.points(run, event.first_batch, event.last_batch))
        assert (event.count, event.sha256) == (len(points), digest_of(points))
        told += [step for _, step, _, _ in points]
    assert sorted(told) == await stored(tracking, run)
    loaded = await tracking.store.load(RUN, run)
    assert loaded is not None
    assert loaded[0].metrics[KEY].count == len(told)
    summed = await tracking.database.fetchval("SELECT count FROM run_metrics WHERE run = $1 AND key = $2", run, KEY)
    assert summed == len(told)


async def test_points_are_there_when_the_process_died_before_their_event(
    tracking: Tracking, database: FreshDatabase
) -> None:
    run = await tracking.start()

    told = killed_after(database, run, first=0, acknowledged=300, seal_s=3600)

    assert set(told) <= set(await stored(tracking, run))
    assert await recorded(tracking, run) == []
    state = await tracking.store.load(RUN, run)
    assert state is not None
    await tracking.points.with_latest_metrics([state[0]])
    assert state[0].metrics[KEY].count >= len(told)
    await tracking.recover_and_seal()
    await assert_each_point_has_one_event(tracking, run)


async def test_a_process_that_died_while_another_lived_is_made_up_for(
    tracking: Tracking, database: FreshDatabase
) -> None:
    run = await tracking.start()
    await tracking.sealer.recover(sweep_s=0.1)  # before there is anything

    killed_after(database, run, first=0, acknowledged=50, seal_s=3600)

    await tracking.until_sealed()
    await assert_each_point_has_one_event(tracking, run)


@pytest.mark.timeout(180)
async def test_kills_at_any_moment_lose_nothing_and_double_nothing(tracking: Tracking, database: FreshDatabase) -> None:
    run, chance = await tracking.start(), random.Random(7)
    async with connected(database.migration_dsn) as owner:
        await owner.execute(SLOW_EVENTS)
    told: list[int] = []
    for life in range(5):
        count, delay_s = chance.randrange(1, 100), chance.uniform(0, 0.05)
        told += killed_after(database, run, first=life * APART, acknowledged=count, seal_s=0.001, delay_s=delay_s)

    for number in told[-20:]:  # a client that did not hear the answer asks again
        assert await tracking.writer.write(command(run, number)) == 1
    await tracking.sealer.recover(sweep_s=0.1)
    await tracking.until_sealed()

    there = await stored(tracking, run)
    assert len(there) == len(set(there))
    assert set(told) <= set(there)
    await assert_each_point_has_one_event(tracking, run)
    assert len(await recorded(tracking, run)) > 5


async def test_the_event_says_by_which_call_its_points_came(tracking: Tracking) -> None:
    run = await tracking.start()
    await tracking.writer.write(command(run, 1))
    await tracking.writer.seal(run)
    meta = EventMeta.decode((await tracking.store.read_stream(run))[-1].meta)
    assert (meta.actor, meta.method) == ("persons/ada", "/logs/points")


async def test_an_event_is_about_nothing_that_another_one_was_about(tracking: Tracking) -> None:
    """A commit whose answer was lost may come through after later ones had their event."""
    run, other = await tracking.start(), Tracking(tracking.database)
    for number in range(3):
        await tracking.writer.write(command(run, number))
    middle = (await tracking.points.tails(run))[1]
    await tracking.database.execute("DELETE FROM metric_tails WHERE run = $1 AND batch = $2", run, middle.batch)

    await other.sealer.seal(run)

    assert [each.count for each in await recorded(tracking, run)] == [1, 1]
    assert {each.first_batch for each in await recorded(tracking, run)}.isdisjoint({middle.batch})


async def test_a_run_that_was_read_just_before_its_event_has_the_latest_metrics(tracking: Tracking) -> None:
    run = await tracking.start()
    await tracking.writer.write(command(run, 1))
    loaded = await tracking.store.load(RUN, run)
    assert loaded is not None
    await tracking.writer.seal(run)

    await tracking.points.with_latest_metrics([loaded[0]])

    assert loaded[0].metrics[KEY].last == 1.0
