"""The commands, as a person types them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from headrace_local.folder import DataFolder, owner_of
from tests.support.processes import eventually, lives

pytestmark = pytest.mark.timeout(120)


def headrace(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from headrace.cli import main; main()", *arguments]
    # Wide, so that a table is not folded.
    environment = {**os.environ, "COLUMNS": "200", **(env or {})}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100, env=environment)


def test_up_detach_status_logs_down(data: Path) -> None:
    up = headrace("up", "--detach", "--data", str(data), "--only", "postgres,s3")
    assert up.returncode == 0, up.stderr
    assert "runs in the background" in up.stdout

    status = headrace("status", "--json", "--data", str(data))
    seen = json.loads(status.stdout)
    assert status.returncode == 0
    assert (seen["running"], seen["phase"]) == (True, "ready")
    assert [(part["name"], part["state"], part["restarts"]) for part in seen["parts"]] == [
        ("postgres", "ready", 0),
        ("s3", "ready", 0),
    ]
    assert seen["memory_bytes"] > sum(part["memory_bytes"] for part in seen["parts"]) > 2**20
    host, port = seen["parts"][0]["address"].split(":")
    socket.create_connection((host, int(port)), timeout=2).close()

    assert "ready to accept connections" in headrace("logs", "postgres", "--data", str(data)).stdout
    both = headrace("logs", "--data", str(data)).stdout
    assert {line.split()[0] for line in both.splitlines()} == {"postgres", "s3"}

    second = headrace("up", "--data", str(data))
    assert second.returncode == 1
    assert f"DATA_FOLDER_IN_USE: {data} is already run by process {seen['pid']}" in second.stderr

    assert "NOT_RUNNING: no gateway runs on" in headrace("console", "--data", str(data)).stderr

    processes = [psutil.Process(part["pid"]) for part in seen["parts"]]
    down = headrace("down", "--data", str(data))
    assert down.returncode == 0, down.stderr
    assert not [process for process in processes if lives(process)]
    assert headrace("status", "--data", str(data)).returncode == 1
    assert "nothing runs" in headrace("down", "--data", str(data)).stdout


def test_ctrl_c_stops_everything_in_order(data: Path) -> None:
    command = [sys.executable, "-m", "headrace_local", "--data", str(data), "--only", "postgres,s3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        said = list(iter(process.stdout.readline, "Ctrl-C stops everything in order\n"))
        children = psutil.Process(process.pid).children(recursive=True)

        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole foreground group
        rest = process.stdout.read()

    assert process.returncode == 0
    assert any(line.startswith("postgres  127.0.0.1:") for line in said)
    assert "stopping in order" in rest
    assert "killed" not in rest
    assert not [child for child in children if lives(child)]


def test_ctrl_c_while_starting_stops_what_had_started(data: Path) -> None:
    command = [sys.executable, "-m", "headrace_local", "--data", str(data), "--only", "postgres,s3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        eventually(lambda: owner_of(DataFolder(data)) is not None)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)

    assert process.returncode == 0
    assert owner_of(DataFolder(data)) is None


def test_a_restart_is_told_as_it_happens(data: Path) -> None:
    command = [sys.executable, "-m", "headrace_local", "--data", str(data), "--only", "s3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while "Ctrl-C" not in process.stdout.readline():
            assert process.poll() is None
        psutil.Process(process.pid).children()[-1].kill()
        died, again = process.stdout.readline(), process.stdout.readline()
        process.terminate()
        process.communicate(timeout=60)

    assert "s3 died by signal 9; starting it again" in died
    assert "s3 is ready again" in again


def test_no_network_for_the_jars_is_a_clear_error(data: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    settings = tmp_path / "jgo.conf"
    settings.write_text(f"[repositories]\ncentral = http://127.0.0.1:{port}\n")
    env = {"JGO_CONFIG_FILE": str(settings), "XDG_CACHE_HOME": str(tmp_path / "cache")}

    for detach in ([], ["--detach"]):
        up = headrace("up", *detach, "--data", str(data), "--only", "kafka", env=env)

        assert up.returncode == 1
        assert "error JAR_UNAVAILABLE:" in up.stderr
        assert "connect this machine to the network" in up.stderr
        assert "Traceback" not in up.stderr


def test_an_unknown_part_is_named(data: Path) -> None:
    up = headrace("up", "--data", str(data), "--only", "tracking,regsitry")

    assert up.returncode == 1
    assert "UNKNOWN_PART: no part is called regsitry; the parts are postgres, kafka" in up.stderr
    assert not data.exists()


def test_a_failing_start_in_the_background_says_why(data: Path) -> None:
    data.mkdir()
    (data / "letters").mkdir()

    up = headrace("up", "--detach", "--data", str(data), "--only", "s3")

    assert up.returncode == 1
    assert "error DATA_FOLDER_VERSION:" in up.stderr
    assert "is not a headrace data folder: it holds letters" in up.stderr


@pytest.mark.parametrize("detach", [[], ["--detach"]])
def test_a_taken_pinned_port_is_told(data: Path, detach: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        up = headrace("up", *detach, "--data", str(data), "--only", "s3", "--port-base", str(port))

    assert up.returncode == 1
    assert f"error PORT_TAKEN: port {port} for s3 is in use by another program" in up.stderr
