"""The worker of this machine: a child process, started again when it dies."""

import asyncio
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

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
        self.pid: int | None = None
        """Of the process that runs now."""

    async def run(self) -> None:
        """Runs until cancelled; the process ends with it."""
        pause_s, loop = _FIRST_PAUSE_S, asyncio.get_running_loop()
        while True:
            began = loop.time()
            status = await self._once(str(uuid4()))
            pause_s = _FIRST_PAUSE_S if loop.time() - began > _STABLE_S else min(2 * pause_s, _LONGEST_PAUSE_S)
            _log.warning("local_worker_died", status=status, restart_in_s=pause_s)
            await asyncio.sleep(pause_s)

    async def _once(self, worker: str) -> int:
        host, _, port = self._settings.grpc_listen.rpartition(":")
        address = f"{'127.0.0.1' if host in ('0.0.0.0', '[::]') else host}:{port}"  # noqa: S104 - where to dial, not listen
        folder = self._settings.data / "worker"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "headrace.worker", "--address", address, "--worker-id", worker),
            *("--capacity", str(self._settings.orchestrator_local_workers), "--parent", str(os.getpid())),
            *("--folder", str(folder)),
            env=_environment(os.environ, folder),
        )
        self.pid = process.pid
        try:
            return await process.wait()
        finally:
            await asyncio.shield(self._end(process, worker))

    async def _end(self, process: asyncio.subprocess.Process, worker: str) -> None:
        self.pid = None
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), self._settings.drain_s)
            except TimeoutError:
                process.kill()
                await process.wait()
        with suppress(KitError):
            scheduler = (await self._leader.lead()).scheduler
            known = scheduler.workers.find(worker)
            if known is not None:
                scheduler.dispatcher.lost(known)


def _environment(given: Mapping[str, str], folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in given.items() if not name.startswith("HEADRACE_") or name.endswith(_KEPT)}
    return {**kept, "HEADRACE_DATA": str(folder)}
