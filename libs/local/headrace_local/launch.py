"""Becomes another program that cannot outlive its parent.

Run as ``python -I -S launch.py PARENT_PID USER PROGRAM [ARGUMENT ...]``; USER is ``-`` or ``uid:gid``. A program of its
own, and not a ``preexec_fn``, because code between fork and exec of a process with threads (gRPC has them) may
dead-lock. Only the standard library is imported.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    """Drop to the account asked for, ask the kernel for SIGKILL at the parent's death, then exec."""
    parent, user, program = int(argv[1]), argv[2], argv[3:]
    if user != "-":
        uid, gid = (int(part) for part in user.split(":"))
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    # After the change of user: the kernel forgets the signal when credentials change.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit("the parent died before the start")
    os.execv(program[0], program)  # noqa: S606 - no shell is the point


if __name__ == "__main__":
    main(sys.argv)
