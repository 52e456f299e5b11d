"""A disk that is full, and one that fails."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_BLOCK = bytes(1 << 20)


@contextmanager
def full(folder: Path, *, but_bytes: int = 0) -> Iterator[None]:
    """Fills the file system of a folder, but for some bytes, for the length of a ``with`` block."""
    ballast = folder / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            size = 0
            try:
                while True:
                    size += file.write(_BLOCK)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
            file.truncate(max(0, size - but_bytes))
        yield
    finally:
        ballast.unlink()


@contextmanager
def failing_sync(server: psutil.Process) -> Iterator[None]:
    """Every ``fsync`` and ``fdatasync`` of a server and its children fails with EIO; needs strace."""
    targets = [str(each.pid) for each in (server, *server.children(recursive=True))]
    attach = [argument for pid in targets for argument in ("-p", pid)]
    inject = ["-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO"]
    tracer = subprocess.Popen(["strace", "-f", "-qq", "-o", "/dev/null", *inject, *attach])
    try:
        yield
    finally:
        tracer.terminate()
        tracer.wait(10)
