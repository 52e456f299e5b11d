"""Runs that go on with the history of another, and groups of runs, on real PostgreSQL."""

from __future__ import annotations

import math

from headrace_tracking.census import Asked, Census
from headrace_tracking.filters import Subject, parse_filter
from headrace_tracking.store import RUN
from tests.support.tracking import Tracking


async def points(tracking: Tracking, run: str, key: str = "loss") -> list[tuple[int, float]]:
    series = await tracking.runs.series(run, key)
    return list(zip(series.steps, series.values, strict=True))


async def line(tracking: Tracking) -> tuple[str, str, str]:
    """A run of steps 0 to 9; a fork of it at 4, of steps 5 to 7; a fork of that at 5 with a point of its own."""
    first = await tracking.start(1)
    await tracking.log(first, *(("loss", 10.0 - step, step) for step in range(10)), ("lost", math.nan, 2))
    second = await tracking.start(2, fork_from=first, at_step=4)
    await tracking.log(second, *(("loss", 100.0 + step, step) for step in range(5, 8)))
    third = await tracking.start(3, fork_from=second, at_step=5)
    await tracking.log(third, ("loss", 0.5, 6))
    return first, second, third


async def test_the_history_up_to_the_step_is_seen_as_its_own(tracking: Tracking) -> None:
    first, second, third = await line(tracking)
    begun = [(step, 10.0 - step) for step in range(5)]
    assert await points(tracking, second) == [*begun, (5, 105.0), (6, 106.0), (7, 107.0)]
    assert await points(tracking, third) == [*begun, (5, 105.0), (6, 0.5)]
    assert len(await points(tracking, first)) == 10
    stored = await tracking.database.fetchval("SELECT count(*) FROM metric_points")
    assert stored == 11 + 3 + 1


async def test_its_summaries_are_those_of_history_and_own_points(tracking: Tracking) -> None:
    runs = await line(tracking)
    for run in runs:
        await tracking.writer.seal(run)
    loaded = [await tracking.store.load(RUN, run) for run in runs]
    states = [each[0] for each in loaded if each is not None]
    told = [(each.metrics["loss"].count, each.metrics["loss"].min, each.metrics["loss"].max) for each in states]
    assert told == [(10, 1.0, 10.0), (8, 6.0, 107.0), (7, 0.5, 105.0)]
    assert [each.metrics["loss"].last for each in states] == [1.0, 107.0, 0.5]
    assert [each.metrics["lost"].count for each in states] == [1, 1, 1]
    assert states[2].metrics["lost"].min == math.inf
    assert await tracking.search("metric.loss > 100") == ["run 2"]
    assert await tracking.search("metric.loss.max > 100", "metric.loss asc") == ["run 3", "run 2"]


async def test_searches_and_charts_read_the_line(tracking: Tracking) -> None:
    first, second, third = await line(tracking)
    assert await tracking.search("metric.loss.at.3 = 7", "start_time asc") == ["run 1", "run 2", "run 3"]
    assert await tracking.search("metric.loss.at.6 = 0.5") == ["run 3"]
    assert await tracking.search("metric.loss.at.7 is null") == ["run 3"]
    assert await tracking.search(f'forked_from = "{first.rpartition("/")[2]}"') == ["run 2"]
    histories = Census(tracking.database).histories([first, second, third], "loss", max_points=100)
    lengths = {run: len(series.values) async for run, series, _ in histories}
    assert lengths == {first: 10, second: 8, third: 7}


async def test_a_fork_at_a_step_before_every_point_begins_empty(tracking: Tracking) -> None:
    first = await tracking.start(1)
    await tracking.log(first, ("loss", 1.0, 5))
    second = await tracking.start(2, fork_from=first, at_step=4)
    assert await points(tracking, second) == []
    loaded = await tracking.store.load(RUN, second)
    assert loaded is not None
    assert not loaded[0].metrics


async def test_runs_are_found_and_summed_up_by_group(tracking: Tracking) -> None:
    for number in range(6):
        run = await tracking.start(number, group=f"fold-{number % 2}" if number < 5 else "")
        await tracking.log(run, ("loss", float(number), 0))
    assert await tracking.search('group = "fold-1"', "metric.loss asc") == ["run 1", "run 3"]
    assert await tracking.search("group is null") == ["run 5"]
    groups = await Census(tracking.database).groups(
        Asked("default", [], parse_filter("")), Subject("attribute", "group"), [Subject("metric", "loss", "last")]
    )
    assert [(each.value, each.runs, each.stats[0][1]) for each in groups] == [
        ("fold-0", 3, 2.0),
        ("fold-1", 2, 2.0),
        (None, 1, 5.0),
    ]
