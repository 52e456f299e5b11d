"""The process that steps are forked from: the SDK is imported once, and a step begins in milliseconds.

It has one thread, calls nothing of gRPC or NumPy, and imports no code of a pipeline: each step imports that anew. It
takes orders as lines of JSON on standard input and answers on standard output::

    {"preload": ["polars", ...]}                           imports packages, before anything else
    <- {"ready": true}                                     false when it may not be forked any more
    {"run": 7, "folder": "/...", "environment": {...}}     forks a shim with a step (see ``headrace.worker.shim``)
    {"signal": 7, "number": 15}                            to that shim
    <- {"ended": 7, "status": 0}                           its exit status; minus the number of a signal

At the end of standard input, or when its parent dies, it ends, and every shim ends its step.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import sys
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from headrace.worker import child, shim
from headrace.worker.preload import import_all

_READ_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class _Job:
    """What a forked process is to become."""

    folder: Path
    environment: dict[str, str]


def main(argv: list[str]) -> int:
    """Serve until the end; return the exit status. Forked processes never return."""
    parent = int(argv[1])
    shim.prctl(shim.PR_SET_PDEATHSIG, signal.SIGKILL)
    shim.prctl(shim.PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != parent:
        return 1
    # Python from 3.12 on warns of a fork beside threads: OpenBLAS has some, and looks after its own.
    warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
    gc.freeze()  # what is there already is never collected, and so never copied
    job = _Template().serve()
    if job is None:
        return 0
    _become(job)
    return _leave(shim.supervise(os.getppid(), job.folder, lambda: child.run(job.folder)))


class _Template:
    def __init__(self) -> None:
        self._jobs: dict[int, int] = {}
        self._template = os.getpid()
        self._wakeup, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # of a terminal's group; the worker decides when this process ends

    def serve(self) -> _Job | None:
        """Takes orders to the end; in a forked process returns at once with what it is to become."""
        waiting = b""
        while True:
            ready, _, _ = select.select([0, self._wakeup], [], [])
            if self._wakeup in ready:
                os.read(self._wakeup, _READ_BYTES)
                self._reap()
            if 0 in ready:
                data = os.read(0, _READ_BYTES)
                if not data:
                    return None
                *lines, waiting = (waiting + data).split(b"\n")
                for line in lines:
                    job = self._obey(json.loads(line))
                    if job is not None:
                        return job

    def _obey(self, order: dict[str, Any]) -> _Job | None:  # Any: JSON
        if "preload" in order:
            told = {"ready": import_all(order["preload"])}
            gc.freeze()
            os.write(1, json.dumps(told).encode() + b"\n")
            return None
        if "signal" in order:
            for pid, number in self._jobs.items():
                if number == order["signal"]:
                    os.kill(pid, order["number"])
            return None
        pid = os.fork()
        if pid == 0:
            return _Job(Path(order["folder"]), order["environment"])
        self._jobs[pid] = order["run"]
        return None

    def _reap(self) -> None:
        for pid, status in shim.reaped():
            if pid not in self._jobs:
                continue
            code = os.waitstatus_to_exitcode(status)
            if code < 0:  # somebody killed the shim: what it looked after is below this process now
                shim.end_descendants(spare=set(self._jobs))
            told = {"ended": self._jobs.pop(pid), "status": code}
            os.write(1, json.dumps(told).encode() + b"\n")


def _become(job: _Job) -> None:
    """Makes a forked process as good as a new one."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.environ.clear()
    os.environ.update(job.environment)
    importlib.invalidate_caches()
    numpy_random: Any = sys.modules.get("numpy.random")  # its global generator was copied with the process
    if numpy_random is not None:
        numpy_random.seed()


def _leave(status: int) -> NoReturn:
    """Ends a step's process as Python does, but for taking every imported module apart, which costs 30 ms and more."""
    for module, name in ((threading, "_shutdown"), (atexit, "_run_exitfuncs")):  # they have no public names
        getattr(module, name)()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # the step may have closed them
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
