"""Takes from this process, for good, what a model does not need: the network, other files, new privileges, much memory.

Linux only. Every part is asked of the kernel directly; which parts held is returned, and the caller decides.
"""

import ctypes
import os
import resource
import signal
import struct
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from typing import Final

MEMORY_BYTES: Final = 8 << 30
_CLONE_NEWNET, _CLONE_NEWUSER = 0x40000000, 0x10000000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_DUMPABLE = 1, 38, 4
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_RIGHTS_BY_ABI: Final = ((1 << 13) - 1, (1 << 14) - 1, (1 << 15) - 1)


def enter() -> dict[str, bool]:
    """Closes the sandbox around this process and says which parts of it hold.

    Parts: ``parent`` (it dies with its parent), ``privileges`` (none can be gained), ``limits`` (memory, no core, no
    file growth), ``network`` (one of its own, with nothing in it), ``files`` (only Python's own can be read, none
    written), ``dump`` (its memory can not be read by others of the user).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    return {
        "parent": libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0,
        "privileges": libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0,
        "limits": _limit(),
        "network": libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0 or libc.unshare(_CLONE_NEWNET) == 0,
        "files": _restrict_files(libc, _readable()),
        "dump": libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0,
    }


def _limit() -> bool:
    for kind, most in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0)):
        _, hard = resource.getrlimit(kind)
        wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (wanted, wanted))
    return True


def _readable() -> list[str]:
    """Python, its packages, and the system's libraries."""
    paths = {sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), *(each for each in sys.path if each)}
    return sorted({os.path.realpath(each) for each in (*paths, "/usr/lib", "/lib", "/lib64", "/usr/share/zoneinfo")})


def _restrict_files(libc: ctypes.CDLL, readable: Iterable[str]) -> bool:
    """Landlock: reading beneath ``readable`` and nothing else."""
    abi: int = libc.syscall(_LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION)
    if abi < 1:
        return False
    handled = ctypes.create_string_buffer(struct.pack("<Q", _RIGHTS_BY_ABI[min(abi, 3) - 1]), 8)
    ruleset: int = libc.syscall(_LANDLOCK_CREATE, handled, 8, 0)
    if ruleset < 0:
        return False
    try:
        for path in readable:
            _allow(libc, ruleset, path)
        return int(libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0)) == 0
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str) -> None:
    try:
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rights = _READ_FILE | _READ_DIR if Path(path).is_dir() else _READ_FILE
        rule = ctypes.create_string_buffer(struct.pack("<Qi", rights, folder), 12)
        libc.syscall(_LANDLOCK_ADD, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(folder)
