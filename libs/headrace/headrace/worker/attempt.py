"""One attempt of a step on a worker: its folder, its process, its log and its result."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from headrace.api.orchestrator.v1.resources_pb2 import StepOutput
from headrace.api.orchestrator.v1.service_pb2 import Lease, LogChunk, StepResult
from headrace.worker import shim

MAX_LOG_BYTES: Final = 64 * 1024 * 1024
MAX_OUTPUT_BYTES: Final = 8 * 1024 * 1024
CHUNK_BYTES: Final = 256 * 1024
STOP_WITHIN_S: Final = 10.0
TIMEOUT, WORKER_LOST, PROCESS_DIED, CANCELLED, OUTPUT_TOO_LARGE = (
    "TIMEOUT",
    "WORKER_LOST",
    "PROCESS_DIED",
    "CANCELLED",
    "OUTPUT_TOO_LARGE",
)


class Attempt:
    """Runs one lease; see ``run``.

    Args:
        lease: What to run.
        folder: A folder of its own, made here and removed by ``remove``.
        environment: Of the process.
    """

    def __init__(self, lease: Lease, folder: Path, environment: Mapping[str, str]) -> None:
        self.lease = lease
        self.result: StepResult | None = None
        """Once it ended."""
        self.log_sent = 0
        """Bytes of its log that are stored, as far as this worker knows."""
        self._folder = folder
        self._environment = environment
        self._stop_reason: tuple[str, str] | None = None
        self._stopping = asyncio.Event()

    def stop(self, error_class: str, error: str) -> None:
        """Ends the process and all it started; that is its result, unless it ended before."""
        if self._stop_reason is None:
            self._stop_reason = (error_class, error)
            self._stopping.set()

    async def run(self) -> None:
        """Runs the step to its end, whatever that is."""
        lease = self.lease
        self._prepare()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", shim.__file__, str(os.getpid()), str(self._folder)),
            stdin=asyncio.subprocess.DEVNULL,
            env=self._environment,
            start_new_session=True,
        )
        ended = asyncio.ensure_future(process.wait())
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((ended, stopping), timeout=lease.timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                self.stop(TIMEOUT, f"it took longer than {lease.timeout_s:g} s")
                await _end(process)
            status = await ended
        finally:
            stopping.cancel()
            if not ended.done():  # the worker ends: the shim ends the tree by itself
                ended.cancel()
                with suppress(ProcessLookupError):
                    process.terminate()
        if status == -signal.SIGKILL:
            _end_marked(lease.token)
        self.result = self._outcome(status)

    def log_chunk(self) -> LogChunk | None:
        """The next bytes of its log that were not stored yet."""
        if self.log_sent >= MAX_LOG_BYTES:
            return None
        try:
            with (self._folder / "log").open("rb") as file:
                file.seek(self.log_sent)
                data = file.read(CHUNK_BYTES)
        except FileNotFoundError:
            return None
        if not data:
            return None
        lease = self.lease
        return LogChunk(
            token=lease.token, offset=self.log_sent, data=data, run=lease.run, step=lease.step, attempt=lease.attempt
        )

    def remove(self) -> None:
        """Deletes its folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _prepare(self) -> None:
        lease = self.lease
        (self._folder / "work").mkdir(parents=True, mode=0o700)
        given = {
            "function": lease.function,
            "source_path": lease.source_path,
            "arguments": dict(lease.arguments),
            "run": lease.run,
            "step": lease.step,
            "attempt": lease.attempt,
            "token": lease.token,
            "causation_id": lease.causation_id,
            "correlation_id": lease.correlation_id,
            "on_behalf_of": lease.on_behalf_of,
        }
        (self._folder / "input.json").write_text(json.dumps(given))

    def _outcome(self, status: int) -> StepResult:
        lease = self.lease
        result = StepResult(token=lease.token, run=lease.run, step=lease.step)
        try:
            told: dict[str, str] = json.loads((self._folder / "result.json").read_text())
        except (OSError, ValueError):
            reason = self._stop_reason or (PROCESS_DIED, f"the process ended with status {status}")
            result.error_class, result.error = reason
            return result
        if "json" not in told:
            result.error_class, result.error = told["error_class"], told["error"]
        elif len(told["json"].encode()) > MAX_OUTPUT_BYTES:
            result.error_class = OUTPUT_TOO_LARGE
            result.error = f"an output may have {MAX_OUTPUT_BYTES} bytes of JSON: log an artifact and return its name"
        else:
            result.output.CopyFrom(StepOutput(json=told["json"]))
        return result


async def _end(process: asyncio.subprocess.Process) -> None:
    """Has the shim end the step's tree, and waits until it did."""
    with suppress(ProcessLookupError):
        process.terminate()
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), STOP_WITHIN_S)
        return
    with suppress(ProcessLookupError):
        process.kill()


def _end_marked(token: int) -> None:
    """Kills what a step started whose shim was killed: every process carries the token in its environment."""
    mark = f"HEADRACE_STEP_TOKEN={token}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)
