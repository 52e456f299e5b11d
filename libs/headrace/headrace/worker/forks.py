"""The worker's side of the template: starts it, has it fork steps, hears of their end."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

LOST = -1000
"""Status of a process whose template died; it is dead, too."""


class Forked:
    """A shim with a step below it."""

    def __init__(self, template: Template, number: int) -> None:
        self._template, self._number = template, number
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """Its exit status, minus the number of the signal that ended it, or ``LOST``."""

    def send(self, number: signal.Signals) -> None:
        """Sends a signal, unless it has ended."""
        if not self.ended.done():
            self._template.order({"signal": self._number, "number": int(number)})


class Template:
    """A template process, started when it is first needed, and anew when it died. For one event loop."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._forked: dict[int, Forked] = {}

    async def start(self) -> None:
        """Starts the process if there is none."""
        async with self._starting:
            if self._process is None:
                command = (sys.executable, "-m", "headrace.worker.template", str(os.getpid()))
                pipe = asyncio.subprocess.PIPE
                self._process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
                self._listening = asyncio.create_task(self._listen(self._process))

    async def fork(self, folder: Path, environment: Mapping[str, str]) -> Forked:
        """Begins a step whose orders lie in ``folder``."""
        await self.start()
        number = next(self._numbers)
        forked = self._forked[number] = Forked(self, number)
        self.order({"run": number, "folder": str(folder), "environment": dict(environment)})
        return forked

    def order(self, order: Mapping[str, object]) -> None:
        """Sends one order; to a process that has died it goes nowhere."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(orjson.dumps(order) + b"\n")

    async def close(self) -> None:
        """Ends the process; every step below it ends."""
        if self._process is not None:
            self._process.kill()
        if self._listening is not None:
            await self._listening

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            raise AssertionError("it was started with a pipe")
        async for line in process.stdout:
            told: dict[str, Any] = orjson.loads(line)  # Any: JSON
            self._end(told["ended"], told["status"])
        await process.wait()
        self._process = None
        for number in list(self._forked):
            self._end(number, LOST)

    def _end(self, number: int, status: int) -> None:
        forked = self._forked.pop(number, None)
        if forked is not None and not forked.ended.done():
            forked.ended.set_result(status)
