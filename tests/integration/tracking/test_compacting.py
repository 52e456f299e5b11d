"""Chunks of points that are put together: the same points, fewer rows, whatever happens meanwhile."""

import asyncio

from headrace_kit.postgres import connected
from headrace_local.testing import FreshDatabase
from headrace_tracking.compacting import BATCHES
from headrace_tracking.pointstore import FULL
from tests.support.points import digest_of, points_of
from tests.support.tracking import Tracking, recorded

KEYS = ("loss", "accuracy")
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def log_steps(tracking: Tracking, run: str, steps: range) -> None:
    """A call a step, each a batch of its own."""
    for step in steps:
        await tracking.log(run, *((key, float(step), step) for key in KEYS))


async def chunks(tracking: Tracking, run: str) -> list[int]:
    """Sizes of the chunks of one metric, the smallest first."""
    rows = await tracking.database.fetch(
        "SELECT count FROM metric_chunks WHERE run = $1 AND key = 'loss' ORDER BY 1", run
    )
    return [row["count"] for row in rows]


async def assert_evidence_holds(tracking: Tracking, run: str) -> None:
    found = await recorded(tracking, run)
    for event in found:
        points = points_of(await tracking.points.points(run, event.first_batch, event.last_batch))
        assert (event.count, event.sha256) == (len(points), digest_of(points))


async def test_points_put_together_are_the_same_points(tracking: Tracking) -> None:
    run = await tracking.start()
    await log_steps(tracking, run, range(10))
    await tracking.writer.seal(run)
    await tracking.log(run, *(("loss", float(step), step) for step in range(10, 10 + FULL)))
    await log_steps(tracking, run, range(10 + FULL, 30 + FULL))
    await tracking.writer.seal(run)
    before = await tracking.runs.series(run, "loss")
    assert len(await chunks(tracking, run)) == 31

    await tracking.points.compact(run, least=2)

    assert await chunks(tracking, run) == [30, FULL]
    assert await tracking.runs.series(run, "loss") == before
    assert before.steps == list(range(30 + FULL))
    await assert_evidence_holds(tracking, run)
    assert await tracking.search("metric.loss.at.5 = 5 and metric.accuracy.at.1050 = 1050") == ["run 0"]
    assert await tracking.search("metric.loss.at.5 = 6") == []


async def test_a_metric_of_few_chunks_is_left_as_it_is(tracking: Tracking) -> None:
    run = await tracking.start()
    await log_steps(tracking, run, range(5))

    assert await tracking.points.compact(run, least=6) == 0

    assert await chunks(tracking, run) == [1] * 5


async def test_many_batches_are_put_together_while_the_run_goes_on(tracking: Tracking) -> None:
    run = await tracking.start()
    await log_steps(tracking, run, range(BATCHES))
    await tracking.writer.seal(run)
    assert await chunks(tracking, run) == [BATCHES]

    await log_steps(tracking, run, range(BATCHES, BATCHES + 3))
    await tracking.writer.seal(run)

    assert await chunks(tracking, run) == [1, 1, 1, BATCHES]
    await assert_evidence_holds(tracking, run)


async def test_the_last_are_put_together_when_the_run_is_over(tracking: Tracking) -> None:
    run = await tracking.start()
    await log_steps(tracking, run, range(3))
    await tracking.writer.seal(run)

    tracking.writer.over(run)

    while await chunks(tracking, run) != [3]:
        await asyncio.sleep(0.05)


async def test_readers_and_a_second_compaction_see_every_point_once(tracking: Tracking) -> None:
    run = await tracking.start()
    await log_steps(tracking, run, range(100))
    compactions = asyncio.gather(*(tracking.points.compact(run, least=2) for _ in range(4)))
    while not compactions.done():
        assert (await tracking.runs.series(run, "loss")).steps == list(range(100))
    await compactions
    assert await chunks(tracking, run) == [100]


async def test_a_run_that_is_purged_meanwhile_leaves_no_points(tracking: Tracking, database: FreshDatabase) -> None:
    run = await tracking.start()
    await log_steps(tracking, run, range(20))

    async with connected(database.service_dsn) as purging, purging.transaction():
        await purging.execute("SELECT FROM runs WHERE name = $1 FOR UPDATE", run)
        compaction = asyncio.create_task(tracking.points.compact(run, least=2))
        while not await purging.fetchval(WAITING):
            await asyncio.sleep(0.01)
        await purging.execute("DELETE FROM metric_chunks WHERE run = $1", run)
        await purging.execute("DELETE FROM runs WHERE name = $1", run)
    assert await compaction == 0

    assert await chunks(tracking, run) == []
