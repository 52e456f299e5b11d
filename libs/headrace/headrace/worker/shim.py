"""Stands between a worker and one step: runs the step in a process of its own and leaves no descendant of it.

The shim is the subreaper of everything the step starts, daemons included. It ends when the step ended and all of that
is gone; told to stop (SIGTERM), or when its parent dies, it ends them first. The step leads a session of its own and
dies with the shim.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

GRACE_S: Final = 0.5
"""Between asking a step to end and ending it."""
PR_SET_PDEATHSIG: Final = 1
PR_SET_CHILD_SUBREAPER: Final = 36
_SIGNALS: Final = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}


def supervise(parent: int, folder: Path, run_step: Callable[[], int]) -> int:
    """Becomes the shim of a step. Called in a process of its own with one thread.

    Returns only in the step's process, with the status that it is to exit with; the shim exits with the same status, or
    with 128 and the number of the signal that ended the step.

    Args:
        parent: Process with which the shim dies.
        folder: Has ``work`` in it, which becomes the step's working directory, and gets ``log``, its output.
        run_step: Carries out the step.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    if os.getppid() != parent:
        os._exit(1)
    shim = os.getpid()
    step = os.fork()
    if step == 0:
        _become_step(shim, folder)
        return run_step()
    status = _wait(step, parent)
    if _has_children():  # most steps leave none, and looking for them means reading all of /proc
        end_descendants()
    os._exit(status)


def prctl(option: int, value: int) -> None:
    """Linux's ``prctl``. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def reaped() -> Iterator[tuple[int, int]]:
    """Reaps what has ended: process ids and their wait statuses."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status


def end_descendants(spare: Collection[int] = ()) -> None:
    """Kills and reaps everything below this process, except for what is at and below the children in ``spare``.

    What forks meanwhile is met in the next round.
    """
    while below := _descendants(spare):
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in below:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _descendants(spare: Collection[int]) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError, ValueError, IndexError):
                stat = (entry / "stat").read_bytes()
                children.setdefault(int(stat[stat.rindex(b")") + 2 :].split()[1]), []).append(int(entry.name))
    found: list[int] = []
    queue = [os.getpid()]
    while queue:
        below = [pid for pid in children.get(queue.pop(), []) if pid not in spare]
        found.extend(below)
        queue.extend(below)
    return found


def _wait(step: int, parent: int) -> int:
    """Reap until the step has ended. At SIGTERM it is asked to end; when the parent is gone, there is no grace."""
    deadline: float | None = None
    while True:
        status = _reap(step)
        if status is not None:
            return status
        if deadline is not None and time.monotonic() >= deadline:
            return 128 + signal.SIGKILL
        left_s = 3600.0 if deadline is None else max(0.0, deadline - time.monotonic())
        caught = signal.sigtimedwait(_SIGNALS, left_s)
        if caught is not None and caught.si_signo != signal.SIGCHLD and deadline is None:
            if os.getppid() != parent:
                return 128 + signal.SIGKILL
            deadline = time.monotonic() + GRACE_S
            with contextlib.suppress(ProcessLookupError):
                os.killpg(step, signal.SIGTERM)


def _reap(step: int) -> int | None:
    """Reap what has ended; the step's exit status when that is among it."""
    found = None
    for pid, status in reaped():
        if pid == step:
            code = os.waitstatus_to_exitcode(status)
            found = code if code >= 0 else 128 - code
    return found


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _become_step(shim: int, folder: Path) -> None:
    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != shim:
        os._exit(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(folder / "work")
