"""Helpers for tests of real processes: waiting, looking, a file system that fills up."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path

import psutil

from headrace_local.files import read_json
from headrace_local.folder import DataFolder


def eventually(condition: Callable[[], bool], *, within_s: float = 60) -> float:
    """Wait until ``condition`` holds and return the seconds it took; fails after ``within_s``."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < within_s, "the condition never came true"
        time.sleep(0.02)
    return time.monotonic() - started


def lives(process: psutil.Process) -> bool:
    """Whether the very process still runs (its id may be another's by now; a zombie does not run)."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def start_supervisor(data: Path, *, only: str) -> subprocess.Popen[bytes]:
    """Run a stack's supervisor as a process of its own and wait until all is ready."""
    folder = DataFolder(data)
    process = subprocess.Popen([sys.executable, "-m", "headrace_local", "--data", str(data), "--only", only])

    def ready() -> bool:
        assert process.poll() is None, "the supervisor ended"
        state = read_json(folder.state) or {}
        return state.get("pid") == process.pid and state.get("phase") == "ready"

    eventually(ready)
    return process


@contextlib.contextmanager
def tmpfs(path: Path, *, size_mib: int) -> Generator[None]:
    """Mount a small file system on ``path`` for the length of a ``with`` block; needs root."""
    path.mkdir(mode=0o711)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mib}m,mode=711", "tmpfs", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)
