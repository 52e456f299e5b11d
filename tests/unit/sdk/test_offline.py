"""Offline runs: everything is on disk, and nobody is asked."""

from pathlib import Path

import pytest

import headrace
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.tracking import Sending, TrackerDownError, sync
from headrace.tracking.sender import Kind
from headrace.tracking.spool import Spool, pending_runs


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spool folder, on a machine without a platform."""
    monkeypatch.setenv("HEADRACE_DATA", str(tmp_path / "none"))
    monkeypatch.setenv("HEADRACE_SPOOL", str(tmp_path / "spool"))
    return tmp_path / "spool"


@pytest.mark.parametrize("by_environment", [False, True])
def test_an_offline_run_is_recorded_without_a_platform(
    spool: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, by_environment: bool
) -> None:
    if by_environment:
        monkeypatch.setenv("HEADRACE_OFFLINE", "1")
    with headrace.start_run("x", offline=None if by_environment else True) as run:
        run.log_params({"a": 1})
        run.log_metric("loss", 0.5)
    assert pending_runs(spool) == [run.id]
    held = Spool(spool, run.id)
    records = [each for each in held.records(0) if each.kind != Kind.LOG_ARTIFACT]
    held.close()
    assert [each.kind for each in records] == [Kind.START_RUN, Kind.LOG_PARAMS, Kind.METRIC_POINTS, Kind.FINISH_RUN]
    start = service.StartRunRequest.FromString(records[0].payload)
    assert start.command_id
    assert start.start_time.seconds
    assert not caplog.records


def test_without_a_tracker_what_is_offline_stays(spool: Path) -> None:
    with headrace.start_run("x", offline=True) as run:
        run.log_metric("loss", 0.5)
    told: list[Sending] = []
    with pytest.raises(TrackerDownError):
        sync(spool, tell=told.append)
    assert pending_runs(spool) == [run.id]
    assert told == []
