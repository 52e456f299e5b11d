"""MLflow itself: its client in a process, and its server, from the environment of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.eventually import eventually
from tests.support.needs import mlflow_python

SCENARIOS = Path(__file__).resolve().parents[1] / "e2e" / "mlflow_scenarios.py"


class Script:
    """A process with MLflow's client, and the tracking URI it is given."""

    def __init__(self, process: subprocess.Popen[str], uri: str) -> None:
        self._process, self._uri = process, uri

    def __call__(self, scenario: str) -> Any:  # Any: JSON
        """What a scenario returns; fails where it failed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"scenario": scenario, "uri": self._uri}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the client's process has ended"
        answer = json.loads(line)
        if "error" in answer:
            pytest.fail(answer["error"], pytrace=False)
        return answer["result"]


@contextmanager
def client_process(folder: Path, token: str = "") -> Iterator[subprocess.Popen[str]]:
    """MLflow's client, which runs scenarios."""
    process = subprocess.Popen(
        [str(mlflow_python()), str(SCENARIOS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=folder,
        env={
            **_environment(folder),
            **({"MLFLOW_TRACKING_TOKEN": token} if token else {}),
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # a 5xx shall be seen
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
            "MLFLOW_REQUIREMENTS_INFERENCE_TIMEOUT": "60",
        },
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


@contextmanager
def mlflow_server(folder: Path, *, store: str = "", workers: int = 1) -> Iterator[str]:
    """The address of an MLflow server of one's own, its files in ``folder``, and SQLite there without a ``store``."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [
        *(str(mlflow_python()), "-m", "mlflow", "server", "--workers", str(workers), "--host", "127.0.0.1"),
        *("--port", str(port), "--backend-store-uri", store or f"sqlite:///{folder}/mlflow.db"),
        *("--artifacts-destination", str(folder / "files")),
    ]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=_environment(folder), stdout=log, stderr=log, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{port}"
        eventually(lambda: process.poll() is not None or _answers(address), within_s=120)
        assert process.poll() is None, (folder / "server.log").read_text()[-4000:]
        yield address
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PYTHON", "PYTEST"))}
    return {**kept, "HOME": str(folder), "GIT_PYTHON_REFRESH": "quiet", "MLFLOW_DISABLE_TELEMETRY": "true"}
