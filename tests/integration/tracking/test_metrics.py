"""Metric points on real PostgreSQL: groups, repeats, searches."""

import asyncio
import time
from uuid import uuid4

import pytest

from headrace.api.tracking.v1 import events_pb2 as events
from headrace.api.tracking.v1 import service_pb2 as service
from headrace_kit.errors import AlreadyExists, FailedPrecondition, NotFound
from headrace_tracking import domain
from headrace_tracking.metrics import MetricWriter
from headrace_tracking.pointstore import PointStore
from headrace_tracking.sealing import Sealer
from headrace_tracking.store import RUN
from tests.support.points import digest_of, points_of
from tests.support.tracking import Tracking, context, recorded


async def test_concurrent_calls_share_groups_and_lose_nothing(tracking: Tracking) -> None:
    run = await tracking.start()
    counts = await asyncio.gather(*(tracking.log(run, ("loss", float(step), step)) for step in range(200)))
    assert sum(counts) == 200
    series = await tracking.runs.series(run, "loss")
    assert series.steps == list(range(200))
    await tracking.writer.seal(run)
    stored = await tracking.store.read_stream(run)
    groups = [each.message for each in stored if isinstance(each.message, events.MetricsRecorded)]
    assert sum(each.count for each in groups) == 200
    assert len(groups) == 1
    loaded = await tracking.store.load(RUN, run)
    assert loaded is not None
    summary = loaded[0].metrics["loss"]
    assert (summary.count, summary.min, summary.max, summary.last) == (200, 0.0, 199.0, 199.0)


async def test_points_match_the_digest_of_their_event(tracking: Tracking) -> None:
    run = await tracking.start()
    await tracking.log(run, ("loss", 1.0, 0), ("loss", float("nan"), 1), ("acc", float("-inf"), 1))
    await tracking.log(run, ("loss", 2.0, 2))
    await tracking.writer.seal(run)
    [event] = [
        each.message
        for each in await tracking.store.read_stream(run)
        if isinstance(each.message, events.MetricsRecorded)
    ]
    points = points_of(await tracking.points.points(run, event.first_batch, event.last_batch))
    assert [(key, step) for key, step, _, _ in points] == [("loss", 0), ("loss", 1), ("acc", 1), ("loss", 2)]
    assert digest_of(points) == event.sha256


async def test_a_repeated_command_is_stored_once(tracking: Tracking) -> None:
    run, command_id = await tracking.start(), uuid4()
    counts = await asyncio.gather(*(tracking.log(run, ("loss", 1.0, 0), command_id=command_id) for _ in range(5)))
    counts.append(await tracking.log(run, ("loss", 1.0, 0), command_id=command_id))
    assert counts == [1] * 6
    assert (await tracking.runs.series(run, "loss")).values == [1.0]


async def test_a_command_id_is_good_for_one_request(tracking: Tracking) -> None:
    run, command_id = await tracking.start(), uuid4()
    await tracking.log(run, ("loss", 1.0, 0), command_id=command_id)
    with pytest.raises(AlreadyExists):
        await tracking.log(run, ("loss", 2.0, 0), command_id=command_id)
    assert (await tracking.runs.series(run, "loss")).values == [1.0]


async def test_points_of_an_unknown_run_are_refused(tracking: Tracking) -> None:
    with pytest.raises(NotFound):
        await tracking.log(f"projects/default/runs/{uuid4()}", ("loss", 1.0, 0))
    assert await tracking.database.fetchval("SELECT count(*) FROM metric_chunks") == 0


async def test_searches_by_metric_parameter_and_time(tracking: Tracking) -> None:
    for number, (rmse, kind) in enumerate([(30.0, "tree"), (20.0, "forest"), (10.0, "tree"), (float("nan"), "tree")]):
        run = await tracking.start(number, model=kind)
        await tracking.log(run, ("rmse", rmse + 5, 0), ("rmse", rmse, 1))
    assert await tracking.search("metric.rmse < 25") == ["run 2", "run 1"]
    assert await tracking.search("metric.rmse.max >= 25", "metric.rmse") == ["run 1", "run 0"]
    assert await tracking.search('param.model = "tree"', "metric.rmse desc") == ["run 0", "run 2", "run 3"]
    assert await tracking.search('not param.model like "tr%"') == ["run 1"]
    assert await tracking.search('param.model in ("forest", "x") or metric.rmse = 10') == ["run 2", "run 1"]
    assert await tracking.search('start_time >= "2026-03-01T02:00:00Z"', "start_time") == ["run 2", "run 3"]
    assert await tracking.search("metric.missing < 1") == []
    assert await tracking.search("not metric.missing < 1 and metric.rmse > 25") == ["run 0"]


async def test_what_was_acknowledged_is_read_before_its_event_is_there(tracking: Tracking) -> None:
    run = await tracking.start()
    await tracking.log(run, ("loss", 3.0, 1))
    await tracking.log(run, ("loss", 9.0, 0), ("nan", float("nan"), 5))
    await tracking.log(run, ("loss", 2.0, 1))
    assert await recorded(tracking, run) == []
    loaded = await tracking.store.load(RUN, run)
    assert loaded is not None
    await tracking.points.with_latest_metrics([loaded[0]])
    before = {key: summary for key, summary in loaded[0].metrics.items() if key == "loss"}
    assert (before["loss"].last, before["loss"].min, before["loss"].max, before["loss"].count) == (2.0, 2.0, 9.0, 3)
    assert await tracking.search("metric.loss = 2 and metric.loss.max = 9") == ["run 0"]
    await tracking.writer.seal(run)
    sealed = await tracking.store.load(RUN, run)
    assert sealed is not None
    assert sealed[0].metrics["loss"] == before["loss"]
    assert await tracking.search("metric.loss = 2 and metric.loss.max = 9") == ["run 0"]


async def test_points_are_sealed_within_their_second_once(tracking: Tracking) -> None:
    sealer = Sealer(tracking.store, tracking.points, interval_s=0.2)
    tracking.writer = MetricWriter(tracking.points, sealer)
    run, other = await tracking.start(), await tracking.start()
    began, calls = time.monotonic(), 0
    while time.monotonic() < began + 1.0:
        await tracking.log(run, ("loss", 1.0, calls))
        calls += 1
    await tracking.log(other, ("loss", 1.0, 0))
    await tracking.writer.close()
    lasted = time.monotonic() - began
    found = await recorded(tracking, run)
    assert 2 <= len(found) <= lasted / 0.2 + 1
    assert sum(each.count for each in found) == calls
    assert len(await recorded(tracking, other)) == 1
    assert await tracking.points.unsealed() == {}


async def test_what_a_dead_process_left_is_sealed_by_the_next(tracking: Tracking) -> None:
    run = await tracking.start()
    dead = MetricWriter(PointStore(tracking.database), Sealer(tracking.store, tracking.points, interval_s=3600))
    tracking.writer = dead
    await tracking.log(run, ("loss", 1.0, 0), ("acc", 5.0, 0))
    await tracking.log(run, ("loss", 2.0, 1))
    alive = Sealer(tracking.store, tracking.points)
    await alive.recover()
    await alive.close()
    [event] = await recorded(tracking, run)
    assert (event.count, event.summaries["loss"].last) == (3, 2.0)
    points = points_of(await tracking.points.points(run, event.first_batch, event.last_batch))
    assert points == [("loss", 0, 0, 1.0), ("acc", 0, 0, 5.0), ("loss", 1, 1_000_000, 2.0)]
    assert event.sha256 == digest_of(points)


async def test_two_processes_seal_nothing_twice(tracking: Tracking) -> None:
    run = await tracking.start()
    second = Tracking(tracking.database)
    sealers = [Sealer(tracking.store, tracking.points) for _ in range(2)]
    for step in range(3):
        await tracking.log(run, ("loss", 1.0, step))
        await second.log(run, ("loss", 1.0, 10 + step))
    await asyncio.gather(*(each.seal(run) for each in sealers), return_exceptions=True)
    await second.writer.close()
    found = await recorded(tracking, run)
    assert sum(each.count for each in found) == 6
    for each in found:
        points = points_of(await tracking.points.points(run, each.first_batch, each.last_batch))
        assert each.sha256 == digest_of(points)


async def test_one_fault_in_a_group_is_its_own(tracking: Tracking) -> None:
    run, other, command_id = await tracking.start(), await tracking.start(), uuid4()
    await tracking.log(run, ("loss", 1.0, 0), command_id=command_id)
    results = await asyncio.gather(
        tracking.log(other, ("first", 1.0, 0)),
        tracking.log(other, ("loss", 1.0, 0)),
        tracking.log(run, ("loss", 1.0, 0), command_id=command_id),
        tracking.log(run, ("loss", 2.0, 0), command_id=command_id),
        tracking.log(f"projects/default/runs/{uuid4()}", ("loss", 1.0, 0)),
        tracking.log(other, ("loss", 3.0, 1)),
        return_exceptions=True,
    )
    assert [each if isinstance(each, int) else type(each) for each in results] == [1, 1, 1, AlreadyExists, NotFound, 1]
    assert (await tracking.runs.series(run, "loss")).values == [1.0]
    assert (await tracking.runs.series(other, "loss")).values == [1.0, 3.0]


async def test_large_and_small_calls_mean_the_same(tracking: Tracking) -> None:
    run = await tracking.start()
    await asyncio.gather(
        tracking.log(run, *(("many", float(step), step) for step in range(2000))), tracking.log(run, ("one", 7.0, 0))
    )
    await tracking.writer.seal(run)
    loaded = await tracking.store.load(RUN, run)
    assert loaded is not None
    assert {key: (each.count, each.last) for key, each in loaded[0].metrics.items()} == {
        "many": (2000, 1999.0),
        "one": (1, 7.0),
    }
    assert (await tracking.runs.series(run, "many")).steps == list(range(2000))


async def test_a_run_that_was_put_away_takes_no_points(tracking: Tracking) -> None:
    run = await tracking.start()
    await tracking.log(run, ("loss", 1.0, 0))
    command = context()
    request = service.DeleteRunRequest(run=run)
    await tracking.store.execute(
        RUN,
        run,
        context=command,
        request=request,
        decide=lambda state: domain.decide_delete(state, run, command),
        respond=lambda found: service.DeleteRunResponse(run=found),
    )
    tracking.writer.forget(run)
    with pytest.raises(FailedPrecondition):
        await tracking.log(run, ("loss", 2.0, 1))
