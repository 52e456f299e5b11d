"""Ends what the parts' processes left behind when the supervisor was killed.

The kernel kills each part at the supervisor's death (see :mod:`headrace_local.launch`), but not a part's own children.
A small process holds one end of a pipe; when the supervisor is gone the pipe closes, and it kills every process group
it was told of. Run as ``python -I -S guard.py`` it is that process; only the standard library is imported then.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time


class Guard:
    """The supervisor's side of the pipe. Not thread-safe."""

    def __init__(self) -> None:
        self._writer: int | None = None
        self._pid: int | None = None

    def start(self) -> None:
        """Start the guarding process, in a session of its own."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", __file__],
                os.environ,
                file_actions=[(os.POSIX_SPAWN_DUP2, reader, 0)],
                setsid=True,
            )
        except BaseException:
            os.close(writer)
            raise
        finally:
            os.close(reader)
        self._writer = writer

    def watch(self, group: int) -> None:
        """Have a process group killed should this process die."""
        self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        """Take back :meth:`watch`: the group has ended."""
        self._tell(f"-{group}\n")

    def stop(self) -> None:
        """End the guarding process; what is still watched is killed. Idempotent."""
        if self._writer is not None:
            os.close(self._writer)
            self._writer = None
        if self._pid is not None:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
            self._pid = None

    def _tell(self, line: str) -> None:
        if self._writer is not None:
            with contextlib.suppress(BrokenPipeError):  # somebody killed the guard: the kernel's part remains
                os.write(self._writer, line.encode())


def main() -> None:
    """Follow the pipe to its end, then kill every group that is still watched."""
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line[0] == "+":
            groups.add(group)
        else:
            groups.discard(group)
    for _ in range(3):  # a process that is just being forked may escape the first round
        for group in groups:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        if groups:
            time.sleep(0.05)


if __name__ == "__main__":
    main()
