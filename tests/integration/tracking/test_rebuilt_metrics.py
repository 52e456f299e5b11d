"""Summaries of metrics are ahead of the log for a second: a rebuild neither forgets them nor calls them wrong."""

from __future__ import annotations

import pytest

from headrace_kit.rebuild import Rebuild, Report
from headrace_tracking.store import EXPERIMENT, LOGGED_MODEL, RUN
from tests.support.tracking import Tracking


async def rebuilt(tracking: Tracking, *, check: bool) -> Report:
    return await Rebuild(tracking.store, [EXPERIMENT, RUN, LOGGED_MODEL]).run(check=check)


async def summary(tracking: Tracking, run: str) -> tuple[int, float]:
    row = await tracking.database.fetchrow("SELECT count, last FROM run_metrics WHERE run = $1 AND key = 'loss'", run)
    assert row is not None
    return row["count"], row["last"]


@pytest.mark.parametrize("events_before", [False, True])
async def test_points_that_no_event_speaks_of_yet_outlive_a_rebuild(tracking: Tracking, events_before: bool) -> None:
    run, other = await tracking.start(), await tracking.start()
    await tracking.log(other, ("loss", 9.0, 0))
    await tracking.writer.seal(other)
    if events_before:
        await tracking.log(run, ("loss", 3.0, 0))
        await tracking.writer.seal(run)
    # Nobody is in a hurry to seal it.
    tracking = Tracking(tracking.database, seal_s=3600)
    await tracking.log(run, ("loss", 2.0, 1), ("loss", 1.0, 2))
    told = await summary(tracking, run)
    reports = [await rebuilt(tracking, check=check) for check in (True, False)]
    assert set(await tracking.points.unsealed()) == {run}
    assert await summary(tracking, run) == told == (3 if events_before else 2, 1.0)

    await tracking.writer.seal(run)
    reports.append(await rebuilt(tracking, check=True))

    assert await summary(tracking, run) == told
    assert [each.differences for report in reports for each in report.tables] == [()] * 9 * 3


async def test_a_summary_that_is_wrong_is_found_once_it_is_sealed(tracking: Tracking) -> None:
    run = await tracking.start()
    await tracking.log(run, ("loss", 2.0, 1))
    await tracking.writer.seal(run)
    await tracking.database.execute("UPDATE run_metrics SET count = 7 WHERE run = $1", run)

    report = await rebuilt(tracking, check=False)

    assert [(each.table, each.columns) for table in report.tables for each in table.differences] == [
        ("run_metrics", ("count",))
    ]
    assert await summary(tracking, run) == (1, 2.0)
