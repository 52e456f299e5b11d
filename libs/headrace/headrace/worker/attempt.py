"""One attempt of a step on a worker: its folder, its process, its log and its result."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from headrace.api.orchestrator.v1.resources_pb2 import StepOutput
from headrace.api.orchestrator.v1.service_pb2 import Lease, LogChunk, StepResult
from headrace.worker.forks import LOST, Forked, Template

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
        template: What its process is forked from.
        environment: Of the process.
    """

    def __init__(self, lease: Lease, folder: Path, *, template: Template, environment: Mapping[str, str]) -> None:
        self.lease = lease
        self._template = template
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
        forked = await self._template.fork(self._folder, self._environment)
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            waiting = (forked.ended, stopping)
            await asyncio.wait(waiting, timeout=lease.timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if not forked.ended.done():
                self.stop(TIMEOUT, f"it took longer than {lease.timeout_s:g} s")
                await _end(forked)
            status = await forked.ended
        finally:
            stopping.cancel()
            forked.send(signal.SIGTERM)
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
            told: dict[str, Any] = json.loads((self._folder / "result.json").read_text())  # Any: JSON
        except (OSError, ValueError):
            self._suspect(status)
            died = (WORKER_LOST, "its template died") if status == LOST else (PROCESS_DIED, _said(status))
            result.error_class, result.error = self._stop_reason or died
            return result
        if "json" not in told:
            result.error_class, result.error = told["error_class"], told["error"]
        elif len(told["json"].encode()) > MAX_OUTPUT_BYTES:
            result.error_class = OUTPUT_TOO_LARGE
            result.error = f"an output may have {MAX_OUTPUT_BYTES} bytes of JSON: log an artifact and return its name"
        else:
            result.output.CopyFrom(StepOutput(json=told["json"]))
            self._template.learn(told["imported"])
        return result

    def _suspect(self, status: int) -> None:
        hung = self._stop_reason is not None and self._stop_reason[0] == TIMEOUT
        if hung or (self._stop_reason is None and status != LOST):
            self._template.distrust()


async def _end(forked: Forked) -> None:
    """Has the shim end the step's tree, and waits until it did."""
    forked.send(signal.SIGTERM)
    await asyncio.wait((forked.ended,), timeout=STOP_WITHIN_S)
    forked.send(signal.SIGKILL)


def _said(status: int) -> str:
    number = status - 128 if status > 128 else -status
    with suppress(ValueError):
        return f"the process was ended by {signal.Signals(number).name}"
    return f"the process exited with status {status} before its function returned"
