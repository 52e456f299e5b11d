"""What a test needs of the machine, and which process runs it.

A test marked ``browser``, ``mlflow``, ``modelsigning``, ``root``, ``faketime`` or ``strace`` is deselected where the
machine lacks that, and the last lines of the run say how many were, and what to install. With ``CI=true`` nothing is
deselected: such a test fails.

In a run of several processes (``make test``), tests that stand on running servers stay together in one process, so that
a session starts every server once: see ``GROUPS``. All others go one by one to whichever process is free. The scheduler
is our own because ``--dist loadgroup`` of pytest-xdist 3.8 does not group under pytest 9.2 (pytest-xdist issue 1386).
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_FAKETIME = ("lib/*/faketime/libfaketime.so.1", "lib/faketime/libfaketime.so.1", "local/lib/faketime/libfaketime.so.1")
GROUPS = {
    "contract": "infrastructure",
    "integration": "infrastructure",
    "chaos": "stack",
    "console": "stack",
    "e2e": "stack",
}
"""Folder of tests -> its group: ``infrastructure`` has PostgreSQL, Kafka and S3 alone, ``stack`` all of headrace."""

_DESELECTED = pytest.StashKey[Counter[str]]()
_OUTPUT = "headrace_deselected"


@dataclass(frozen=True, slots=True)
class Need:
    """Something of the machine that a marker stands for."""

    met: Callable[[], bool]
    remedy: str


@functools.cache
def chromium() -> Path | None:
    """The browser for console tests: ``HEADRACE_CHROMIUM``, or the first Chromium on PATH."""
    found = os.environ.get("HEADRACE_CHROMIUM") or next(filter(None, map(shutil.which, _BROWSERS)), None)
    return Path(found) if found else None


@functools.cache
def faketime_library() -> Path | None:
    """The library to put into ``LD_PRELOAD``."""
    return next((path for pattern in _FAKETIME for path in sorted(Path("/usr").glob(pattern))), None)


@functools.cache
def strace_works() -> bool:
    """Whether strace is installed and may trace a child."""
    strace = shutil.which("strace")
    if strace is None:
        return False
    return (
        subprocess.run([strace, "-o", os.devnull, "true"], capture_output=True, timeout=20, check=False).returncode == 0
    )


@functools.cache
def mlflow_python() -> Path | None:
    """The interpreter of the environment that has MLflow's client."""
    environment = Path(__file__).resolve().parents[2] / ".venv"
    return environment / "mlflow" / "bin" / "python" if (environment / ".mlflow.stamp").exists() else None


@functools.cache
def model_signing() -> Path | None:
    """The program ``model_signing`` of the environment that has it."""
    environment = Path(__file__).resolve().parents[2] / ".venv"
    stamp, program = environment / ".modelsigning.stamp", environment / "modelsigning" / "bin" / "model_signing"
    return program if stamp.exists() else None


NEEDS = {
    "browser": Need(lambda: chromium() is not None, "install Chromium (make setup-system), or set HEADRACE_CHROMIUM"),
    "mlflow": Need(lambda: mlflow_python() is not None, "make setup-mlflow"),
    "modelsigning": Need(lambda: model_signing() is not None, "make setup-modelsigning"),
    "root": Need(lambda: os.geteuid() == 0, "run as root"),
    "faketime": Need(lambda: faketime_library() is not None, "install libfaketime (make setup-system)"),
    "strace": Need(strace_works, "install strace (make setup-system); containers need the right to trace"),
}


class _WorkerNode(Protocol):
    workeroutput: dict[str, object]


def _missing(item: pytest.Item) -> str | None:
    return next((name for name, need in NEEDS.items() if item.get_closest_marker(name) and not need.met()), None)


def _on_ci() -> bool:
    return os.environ.get("CI") == "true"


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_DESELECTED] = Counter()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _on_ci():
        return
    missing = [_missing(item) for item in items]
    deselected = [item for item, need in zip(items, missing, strict=True) if need]
    if not deselected:
        return
    items[:] = [item for item, need in zip(items, missing, strict=True) if not need]
    config.hook.pytest_deselected(items=deselected)
    counts = Counter(need for need in missing if need)
    config.stash[_DESELECTED] = counts
    output: dict[str, object] | None = getattr(config, "workeroutput", None)
    if output is not None:
        output[_OUTPUT] = dict(counts)


def pytest_runtest_setup(item: pytest.Item) -> None:
    need = _missing(item)
    if need:
        pytest.fail(f"this test needs {need!r} and CI deselects nothing: {NEEDS[need].remedy}", pytrace=False)


class _Grouping(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types for mypy
    """Hands out whole groups, the largest first."""

    def _split_scope(self, nodeid: str) -> str:
        folders = nodeid.split("::", maxsplit=1)[0].split("/")
        return next((GROUPS[folder] for folder in folders if folder in GROUPS), nodeid)


class _Controller:
    """The process that hands out the tests."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Producer) -> LoadScopeScheduling:
        return _Grouping(config, log)

    def pytest_testnodedown(self, node: _WorkerNode) -> None:
        # Every worker collects the same tests, so any one's counts will do.
        counts = getattr(node, "workeroutput", {}).get(_OUTPUT)
        if counts:
            self._config.stash[_DESELECTED] = Counter(counts)


def pytest_sessionstart(session: pytest.Session) -> None:
    if session.config.pluginmanager.hasplugin("dsession"):
        session.config.pluginmanager.register(_Controller(session.config))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    counts = config.stash[_DESELECTED]
    if not counts:
        return
    terminalreporter.section("NOT RUN: this machine lacks what these tests need", sep="!", yellow=True, bold=True)
    for name, count in sorted(counts.items()):
        terminalreporter.line(f"{count} marked {name}: {NEEDS[name].remedy}", yellow=True)
