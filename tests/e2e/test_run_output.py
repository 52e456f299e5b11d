"""What training code prints, on a running platform."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import headrace
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.tracking.spool import pending_runs
from tests.support.eventually import eventually
from tests.support.platform import Platform

pytestmark = pytest.mark.timeout(180)

PROGRAM = str(Path(sys.executable).with_name("headrace"))


@pytest.fixture
def connected(platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """The platform, found by the SDK, with a spool of the test's own."""
    monkeypatch.setenv("HEADRACE_DATA", str(platform.folder))
    monkeypatch.setenv("HEADRACE_SPOOL", str(tmp_path / "spool"))
    return platform


def logs(run: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [PROGRAM, "runs", "logs", run, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)


def written(platform: Platform, run: str) -> str:
    with platform.client() as client:
        found = client.tracking.ReadOutput(service.ReadOutputRequest(run=run))
    return b"".join(each.content for each in found.chunks).decode()


def test_it_is_followed_while_the_run_goes_on(connected: Platform, project: str) -> None:
    run = headrace.start_run("talks", project=project)
    print("line 1")
    sys.stderr.write("a warning\n")
    run.flush()
    with subprocess.Popen(
        [PROGRAM, "runs", "logs", run.name, "--follow"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as following:
        assert following.stdout is not None
        assert following.stderr is not None
        assert following.stdout.readline() == "line 1\n"
        assert following.stderr.readline() == "a warning\n"
        print("line 2")
        assert following.stdout.readline() == "line 2\n"
        run.finish()
        assert following.stdout.read() == ""
        assert following.wait(60) == 0
    assert logs(run.name).stdout == "line 1\nline 2\n"
    assert logs(run.name, "--last", "3").stdout == "line 2\n"
    told = [json.loads(line) for line in logs(run.name, "--json").stdout.splitlines()]
    assert [(each["stream"], each["text"], each["left_out_bytes"]) for each in told] == [
        ("stdout", "line 1\n", 0),
        ("stderr", "a warning\n", 0),
        ("stdout", "line 2\n", 0),
    ]


OFFLINE = """
import sys
import headrace

run = headrace.start_run("talks", project=sys.argv[1], offline=True)
print("before", "x" * 300_000)
print(run.name, flush=True)
sys.stdin.readline()
"""


def test_a_process_that_is_killed_leaves_what_it_wrote(connected: Platform, project: str, tmp_path: Path) -> None:
    alone = {**os.environ, "HEADRACE_DATA": str(tmp_path / "no platform here")}
    with subprocess.Popen(
        [sys.executable, "-c", OFFLINE, project], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=alone
    ) as training:
        assert training.stdout is not None
        training.stdout.readline()
        name = training.stdout.readline().strip()
        spool = tmp_path / "spool" / f"{name.rpartition('/')[2]}.spool"
        eventually(lambda: spool.read_bytes().endswith(f"{name}\n".encode()))
        training.send_signal(signal.SIGKILL)
    assert headrace.sync() == [name.rpartition("/")[2]]
    assert written(connected, name) == f"before {'x' * 300_000}\n{name}\n"
    assert pending_runs(tmp_path / "spool") == []


def test_a_run_that_is_resumed_goes_on_behind_what_it_wrote(connected: Platform, project: str) -> None:
    with headrace.start_run("talks", project=project) as run:
        print("once")
    with headrace.resume_run(run.name):
        print("again")
    assert written(connected, run.name) == "once\nagain\n"
