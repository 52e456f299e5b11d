"""The worker of this machine: a child process, started again when it dies."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import psutil
import structlog

from headrace_kit.errors import KitError
from headrace_orchestrator.config import OrchestratorSettings
from headrace_orchestrator.leading import Leader

_log = structlog.get_logger(__name__)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _STABLE_S = 0.1, 30.0, 30.0
_KEPT = ("_ADDRESS", "_URL", "_BOOTSTRAP", "S3_ENDPOINT", "TOKEN_FILE")
"""Ends of the names of ``HEADRACE_`` variables that steps may see: where things are, and no secrets of this service."""


class LocalWorker:
    """Keeps one worker process running.

    Args:
        settings: Of this service.
        leader: Is told at once when the process dies, so that its steps go to the next one.
    """

    def __init__(self, settings: OrchestratorSettings, leader: Leader) -> None:
        self._settings, self._leader = settings, leader
        self._noted = settings.data / "worker.json"

    async def run(self) -> None:
        """Runs until cancelled; the process ends with it."""
        pause_s, loop = _FIRST_PAUSE_S, asyncio.get_running_loop()
        await self._end_former()
        while True:
            began = loop.time()
            status = await self._once(str(uuid4()))
            pause_s = _FIRST_PAUSE_S if loop.time() - began > _STABLE_S else min(2 * pause_s, _LONGEST_PAUSE_S)
            _log.warning("local_worker_died", status=status, restart_in_s=pause_s)
            await asyncio.sleep(pause_s)

    async def _once(self, worker: str) -> int:
        process = self._spawn(worker)
        _note(self._noted, worker, process.pid)
        try:
            await _ended(process.pid)
        except asyncio.CancelledError:
            await asyncio.shield(self._stop(process))
            raise
        status = process.wait()
        await self._give_up(worker)
        return status

    def _spawn(self, worker: str) -> "subprocess.Popen[bytes]":
        """Starts the process, by Popen: it runs none of gRPC's fork handlers. It dies with the thread that did."""
        host, _, port = self._settings.grpc_listen.rpartition(":")
        address = f"{'127.0.0.1' if host in ('0.0.0.0', '[::]') else host}:{port}"  # noqa: S104 - where to dial
        folder = self._settings.data / "worker"
        command = [sys.executable, "-m", "headrace.worker", "--address", address, "--worker-id", worker]
        command += ["--capacity", str(self._settings.orchestrator_local_workers), "--parent", str(os.getpid())]
        command += ["--folder", str(folder), "--drain-s", "0"]  # it can report to nobody once this process stops
        return subprocess.Popen(command, env=_environment(os.environ, folder))

    async def _stop(self, process: "subprocess.Popen[bytes]") -> None:
        process.terminate()
        try:
            async with asyncio.timeout(self._settings.drain_s):
                await _ended(process.pid)
        except TimeoutError:
            process.kill()
        process.wait()

    async def _end_former(self) -> None:
        """The worker of a former process of this service died with it: its steps need not wait for their leases."""
        former = _noted(self._noted)
        if former is not None:
            if former.pid is not None:
                with suppress(ProcessLookupError):
                    await _ended(former.pid)
            await self._give_up(former.worker)

    async def _give_up(self, worker: str) -> None:
        with suppress(KitError):
            scheduler = (await self._leader.lead()).scheduler
            known = scheduler.workers.find(worker)
            if known is not None:
                scheduler.dispatcher.lost(known)


@dataclass(frozen=True, slots=True)
class _Former:
    worker: str
    pid: int | None


def _note(path: Path, worker: str, pid: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(orjson.dumps({"worker": worker, "pid": pid, "began": psutil.Process(pid).create_time()}))
    partial.replace(path)


def _noted(path: Path) -> _Former | None:
    """Who was noted last; without a process id when that process is gone."""
    try:
        noted: dict[str, Any] = orjson.loads(path.read_bytes())  # Any: JSON
        worker, pid, began = str(noted["worker"]), int(noted["pid"]), float(noted["began"])
    except (OSError, ValueError, KeyError):
        return None
    try:
        alive = psutil.Process(pid).create_time() == began
    except psutil.NoSuchProcess:
        alive = False
    return _Former(worker, pid if alive else None)


async def _ended(pid: int) -> None:
    """Returns when a process has ended; a child is not reaped. Raises ProcessLookupError when it was gone before."""
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    descriptor = os.pidfd_open(pid)
    loop.add_reader(descriptor, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _environment(given: Mapping[str, str], folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in given.items() if not name.startswith("HEADRACE_") or name.endswith(_KEPT)}
    return {**kept, "HEADRACE_DATA": str(folder)}
