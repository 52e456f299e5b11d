"""Training code and the tracker: recorded once, whatever dies."""

import hashlib
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from importlib import metadata
from pathlib import Path

import psutil
import pytest

import headrace
from headrace.api.audit.v1 import service_pb2 as audit
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


TRAINING = """
import sys
import numpy as np
import headrace

with headrace.start_run("captured", project=sys.argv[1]) as run:
    columns = {"hour": np.arange(3, dtype="int32"), "delay": np.array([1.5, 2.5, 3.5])}
    run.log_dataset(columns, "flights", context="training")
    run.log_confusion_matrix(["on time", "late", "late"], ["on time", "on time", "late"], labels=["on time", "late"])
    run.log_feature_importances({"hour": 0.25, "carrier": 0.75})
print(run.name)
"""


def test_what_is_captured_without_being_asked(connected: Platform, project: str, tmp_path: Path) -> None:
    folder = tmp_path / "research"
    folder.mkdir()
    (folder / "train.py").write_text(TRAINING)

    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=True, timeout=30
        ).stdout.strip()

    git("init", "-q", "-b", "main")
    git("remote", "add", "origin", "https://ada:secret@example.org/research.git")
    git("add", "train.py")
    git("commit", "-q", "-m", "begin")
    (folder / "train.py").write_text(TRAINING + "# tried at home\n")

    command = [sys.executable, "train.py", project, "two words"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 0, done.stderr
    run = get_run(connected, done.stdout.split()[-1])

    assert (run.code.commit, run.code.branch, run.code.dirty) == (git("rev-parse", "HEAD"), "main", True)
    assert run.code.remote == "https://example.org/research.git"
    home = str(Path.home())
    assert shlex.split(run.code.command_line) == [each.replace(home, "~") for each in command]
    environment = run.environment
    assert environment.python == platform.python_version()
    assert environment.platform == platform.platform()
    assert environment.cpu_count == os.cpu_count()
    assert environment.memory_bytes == psutil.virtual_memory().total
    packages = [f"{each.name}=={each.version}" for each in environment.packages]
    assert f"numpy=={metadata.version('numpy')}" in packages
    assert environment.packages_digest == hashlib.sha256("\n".join(packages).encode()).hexdigest()
    [dataset] = run.datasets
    assert dataset.digest.startswith("sha256:")
    assert [(each.name, each.type) for each in dataset.columns] == [("hour", "int32"), ("delay", "float64")]
    assert (dataset.name, dataset.context, dataset.rows) == ("flights", "training", 3)
    assert b"+# tried at home" in artifact(connected, run, "code/uncommitted.diff")
    matrix = json.loads(artifact(connected, run, "confusion_matrix.json"))
    assert matrix == {"labels": ["on time", "late"], "counts": [[1, 0], [1, 1]]}
    importances = json.loads(artifact(connected, run, "feature_importances.json"))
    assert [(each["feature"], each["importance"]) for each in importances] == [("carrier", 0.75), ("hour", 0.25)]
    for picture in ("confusion_matrix.svg", "feature_importances.svg"):
        assert artifact(connected, run, picture).startswith(b"<svg")


def artifact(platform_: Platform, run: resources.Run, path: str) -> bytes:
    with platform_.client() as client:
        request = service.PresignDownloadRequest(run=run.name, path=path)
        with urllib.request.urlopen(client.tracking.PresignDownload(request).url, timeout=10) as answer:
            content: bytes = answer.read()
            return content


def test_runs_are_found_by_metric_parameter_and_tag(connected: Platform, project: str) -> None:
    names: list[str] = []
    for number in range(3):
        with headrace.start_run("x", project=project, tags={"team": "ops" if number else "lab"}) as run:
            run.log_params({"depth": number})
            run.log_metric("loss", number / 2)
        names.append(run.name)

    def found(text: str) -> set[int]:
        request = service.SearchRunsRequest(parent=f"projects/{project}", filter=text)
        with connected.client() as client:
            return {names.index(each.name) for each in client.tracking.SearchRuns(request).runs}

    assert found("metric.loss < 0.75") == {0, 1}
    assert found("metric.loss >= 0.5") == {1, 2}
    assert found('param.depth = "2"') == {2}
    assert found('tag.team = "ops"') == {1, 2}
    assert found('tag.team = "ops" and metric.loss < 0.75 or param.depth = "0"') == {0, 1}
    assert found('tag.team = "nobody"') == set()


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


OFFLINE = """
import sys
import headrace

with headrace.start_run("far away", project=sys.argv[1], offline=True) as run:
    run.log_params({"rate": 0.1})
    for number in range(20):
        run.log_bytes(bytes([number]) * 1000, f"part-{number}")
        run.log_metrics({"loss": 1.0 / (number + 1), "lr": 0.1}, step=number)
        run.set_tags({"number": number})
print(run.name)
"""


@pytest.mark.timeout(600)
def test_an_offline_run_is_sent_once_however_often_that_is_killed(
    connected: Platform, project: str, tmp_path: Path
) -> None:
    folder = tmp_path / "spool"
    alone = {**os.environ, "HEADRACE_DATA": str(tmp_path / "no platform here")}
    command = [sys.executable, "-c", OFFLINE, project]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=alone)
    name = done.stdout.strip()
    ended = time.time()
    assert pending_runs(folder) == [name.rpartition("/")[2]]
    taken = folder.rename(tmp_path / "taken elsewhere")
    program = str(Path(sys.executable).with_name("headrace"))
    spool = taken / f"{name.rpartition('/')[2]}.sent"
    kills = 0
    for _ in range(3):
        before = spool.read_bytes() if spool.exists() else b""
        with subprocess.Popen([program, "sync", str(taken)], stdout=subprocess.DEVNULL) as sending:
            while sending.poll() is None and (not spool.exists() or spool.read_bytes() == before):
                time.sleep(0.001)
            if sending.poll() is None:
                sending.send_signal(signal.SIGKILL)
                kills += 1
    finished = subprocess.run([program, "sync", str(taken)], capture_output=True, text=True, check=True, timeout=90)
    assert kills
    assert name.rpartition("/")[2] in finished.stdout
    again = subprocess.run([program, "sync", str(taken)], capture_output=True, text=True, check=True, timeout=60)
    assert again.stdout == "Nothing waits to be sent.\n"

    run = get_run(connected, name)
    assert run.status == resources.RUN_STATUS_FINISHED
    assert {key: summary.count for key, summary in run.metrics.items()} == {"loss": 20, "lr": 20}
    assert len({each.path for each in run.artifacts if each.path.startswith("part-")}) == 20
    assert run.end_time.seconds <= ended
    assert run.metrics["loss"].last_time.seconds <= ended
    with connected.client() as client:
        log = client.log("tracking").ReadStream(audit.ReadStreamRequest(stream_id=name, page_size=1000))
    kinds = Counter(each.type.rpartition(".")[2] for each in log.entries)
    assert (kinds["RunStarted"], kinds["RunFinished"], kinds["TagsChanged"]) == (1, 1, 20)
    assert list(taken.glob("*.spool")) == list(taken.glob("blobs/*")) == []


def test_a_damaged_spool_is_refused_and_kept_and_the_others_are_sent(
    connected: Platform, project: str, tmp_path: Path
) -> None:
    runs: list[headrace.Run] = []
    for _ in range(2):
        with headrace.start_run("x", project=project, offline=True) as run:
            run.log_metric("loss", 1.0)
        runs.append(run)
    path = tmp_path / "spool" / f"{runs[0].id}.spool"
    content = bytearray(path.read_bytes())
    content[40] ^= 1
    path.write_bytes(content)
    program = str(Path(sys.executable).with_name("headrace"))
    done = subprocess.run([program, "sync"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert f"error SPOOL_DAMAGED: {path} is damaged: the payload of the record at byte 12 was changed" in done.stderr
    assert path.read_bytes() == content
    assert get_run(connected, runs[1].name).metrics["loss"].count == 1
