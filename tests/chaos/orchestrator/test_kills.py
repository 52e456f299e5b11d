"""Killed anywhere, a run goes on, and each attempt of a step has one outcome."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from headrace.api.audit.v1 import service_pb2 as audit
from headrace.api.orchestrator.v1 import events_pb2 as events
from headrace.api.orchestrator.v1 import resources_pb2 as resources
from headrace.pipelines import Pipeline, PipelineRunFailed, StartedRun
from tests.support import stepping
from tests.support.eventually import eventually
from tests.support.platform import Platform
from tests.support.stepping import allow, marks

pytestmark = pytest.mark.timeout(120)


def begin(platform: Platform, started: Pipeline[...], folder: Path) -> StartedRun:
    return started.start_with({"folder": str(folder)}, client=platform.client())


def local_worker(platform: Platform) -> int:
    """Process id of the worker that the orchestrator started."""

    def find() -> list[int]:
        pid = platform.stack.supervised["orchestrator"].pid
        try:
            return [each.pid for each in psutil.Process(pid).children() if "headrace.worker" in each.cmdline()]
        except psutil.NoSuchProcess:
            return []

    return eventually(find)[0]


def outcomes(platform: Platform, run: str) -> Counter[tuple[str, str]]:
    """What the log says of a run: (step, event or error class) -> how often."""
    found: Counter[tuple[str, str]] = Counter()
    with platform.client() as client:
        response = client.log("orchestrator").ReadStream(audit.ReadStreamRequest(stream_id=run, page_size=1000))
    for event in response.entries:
        if event.type == "headrace.orchestrator.v1.StepCompleted":
            found[events.StepCompleted.FromString(event.data).step, "completed"] += 1
        elif event.type == "headrace.orchestrator.v1.StepFailed":
            failed = events.StepFailed.FromString(event.data)
            found[failed.step, failed.error_class] += 1
    return found


def test_a_run_goes_on_when_the_worker_is_killed(platform: Platform, tmp_path: Path) -> None:
    run = begin(platform, stepping.stepping, tmp_path)
    eventually(lambda: marks(tmp_path, "held"))
    step_pid = int(marks(tmp_path, "held")[0].split()[0])

    os.kill(local_worker(platform), signal.SIGKILL)

    eventually(lambda: len(marks(tmp_path, "held")) == 2)
    assert not psutil.pid_exists(step_pid)
    allow(tmp_path, "held")
    run.wait(timeout_s=60)
    assert outcomes(platform, run.name) == {
        ("first", "completed"): 1,
        ("held", "WORKER_LOST"): 1,
        ("held", "completed"): 1,
        ("last", "completed"): 1,
    }
    assert len(marks(tmp_path, "first")) == 1


def test_a_step_is_tried_again_when_its_process_is_killed(platform: Platform, tmp_path: Path) -> None:
    run = begin(platform, stepping.stepping, tmp_path)
    eventually(lambda: marks(tmp_path, "held"))

    os.kill(int(marks(tmp_path, "held")[0].split()[0]), signal.SIGKILL)

    eventually(lambda: len(marks(tmp_path, "held")) == 2)
    allow(tmp_path, "held")
    run.wait(timeout_s=60)
    assert outcomes(platform, run.name)["held", "PROCESS_DIED"] == 1
    assert outcomes(platform, run.name)["held", "completed"] == 1


def test_a_run_goes_on_when_what_steps_are_forked_from_is_killed(platform: Platform, tmp_path: Path) -> None:
    run = begin(platform, stepping.stepping, tmp_path)
    eventually(lambda: marks(tmp_path, "held"))
    worker = psutil.Process(local_worker(platform))

    (template,) = [each for each in worker.children() if "headrace.worker.template" in each.cmdline()]
    template.kill()

    eventually(lambda: len(marks(tmp_path, "held")) == 2)
    allow(tmp_path, "held")
    run.wait(timeout_s=60)
    assert outcomes(platform, run.name)["held", "WORKER_LOST"] == 1
    assert outcomes(platform, run.name)["held", "completed"] == 1


def test_a_run_goes_on_when_the_orchestrator_is_killed(platform: Platform, tmp_path: Path) -> None:
    run = begin(platform, stepping.stepping, tmp_path)
    eventually(lambda: marks(tmp_path, "held"))

    killed = platform.kill("orchestrator")
    platform.wait_ready("orchestrator", other_than=killed)

    eventually(lambda: len(marks(tmp_path, "held")) == 2)
    allow(tmp_path, "held")
    run.wait(timeout_s=60)
    found = outcomes(platform, run.name)
    assert found["held", "completed"] == found["first", "completed"] == found["last", "completed"] == 1
    assert len(marks(tmp_path, "first")) == len(marks(tmp_path, "last")) == 1


def test_a_run_goes_on_when_the_orchestrator_is_asked_to_stop(platform: Platform, tmp_path: Path) -> None:
    run = begin(platform, stepping.stepping, tmp_path)
    eventually(lambda: marks(tmp_path, "held"))

    began = time.monotonic()
    stopped = platform.kill("orchestrator", by=signal.SIGTERM)
    eventually(lambda: not psutil.pid_exists(stopped))
    assert time.monotonic() - began < 10
    platform.wait_ready("orchestrator", other_than=stopped)

    eventually(lambda: len(marks(tmp_path, "held")) == 2)
    allow(tmp_path, "held")
    run.wait(timeout_s=60)
    assert outcomes(platform, run.name)["held", "completed"] == 1


@pytest.fixture
def own_worker(platform: Platform) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that somebody else started."""
    environment = {**os.environ, "HEADRACE_DATA": str(platform.folder)}
    worker = subprocess.Popen([sys.executable, "-m", "headrace.worker", "--capacity", "4"], env=environment)
    try:
        yield worker
    finally:
        worker.kill()
        worker.wait()


def test_a_worker_keeps_its_step_while_the_orchestrator_is_killed(
    platform: Platform, own_worker: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    folders = [tmp_path / str(number) for number in range(4)]
    for folder in folders:
        folder.mkdir()
    runs = [begin(platform, stepping.stepping, folder) for folder in folders]
    for folder in folders:
        eventually(partial(marks, folder, "held"))
    theirs = {each.pid for each in psutil.Process(own_worker.pid).children(recursive=True)}
    kept = [folder for folder in folders if int(marks(folder, "held")[0].split()[0]) in theirs]
    assert kept

    killed = platform.kill("orchestrator")
    for folder in folders:
        allow(folder, "held")
    platform.wait_ready("orchestrator", other_than=killed)

    for run in runs:
        run.wait(timeout_s=60)
    for folder in kept:
        assert len(marks(folder, "held")) == 1


def test_a_worker_that_is_asked_to_stop_finishes_its_steps_first(
    platform: Platform, own_worker: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    folders = [tmp_path / str(number) for number in range(4)]
    for folder in folders:
        folder.mkdir()
    runs = [begin(platform, stepping.stepping, folder) for folder in folders]
    for folder in folders:
        eventually(partial(marks, folder, "held"))

    own_worker.send_signal(signal.SIGTERM)
    for folder in folders:
        allow(folder, "held")

    for run in runs:
        run.wait(timeout_s=60)
    assert own_worker.wait(timeout=30) == 0
    assert [len(marks(folder, "held")) for folder in folders] == [1, 1, 1, 1]


def test_a_run_goes_on_when_the_database_is_killed(platform: Platform, tmp_path: Path) -> None:
    run = begin(platform, stepping.stepping, tmp_path)
    eventually(lambda: marks(tmp_path, "held"))

    killed = platform.kill("postgres")
    allow(tmp_path, "held")
    platform.wait_ready("postgres", other_than=killed)

    run.wait(timeout_s=60)
    found = outcomes(platform, run.name)
    assert found["held", "completed"] == found["first", "completed"] == found["last", "completed"] == 1
    assert len(marks(tmp_path, "held")) == 1


def family(step_pid: int, token: str) -> list[int]:
    """What a step started, by the token in its environment or by its group; and the step."""
    mark = f"HEADRACE_STEP_TOKEN={token}".encode()
    found: list[int] = []
    for each in psutil.process_iter():
        try:
            marked = mark in Path(f"/proc/{each.pid}/environ").read_bytes().split(b"\0")
            if (marked or os.getsid(each.pid) == step_pid) and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each.pid)
        except (OSError, psutil.NoSuchProcess):
            continue
    return found


def bred(folder: Path) -> tuple[int, str]:
    pid, token = eventually(lambda: marks(folder, "bred"))[0].split()
    assert len(family(int(pid), token)) == 5
    return int(pid), token


def test_nothing_of_a_cancelled_step_is_left(platform: Platform, tmp_path: Path) -> None:
    run = begin(platform, stepping.breeding, tmp_path)
    step = bred(tmp_path)

    run.cancel("enough")

    eventually(lambda: not family(*step), within_s=10)
    assert run.state().status == resources.PIPELINE_RUN_STATUS_CANCELLED
    assert run.state().error == "enough"


def test_nothing_of_a_step_is_left_whose_shim_is_killed(platform: Platform, tmp_path: Path) -> None:
    run = begin(platform, stepping.breeding, tmp_path)
    step = bred(tmp_path)

    os.kill(psutil.Process(step[0]).ppid(), signal.SIGKILL)

    eventually(lambda: not family(*step), within_s=10)
    with pytest.raises(PipelineRunFailed, match="PROCESS_DIED: the process was ended by SIGKILL"):
        run.wait(timeout_s=60)


@pytest.mark.parametrize("killed", ["step", "template", "worker"])
def test_nothing_of_a_step_is_left_when_its_family_is_hit(platform: Platform, tmp_path: Path, killed: str) -> None:
    run = begin(platform, stepping.breeding, tmp_path)
    step = bred(tmp_path)
    shim = psutil.Process(psutil.Process(step[0]).ppid())
    pids = {"step": step[0], "template": shim.ppid(), "worker": local_worker(platform)}

    os.kill(pids[killed], signal.SIGKILL)

    eventually(lambda: not family(*step), within_s=10)
    if killed == "step":
        with pytest.raises(PipelineRunFailed, match="PROCESS_DIED"):
            run.wait(timeout_s=60)
    else:
        run.cancel()
