"""Starting, watching and ending one child process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_LAUNCHER = Path(__file__).with_name("launch.py")
_NOT_INHERITED = frozenset({"HEADRACE_POSTGRES_DSN", "HEADRACE_MIGRATION_DSN", "HEADRACE_TOKEN"})
_LOG_LIMIT_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class User:
    """An account to run a process as."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: program (absolute path) and arguments, and how."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    """Added to this process's environment."""
    cwd: Path = Path("/")
    user: User | None = None
    """``None``: the account of this process."""
    umask: int = 0o077


class Child:
    """One running process: the leader of its own session, killed by the kernel when this process's thread dies.

    Start children from a thread that lives as long as they should (the event loop's).
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.started = time.monotonic()
        """``time.monotonic()`` at the start."""

    @property
    def pid(self) -> int:
        """Process id, also the id of its process group."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; ``None`` while it runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait for the end and return the exit status."""
        return await self._process.wait()

    async def stop(self, *, by: signal.Signals, within_s: float) -> bool:
        """Send ``by`` and wait; after ``within_s`` kill the whole group. Return whether it ended by itself."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(by)
        drained = True
        try:
            async with asyncio.timeout(within_s):
                await self._process.wait()
        except TimeoutError:
            drained = False
        self.kill_group()
        await self._process.wait()
        return drained

    def kill_group(self) -> None:
        """SIGKILL whatever is left of the process and its descendants in the same group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


async def spawn(command: Command, *, log: Path) -> Child:
    """Start ``command`` with both outputs appended to ``log`` (0600, see :func:`rotate`)."""
    rotate(log)
    user = "-" if command.user is None else f"{command.user.uid}:{command.user.gid}"
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), user),
            *command.argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            cwd=command.cwd,
            env={**_inherited(), **command.env},
            start_new_session=True,
            umask=command.umask,
        )
    finally:
        os.close(descriptor)
    return Child(process)


def _inherited() -> dict[str, str]:
    # An administrator's keys, meant for this process, are not for what it starts.
    return {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}


async def run(command: Command, *, log: Path, within_s: float) -> int:
    """Run ``command`` to its end as :func:`spawn` does and return its exit status.

    Raises:
        TimeoutError: it did not end in time; it was killed.
    """
    child = await spawn(command, log=log)
    try:
        async with asyncio.timeout(within_s):
            return await child.wait()
    finally:
        child.kill_group()


def tail(log: Path, *, lines: int = 12) -> str:
    """Return the last lines of a log file, or an empty string when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 64 * 1024))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:] if lines > 0 else [])


def rotate(log: Path, *, limit_bytes: int = _LOG_LIMIT_BYTES) -> None:
    """Keep what a log over the limit holds as ``<log>.1`` and empty it; its writer, who appends, is not disturbed."""
    try:
        if log.stat().st_size > limit_bytes:
            shutil.copyfile(log, log.with_name(f"{log.name}.1"))
            os.truncate(log, 0)
    except FileNotFoundError:
        pass
