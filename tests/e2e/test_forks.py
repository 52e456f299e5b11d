"""Forked and grouped runs, by the SDK on a running platform."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

import headrace
from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from tests.support.platform import Platform

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def connected(platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """The platform, found by the SDK, with a spool of the test's own."""
    monkeypatch.setenv("HEADRACE_DATA", str(platform.folder))
    monkeypatch.setenv("HEADRACE_SPOOL", str(tmp_path / "spool"))
    return platform


def get_run(platform: Platform, name: str) -> resources.Run:
    with platform.client() as client:
        return client.tracking.GetRun(service.GetRunRequest(name=name)).run


def test_a_fork_goes_on_with_the_history(connected: Platform, project: str) -> None:
    with headrace.start_run("x", project=project) as first:
        for step in range(10):
            first.log_metric("loss", 10.0 - step)
    with headrace.start_run("x", project=project, fork_from=first, at_step=3, group="again") as second:
        second.log_metric("loss", 0.25)
    stored = get_run(connected, second.name)
    assert (stored.forked_from, stored.fork_step, stored.group) == (first.name, 3, "again")
    assert (stored.metrics["loss"].count, stored.metrics["loss"].last) == (5, 0.25)
    with connected.client() as client:
        history = client.tracking.GetMetricHistory(service.GetMetricHistoryRequest(run=second.name, key="loss"))
        found = client.tracking.SearchRuns(
            service.SearchRunsRequest(parent=f"projects/{project}", filter='group = "again"')
        )
    assert list(zip(history.steps, history.values, strict=True)) == [(0, 10.0), (1, 9.0), (2, 8.0), (3, 7.0), (4, 0.25)]
    assert [each.name for each in found.runs] == [second.name]


def test_a_fork_of_a_run_that_is_not_there_keeps_its_own_points(
    connected: Platform, project: str, caplog: pytest.LogCaptureFixture
) -> None:
    missing = f"projects/{project}/runs/{uuid4()}"
    with headrace.start_run("x", project=project, fork_from=missing, at_step=3) as run:
        run.log_metric("loss", 0.25)
    stored = get_run(connected, run.name)
    assert (stored.forked_from, stored.tags["headrace.forked_from"]) == ("", f"{missing} at 3")
    assert (stored.metrics["loss"].count, stored.status) == (1, resources.RUN_STATUS_FINISHED)
    assert run.rejected == 0
    assert f"does not go on with {missing}" in caplog.text
