"""Searches of runs on real PostgreSQL: steps, code, parents, and pages that stay right while runs are added."""

import math
import random
from typing import cast

import pytest

from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.resources_pb2 import CodeVersion
from headrace_kit.errors import InvalidArgument
from headrace_kit.objects import ObjectStore
from headrace_tracking.census import Census
from headrace_tracking.claims import Claims
from headrace_tracking.outputs import OutputStore
from headrace_tracking.purging import Purger
from headrace_tracking.rpc import TrackingServicer
from headrace_tracking.tracedeleting import TraceDeleter
from headrace_tracking.tracestore import TraceStore
from tests.support.tracking import Tracking

VALUES = (3.0, 1.0, math.nan, None, 2.0, math.inf, 1.0, None, -math.inf, 2.0, 0.5)


async def test_a_metric_at_a_step_is_the_last_of_that_step(tracking: Tracking) -> None:
    for number in range(3):
        run = await tracking.start(number)
        await tracking.log(run, ("loss", 1.0, 100), ("loss", 0.1 * number, 200))
        await tracking.log(run, ("loss", float(number), 100))
    await tracking.log(await tracking.start(3), ("loss", 0.0, 99))
    assert await tracking.search("metric.loss.at.100 < 2", "metric.loss.at.100") == ["run 0", "run 1"]
    assert await tracking.search("metric.loss.at.200 >= 0.1", "metric.loss.at.200 desc") == ["run 2", "run 1"]
    assert await tracking.search("metric.loss.at.100 is null") == ["run 3"]
    assert await tracking.search("", "metric.loss.at.99, metric.loss.at.100 desc") == [
        "run 3",
        "run 2",
        "run 1",
        "run 0",
    ]


async def test_code_and_parents(tracking: Tracking) -> None:
    parent = await tracking.start(0, code=CodeVersion(commit="3fa9", dirty=True))
    await tracking.start(1, parent=parent, code=CodeVersion(commit="3fb1"))
    await tracking.start(2)
    assert await tracking.search('code.commit like "3f%"', "start_time") == ["run 0", "run 1"]
    assert await tracking.search("code.dirty = true") == ["run 0"]
    assert await tracking.search("code.dirty = false and code.commit is not null") == ["run 1"]
    assert await tracking.search(f'parent = "{parent.rpartition("/")[2]}"') == ["run 1"]
    assert await tracking.search("nested = true") == ["run 1"]
    assert await tracking.search("not nested = true", "display_name desc") == ["run 2", "run 0"]
    assert await tracking.search("parent is null", "code.commit, code.dirty") == ["run 0", "run 2"]


async def test_times(tracking: Tracking) -> None:
    for number in range(4):
        await tracking.start(number * 24)
    assert await tracking.search('start_time > "2026-03-02"', "start_time") == ["run 48", "run 72"]
    assert await tracking.search('start_time = "2026-03-02T01:00:00+01:00"') == ["run 24"]
    assert await tracking.search('start_time in ("2026-03-01", 1772496000)', "start_time desc") == ["run 48", "run 0"]
    assert await tracking.search("start_time < 1e300 and end_time is null", "start_time")


@pytest.mark.parametrize(
    "order",
    ["", "metric.a", "metric.a desc", "metric.a, param.kind desc, display_name", "param.kind, metric.a.max desc"],
)
async def test_pages_are_the_whole_list(tracking: Tracking, order: str) -> None:
    await seeded(tracking)
    whole = await tracking.search("", order)
    assert len(whole) == len(VALUES)
    for limit in (1, 4):
        assert await tracking.pages("", order, limit=limit, between=nothing) == whole


@pytest.mark.parametrize("order", ["", "metric.a", "metric.a desc", "param.kind, metric.a"])
async def test_no_run_comes_twice_or_is_left_out_while_runs_are_added(tracking: Tracking, order: str) -> None:
    await seeded(tracking)
    before = await tracking.search("", order)
    chance = random.Random(1)

    async def add() -> None:
        for _ in range(3):
            run = await tracking.start(chance.randint(0, 1000) + 1000, kind=chance.choice("abc"))
            await tracking.log(run, ("a", chance.uniform(-1, 4), 0))

    paged = await tracking.pages("", order, limit=2, between=add)
    assert [each for each in paged if each in before] == before
    assert len(set(paged)) == len(paged)


async def test_a_page_begins_after_a_run_that_changed_since(tracking: Tracking) -> None:
    runs = await seeded(tracking)
    whole = await tracking.search("metric.a is not null", "metric.a")
    first = whole[3]

    async def worsen() -> None:
        await tracking.log(runs[first], ("a", 1e9, 5))

    paged = await tracking.pages("metric.a is not null", "metric.a", limit=4, between=worsen)
    assert paged[:4] == whole[:4]
    assert set(paged) == set(whole)  # the changed one may come again, at its new place


async def test_the_call_pages_and_refuses_tokens_of_other_searches(tracking: Tracking) -> None:
    await seeded(tracking)
    servicer = TrackingServicer(
        tracking.store,
        tracking.runs,
        tracking.points,
        census=Census(tracking.database),
        outputs=OutputStore(tracking.database),
        writer=tracking.writer,
        purger=Purger(tracking.store, cast("ObjectStore", None), Claims(tracking.database, {})),
        traces=TraceStore(tracking.database),
        deleter=TraceDeleter(tracking.store, None),
        objects=cast("ObjectStore", None),
    )
    request = service.SearchRunsRequest(parent="projects/default", order_by="param.kind desc, metric.a", page_size=4)
    names: list[str] = []
    while True:
        answer = await servicer.SearchRuns(request, None)  # type: ignore[arg-type]  # it asks no context
        names += [each.display_name for each in answer.runs]
        request.page_token = answer.next_page_token
        if not request.page_token:
            break
    assert names == await tracking.search("", "param.kind desc, metric.a")
    request.page_token, request.order_by = "AAAA", "metric.a"
    with pytest.raises(InvalidArgument):
        await servicer.SearchRuns(request, None)  # type: ignore[arg-type]  # as above


async def test_long_texts_do_not_outgrow_a_token(tracking: Tracking) -> None:
    for number in range(4):
        text = "\u2028" * 4000 + str(number)
        await tracking.start(number, p0=text, p1=text, p2=text, p3=text, p4=text, p5=text, p6=text, p7=text)
    order = ", ".join(f"param.p{each}" for each in range(8))
    found = await tracking.pages("", order, limit=1, between=nothing)
    assert sorted(found) == [f"run {number}" for number in range(4)]


async def test_what_a_search_shows_has_no_packages_and_all_acknowledged_points(tracking: Tracking) -> None:
    run = await tracking.start()
    async with tracking.sealer.held([run]):
        await tracking.log(run, ("a", 1.0, 0))
        found = await tracking.runs.search("default", experiments=[], condition=None, orders=[], limit=10)
        assert [each.name for each in found.behind] == [run]
        await tracking.points.with_latest_metrics(found.behind)
        assert found.runs[0].metrics["a"].last == 1.0
    await tracking.writer.seal(run)
    found = await tracking.runs.search("default", experiments=[], condition=None, orders=[], limit=10)
    assert (found.behind, found.runs[0].metrics["a"].last) == ([], 1.0)


async def seeded(tracking: Tracking) -> dict[str, str]:
    """Runs by their names for people, with values that are missing, infinite, equal or no numbers."""
    runs: dict[str, str] = {}
    for number, value in enumerate(VALUES):
        run = await tracking.start(number, hours=number // 2, kind="abc"[number % 3])
        if value is not None:
            await tracking.log(run, ("a", value, 0))
        runs[f"run {number}"] = run
    return runs


async def nothing() -> None:
    """Between pages nothing happens."""


PARAMS = ("0.01", "1e-3", "3", "3.0", "10", "abc", "", "null", "true", "[0.9,0.99]", "nan", "1e999", "-inf")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("param.v < 0.1", {"0.01", "1e-3", "-inf"}),
        ("param.v >= 3", {"3", "3.0", "10"}),
        ("param.v = 3", {"3", "3.0"}),
        ("param.v = '3'", {"3"}),
        ("param.v != 3", set(PARAMS) - {"3", "3.0"}),
        ("param.v != '3'", set(PARAMS) - {"3"}),
        ("param.v in (3, 10)", {"3", "3.0", "10"}),
        ("param.v in (3, 'abc')", {"3", "abc"}),
        ("param.v = true", {"true"}),
        ("param.v = 'null'", {"null"}),
        ("param.v = '[0.9,0.99]'", {"[0.9,0.99]"}),
        ("param.v > '3'", {each for each in PARAMS if each > "3"}),
        ("param.v like '1%'", {"1e-3", "10", "1e999"}),
        ("not param.v < 5 and param.v is not null", set(PARAMS) - {"0.01", "1e-3", "3", "3.0", "-inf"}),
    ],
)
async def test_parameters_are_compared_as_what_they_are_compared_with(
    tracking: Tracking, text: str, found: set[str]
) -> None:
    await tracking.start(99)
    for number, value in enumerate(PARAMS):
        await tracking.start(number, v=value)
    names = await tracking.search(text)
    assert {PARAMS[int(name.removeprefix("run "))] for name in names} == found


async def test_runs_are_sorted_by_the_size_of_numbers_and_then_by_text(tracking: Tracking) -> None:
    values = ("10", "9", "1e-3", "b", "a", "-2")
    for number, value in enumerate(values):
        await tracking.start(number, v=value)
    await tracking.start(6)

    async def nothing() -> None:
        return None

    for order, expected in (
        ("param.v asc", ["-2", "1e-3", "9", "10", "a", "b", None]),
        ("param.v desc", ["10", "9", "1e-3", "-2", "b", "a", None]),
    ):
        names = await tracking.search("", order)
        assert [dict(enumerate(values)).get(int(name.removeprefix("run "))) for name in names] == expected
        assert await tracking.pages("", order, limit=2, between=nothing) == names
