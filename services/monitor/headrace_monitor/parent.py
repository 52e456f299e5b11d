"""Ends this process when the one that started it is gone (Linux)."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Asks the kernel for SIGKILL at the parent's death; does nothing when started by hand."""
    parent = os.environ.get("HEADRACE_PARENT_PID", "")
    if not parent:
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        os._exit(1)  # it was gone before the kernel was asked
