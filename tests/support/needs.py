"""What a test needs of the machine, and which process runs it.

A test marked ``browser``, ``root``, ``faketime`` or ``strace`` is deselected where the machine lacks that, and the last lines of
the run say how many were and what to install. With ``CI=true`` nothing is deselected: such a test fails instead.

Tests that stand on running servers are gathered into groups, one process each under ``--dist loadgroup``, so that a session starts
every server once: ``stack`` has all of headrace (the folders ``e2e``, ``console``, ``chaos``), ``infrastructure`` has PostgreSQL,
Kafka and S3 alone. Everything else goes to whichever process is free. A test's own ``xdist_group`` mark goes before.
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

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_FAKETIME = ("lib/*/faketime/libfaketime.so.1", "lib/faketime/libfaketime.so.1", "local/lib/faketime/libfaketime.so.1")
_STACK_FOLDERS = frozenset({"e2e", "console", "chaos"})
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


NEEDS = {
    "browser": Need(lambda: chromium() is not None, "install Chromium (make setup-system), or set HEADRACE_CHROMIUM"),
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


def _group(item: pytest.Item) -> str | None:
    fixtures: list[str] = getattr(item, "fixturenames", [])
    if _STACK_FOLDERS & set(item.path.parts) or "stack" in fixtures:
        return "stack"
    return "infrastructure" if "infrastructure" in fixtures else None


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_DESELECTED] = Counter()


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        group = _group(item)
        if group and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(group))
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
    if hasattr(config, "workeroutput"):
        config.workeroutput[_OUTPUT] = dict(counts)


def pytest_runtest_setup(item: pytest.Item) -> None:
    need = _missing(item)
    if need:
        pytest.fail(f"this test needs {need!r} and CI deselects nothing: {NEEDS[need].remedy}", pytrace=False)


class _Xdist:
    """Gathers what the workers deselected: every worker collects the same tests, so any one's counts will do."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: _WorkerNode) -> None:
        counts = getattr(node, "workeroutput", {}).get(_OUTPUT)
        if counts:
            self._config.stash[_DESELECTED] = Counter(counts)


def pytest_sessionstart(session: pytest.Session) -> None:
    if session.config.pluginmanager.hasplugin("dsession"):
        session.config.pluginmanager.register(_Xdist(session.config))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    counts = config.stash[_DESELECTED]
    if not counts:
        return
    terminalreporter.section("NOT RUN: this machine lacks what these tests need", sep="!", yellow=True, bold=True)
    for name, count in sorted(counts.items()):
        terminalreporter.line(f"{count} marked {name}: {NEEDS[name].remedy}", yellow=True)
