"""Questions about many runs at once: their points thinned, their keys, their groups, any row of a search."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final
from uuid import UUID, uuid4

import grpc
import pytest

from headrace.api.tracking.v1 import resources_pb2 as runs
from headrace.api.tracking.v1 import service_pb2 as tracking
from headrace.client import Client
from headrace.errors import error_details
from tests.support.platform import Platform

pytestmark = pytest.mark.timeout(180)

PARENT: Final = "projects/default"
LOSSES: Final = {"a": (1.0, 3.0), "b": (5.0, math.nan), None: (7.0,)}
"""The last losses of the runs by the parameter ``kind``."""
LONG: Final = 5000


@pytest.fixture(scope="module")
def client(platform: Platform) -> Iterator[Client]:
    with platform.client() as client:
        yield client


@pytest.fixture(scope="module")
def experiment(client: Client) -> str:
    """An experiment of five runs, of which the first logged has many points."""
    name = f"{PARENT}/experiments/many-{uuid4().hex[:8]}"
    for kind, losses in LOSSES.items():
        for loss in losses:
            run = f"{PARENT}/runs/{uuid4()}"
            start = tracking.StartRunRequest(command_id=str(uuid4()), name=run, experiment=name, tags={"team": "ops"})
            client.tracking.StartRun(start)
            if kind is not None:
                given = tracking.LogParamsRequest(command_id=str(uuid4()), run=run, params={"kind": kind})
                client.tracking.LogParams(given)
            points = [runs.MetricPoint(key="loss", value=loss, step=LONG)]
            if loss == 1.0:
                points += [runs.MetricPoint(key="loss", value=math.sin(step), step=step) for step in range(LONG)]
                points += [runs.MetricPoint(key="cost", value=step, step=step) for step in range(0, LONG, 2)]
                points.append(runs.MetricPoint(key="loss", value=99.0, step=777))
            client.tracking.LogMetrics(tracking.LogMetricsRequest(command_id=str(uuid4()), run=run, points=points))
    return name


def found(client: Client, experiment: str, **fields: object) -> list[runs.Run]:
    request = tracking.SearchRunsRequest(parent=PARENT, experiments=[experiment], **fields)  # type: ignore[arg-type] # as given
    return list(client.tracking.SearchRuns(request).runs)


def test_histories_of_many_runs_keep_extremes_and_leave_out_who_has_none(client: Client, experiment: str) -> None:
    names = [run.name for run in found(client, experiment, order_by="metric.loss")]
    nobody = f"{PARENT}/runs/{UUID(int=1)}"
    request = tracking.GetMetricHistoriesRequest(runs=[nobody, *names], key="loss", max_points=100, x_key="cost")

    series = list(client.tracking.GetMetricHistories(request).series)

    assert [each.run for each in series] == names
    long = series[0]
    assert len(long.steps) <= 100
    assert max(long.values) == 99.0
    assert list(long.steps) == sorted(long.steps)
    assert len(long.steps) == len(long.times_us) == len(long.values) == len(long.x_values)
    for step, beside in zip(long.steps, long.x_values, strict=True):
        assert beside == step if step % 2 == 0 and step < LONG else math.isnan(beside)


def test_keys_are_counted_over_the_runs_that_match(client: Client, experiment: str) -> None:
    request = tracking.GetRunKeysRequest(parent=PARENT, experiments=[experiment])
    everything = client.tracking.GetRunKeys(request)
    request.filter = 'param.kind = "b"'
    some = client.tracking.GetRunKeys(request)

    assert everything.run_count == 5
    assert [(each.key, each.run_count) for each in everything.metrics] == [("loss", 5), ("cost", 1)]
    assert [(each.key, each.run_count) for each in everything.params] == [("kind", 4)]
    assert [(each.key, each.run_count) for each in everything.tags] == [("team", 5)]
    assert (some.run_count, [each.key for each in some.metrics]) == (2, ["loss"])
    request.filter = "metric.none = 3"
    assert client.tracking.GetRunKeys(request).run_count == 0


def test_groups_have_mean_and_deviation_of_the_runs_that_have_the_number(client: Client, experiment: str) -> None:
    request = tracking.GetRunGroupsRequest(
        parent=PARENT,
        experiments=[experiment],
        group_by="param.kind",
        values="metric.loss, metric.cost.max, duration_s",
    )

    groups = list(client.tracking.GetRunGroups(request).groups)

    told = {each.value if each.HasField("value") else None: each for each in groups}
    assert [(each, told[each].run_count) for each in told] == [("a", 2), ("b", 2), (None, 1)]
    a, b = told["a"].stats, told["b"].stats
    assert (a[0].count, a[0].mean) == (2, 2.0)
    assert a[0].std == pytest.approx(math.sqrt(2))
    assert (b[0].count, b[0].mean, b[0].std) == (1, 5.0, 0.0)
    assert (a[1].count, a[1].mean, a[2].count) == (1, LONG - 2, 0)


@pytest.mark.parametrize(
    ("group_by", "values"), [("", "metric.a"), ("param.a, param.b", ""), ("param.a", "param.b"), ("param.", "")]
)
def test_groups_of_what_is_no_one_value_or_no_number_are_refused(client: Client, group_by: str, values: str) -> None:
    request = tracking.GetRunGroupsRequest(parent=PARENT, group_by=group_by, values=values)
    with pytest.raises(grpc.RpcError) as refused:
        client.tracking.GetRunGroups(request)
    assert error_details(refused.value)[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_a_search_begins_at_any_row(client: Client, experiment: str) -> None:
    everything = [run.name for run in found(client, experiment, order_by="metric.loss")]
    request = tracking.SearchRunsRequest(
        parent=PARENT, experiments=[experiment], order_by="metric.loss", skip=2, page_size=2
    )
    first = client.tracking.SearchRuns(request)
    request.page_token = first.next_page_token
    second = client.tracking.SearchRuns(request)

    assert [run.name for run in first.runs] == everything[2:4]
    assert [run.name for run in second.runs] == everything[4:]
    assert found(client, experiment, skip=100) == []
