"""Training code and the tracker: recorded once, whatever dies."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import headrace
from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.tracking.spool import pending_runs
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


def test_a_run_records_everything(connected: Platform, project: str, tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("hello")
    with headrace.start_run("flight-delays", name="first", project=project, tags={"team": "ops"}) as run:
        run.log_params({"rate": 0.1, "kind": "tree", "layers": [8, 4]})
        for step in range(500):
            run.log_metric("loss", 1 / (step + 1))
        digest = run.log_dataset({"a": [1.0, 2.0]}, "tiny")
        run.log_artifact(note)
        run.log_confusion_matrix([0, 1], [0, 0])
        run.log_feature_importances({"a": 1.0})
        run.set_tags({"stage": "try", "team": None})
    stored = get_run(connected, run.name)
    assert stored.status == resources.RUN_STATUS_FINISHED
    assert dict(stored.params) == {"rate": "0.1", "kind": "tree", "layers": "[8,4]"}
    assert dict(stored.tags) == {"stage": "try"}
    loss = stored.metrics["loss"]
    assert (loss.count, loss.last, loss.last_step, loss.max) == (500, 1 / 500, 499, 1.0)
    assert [each.digest for each in stored.datasets] == [digest]
    paths = {each.path for each in stored.artifacts}
    assert {"note.txt", "confusion_matrix.json", "confusion_matrix.svg", "feature_importances.json"} <= paths
    assert stored.code.command_line
    assert stored.environment.packages_digest
    assert run.rejected == 0
    assert pending_runs(Path(os.environ["HEADRACE_SPOOL"])) == []


def test_an_error_ends_the_run_as_failed_and_goes_on(connected: Platform, project: str) -> None:
    with pytest.raises(ZeroDivisionError), headrace.start_run("x", project=project) as run:
        raise ZeroDivisionError("by purpose")
    stored = get_run(connected, run.name)
    assert stored.status == resources.RUN_STATUS_FAILED
    assert "ZeroDivisionError: by purpose" in stored.error


def test_a_tracker_that_is_down_never_stops_training(
    connected: Platform, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_TRACKING_ADDRESS", "127.0.0.1:1")
    with headrace.start_run("x", project=project, flush_timeout_s=0.1) as run:
        run.log_params({"a": 1})
        for step in range(100):
            run.log_metric("loss", step, step=step)
    assert pending_runs(Path(os.environ["HEADRACE_SPOOL"])) == [run.id]
    monkeypatch.delenv("HEADRACE_TRACKING_ADDRESS")
    assert headrace.sync() == [run.id]
    stored = get_run(connected, run.name)
    assert (stored.metrics["loss"].count, stored.status) == (100, resources.RUN_STATUS_FINISHED)
    assert headrace.sync() == []


def test_points_are_stored_once_when_tracker_and_training_are_killed(connected: Platform, project: str) -> None:
    code = f"""
import headrace, sys
run = headrace.start_run("x", project={project!r})
print(run.name, flush=True)
for step in range(20000):
    run.log_metric("loss", step, step=step)
    if step == 10000:
        print("half", flush=True)
        sys.stdin.readline()
print("logged", flush=True)
sys.stdin.readline()
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as training:
        assert training.stdin is not None
        assert training.stdout is not None
        name = training.stdout.readline().strip()
        assert training.stdout.readline() == "half\n"
        killed = connected.kill("tracking")
        training.stdin.write("\n")
        training.stdin.flush()
        assert training.stdout.readline() == "logged\n"
        training.send_signal(signal.SIGKILL)
    connected.wait_ready("tracking", other_than=killed)
    headrace.sync()
    assert get_run(connected, name).metrics["loss"].count == 20000
    with connected.client() as client:
        history = client.tracking.GetMetricHistory(service.GetMetricHistoryRequest(run=name, key="loss"))
    assert list(history.steps) == list(range(20000))
