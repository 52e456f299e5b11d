"""A worker as a process: its signals, its folder, its end."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from headrace.worker.session import Worker
from headrace.worker.shim import PR_SET_PDEATHSIG, prctl


def run_worker(
    address: str,
    token: Callable[[], str],
    *,
    capacity: int,
    drain_s: float = 30.0,
    worker_id: str = "",
    folder: Path | None = None,
    parent: int | None = None,
) -> int:
    """Runs a worker until SIGTERM or SIGINT; returns the exit status.

    Args:
        address: ``host:port`` of the orchestrator.
        token: Reads the token to call it with.
        capacity: Steps at a time.
        drain_s: How long steps under way may take after the first signal; the second one ends them at once.
        worker_id: UUID of this start; made up when empty.
        folder: For the steps' folders; a temporary one by default.
        parent: A process with which this one dies.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    if parent is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            return 1
    steps = Path(tempfile.mkdtemp(prefix="headrace-worker-")) if folder is None else folder / "steps"
    shutil.rmtree(steps, ignore_errors=True)
    steps.mkdir(parents=True, mode=0o700)
    try:
        asyncio.run(_run(address, token, worker_id or str(uuid4()), capacity=capacity, steps=steps, drain_s=drain_s))
    finally:
        shutil.rmtree(steps, ignore_errors=True)
    return 0


async def _run(
    address: str, token: Callable[[], str], worker_id: str, *, capacity: int, steps: Path, drain_s: float
) -> None:
    worker = Worker(address, token, worker_id=worker_id, capacity=capacity, folder=steps, environment=os.environ)
    await _supervise(worker, drain_s)


async def _supervise(worker: Worker, drain_s: float) -> None:
    """Runs a worker until the first signal, then drains it until the second."""
    signals: asyncio.Queue[None] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, signals.put_nowait, None)
    working = asyncio.create_task(worker.run())
    for stopping in (signals.get, lambda: _either(worker.drain(drain_s), signals.get())):
        if not working.done():
            told = asyncio.create_task(stopping())
            await asyncio.wait((working, told), return_when=asyncio.FIRST_COMPLETED)
            told.cancel()
    working.cancel()
    with suppress(asyncio.CancelledError):
        await working


async def _either(*work: Coroutine[object, object, None]) -> None:
    tasks = [asyncio.create_task(each) for each in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
