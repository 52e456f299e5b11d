"""Keeps one part running: start, readiness, restart after death, orderly stop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headrace_local.errors import DiskFull, LocalError, PartFailed
from headrace_local.guard import Guard
from headrace_local.part import Part
from headrace_local.process import Child, spawn, tail
from headrace_local.restarts import LOUD_FROM, RestartPolicy

State = Literal["stopped", "starting", "ready", "waiting"]
_POLL_S = 0.03
_MIN_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class Notice:
    """Something an operator wants to read as it happens."""

    part: str
    text: str
    loud: bool = False


Report = Callable[[Notice], None]


class Supervised:
    """One part under supervision. Not thread-safe: use it from the event loop that started it."""

    def __init__(self, part: Part, *, log: Path, report: Report, changed: Callable[[], None], guard: Guard) -> None:
        self.part = part
        self.log = log
        self.state: State = "stopped"
        self.restarts = 0
        self._report = report
        self._changed = changed
        self._guard = guard
        self._policy = RestartPolicy()
        self._child: Child | None = None
        self._task: asyncio.Task[None] | None = None
        self._was_ready = asyncio.Event()
        self._last_question = ""
        self._stopping = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._child.pid if self._child is not None and self._child.returncode is None else None

    async def start(self) -> None:
        """Start the part, keep it running from now on, and return when it is ready.

        Raises:
            PartFailed: it kept dying, or was not ready in time; the message ends with the log's last lines.
            DiskFull: the same, for want of space.
            LocalError: it could not be prepared.
        """
        self._task = asyncio.create_task(self._keep(), name=f"keep {self.part.name}")
        ready = asyncio.create_task(self._was_ready.wait())
        within_s = self.part.timing.ready_within_s
        try:
            await asyncio.wait({self._task, ready}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if self._task.done():
            self._task.result()
        if not self._was_ready.is_set():
            raise self._failure(f"was not ready within {within_s:.0f} s{self._last_question}")

    async def stop(self) -> None:
        """Ask the part to end, kill it when it does not in time, and stop keeping it. Idempotent."""
        self._stopping.set()
        timing = self.part.timing
        if self._child is not None:
            drained = await self._child.stop(by=timing.stop_signal, within_s=timing.stop_within_s)
            if drained:
                await self.part.stopped()
            else:
                self._report(
                    Notice(
                        self.part.name, f"did not stop within {timing.stop_within_s:.0f} s and was killed", loud=True
                    )
                )
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._become("stopped")

    async def _keep(self) -> None:
        while not self._stopping.is_set():
            died_after_s = await self._run_once()
            if self._stopping.is_set():
                return
            delay_s = self._policy.died(after_s=died_after_s)
            if not self._was_ready.is_set() and self._policy.recent_deaths >= LOUD_FROM:
                raise self._failure("keeps dying while it starts")
            self.restarts += 1
            self._tell_death(delay_s)
            self._become("waiting")
            await asyncio.sleep(max(delay_s, _MIN_PAUSE_S))

    async def _run_once(self) -> float:
        """Run the process to its end; return how long it lived."""
        try:
            command = await self.part.prepare()
            self._child = child = await spawn(command, log=self.log)
        except Exception as error:
            if not self._was_ready.is_set():
                raise
            # Whatever it is (no space, no memory, a jar that changed), it may pass, and the part must be kept.
            self._report(Notice(self.part.name, f"cannot start: {error}", loud=True))
            return 0.0
        self._guard.watch(child.pid)
        if self._stopping.is_set():  # stop() came while the process was being made
            child.kill_group()
        self._become("starting")
        watch = asyncio.create_task(self._watch_readiness())
        try:
            await child.wait()
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            child.kill_group()
            self._guard.forget(child.pid)
        return time.monotonic() - child.started

    async def _watch_readiness(self) -> None:
        while not await self._is_ready():  # noqa: ASYNC110 - another process cannot set our event
            await asyncio.sleep(_POLL_S)
        self._was_ready.set()
        self._become("ready")
        if self.restarts:
            self._report(Notice(self.part.name, "is ready again"))

    async def _is_ready(self) -> bool:
        try:
            return await self.part.is_ready()
        except Exception as error:  # noqa: BLE001 - half-started servers answer anything; the deadline tells the last of it
            self._last_question = f"; asked, it failed with {type(error).__name__}: {error}"
            return False

    def _become(self, state: State) -> None:
        self.state = state
        self._changed()

    def _tell_death(self, delay_s: float) -> None:
        status = self._child.returncode if self._child is not None else None
        how = f"by signal {-status}" if status is not None and status < 0 else f"with status {status}"
        if delay_s == 0:
            self._report(Notice(self.part.name, f"died {how}; starting it again"))
            return
        self._report(
            Notice(
                self.part.name,
                f"died {how}, {self._policy.recent_deaths} times within a minute; "
                f"next start in {delay_s:.0f} s; read {self.log}",
                loud=True,
            )
        )

    def _failure(self, what: str) -> LocalError:
        last = tail(self.log)
        kind = DiskFull if "No space left on device" in last else PartFailed
        space = ": no space left on the data folder's file system" if kind is DiskFull else ""
        return kind(f"{self.part.name} {what}{space}; its log is {self.log}\n{last}")
