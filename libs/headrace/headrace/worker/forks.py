"""The worker's side of the template: starts it, has it fork steps, hears of their end.

What steps imported of the installed packages is imported beforehand, by a template of its own, which takes the place of
the one before when it is ready: no step waits for that. Installing a package ends what was imported.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import orjson

from headrace.worker.preload import installed

LOST: Final = -1000
"""Status of a process whose template died; it is dead, too."""
MAX_MODULES: Final = 20_000
PRELOAD_WITHIN_S: Final = 120.0
_LINE_BYTES: Final = 1 << 20
_log = logging.getLogger("headrace.worker")


class Forked:
    """A shim with a step below it."""

    def __init__(self, process: _Process, number: int) -> None:
        self._process, self._number = process, number
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """Its exit status, minus the number of the signal that ended it, or ``LOST``."""

    def send(self, number: signal.Signals) -> None:
        """Sends a signal, unless it has ended."""
        if not self.ended.done():
            self._process.order({"signal": self._number, "number": int(number)})


class Template:
    """Template processes: the one that steps are forked from, and those that still have steps. For one event loop.

    Args:
        packages: Changes when a package is installed or removed.
    """

    def __init__(self, *, packages: Callable[[], object] = installed) -> None:
        self._packages = packages
        self._made_with: object = None
        self._current: _Process | None = None
        self._processes: set[_Process] = set()
        self._starting = asyncio.Lock()
        self._modules: dict[str, None] = {}
        self._preloading: asyncio.Task[None] | None = None
        self.is_trusted = True
        """Whether steps find anything imported beforehand."""

    async def start(self) -> None:
        """Starts a process unless there is one, with the packages that are installed."""
        async with self._starting:
            made_with = self._packages()
            if self._current is not None and self._current.is_alive and self._made_with == made_with:
                return
            self._replace(await self._new())
            self._made_with = made_with
            self._preload()

    async def fork(self, folder: Path, environment: Mapping[str, str]) -> Forked:
        """Begins a step whose orders lie in ``folder``."""
        await self.start()
        if self._current is None:
            raise AssertionError("it was started")
        return self._current.fork(folder, environment)

    def learn(self, modules: Sequence[str]) -> None:
        """A step that went well imported these; the next ones will find them imported."""
        new = [each for each in modules if each not in self._modules]
        if new and self.is_trusted and len(self._modules) + len(new) <= MAX_MODULES:
            self._modules.update(dict.fromkeys(new))
            self._preload()

    def distrust(self) -> None:
        """A step crashed or hung: from now on each imports everything itself, in case that was why."""
        if self._current is not None and self._current.has_preloaded:
            _log.warning("a step crashed or hung: nothing is imported beforehand from now on")
            self.is_trusted = False
            self._current.retire()
            self._current = None

    async def close(self) -> None:
        """Ends the processes; every step below them ends."""
        if self._preloading is not None:
            self._preloading.cancel()
            with suppress(asyncio.CancelledError):
                await self._preloading
        for process in list(self._processes):
            await process.close()

    async def _new(self) -> _Process:
        process = await _Process.start(self._processes.discard)
        self._processes.add(process)
        return process

    def _replace(self, process: _Process) -> None:
        if self._current is not None:
            self._current.retire()
        self._current = process

    def _preload(self) -> None:
        busy = self._preloading is not None and not self._preloading.done()
        if self._modules and self.is_trusted and not busy:
            self._preloading = asyncio.create_task(self._preload_all())

    async def _preload_all(self) -> None:
        loaded = 0
        while self.is_trusted and loaded < len(self._modules):
            loaded, made_with = len(self._modules), self._packages()
            process = await self._new()
            if not await process.preload(list(self._modules)):
                _log.warning("what steps import can not be imported beforehand: something of it starts threads")
                self.is_trusted = False
                await process.close()
            elif self._made_with == made_with and self.is_trusted:
                self._replace(process)
            else:  # packages were installed meanwhile, and `start` made a new one
                process.retire()
                loaded = 0


class _Process:
    """One template process."""

    def __init__(self, process: asyncio.subprocess.Process, gone: Callable[[_Process], None]) -> None:
        self._process = process
        self._gone = gone
        self._numbers = itertools.count(1)
        self._forked: dict[int, Forked] = {}
        self._is_retired = False
        self._ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.is_alive = True
        self.has_preloaded = False
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, gone: Callable[[_Process], None]) -> _Process:
        command = (sys.executable, "-m", "headrace.worker.template", str(os.getpid()))
        pipe = asyncio.subprocess.PIPE
        return cls(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=_LINE_BYTES), gone)

    async def preload(self, modules: Sequence[str]) -> bool:
        """Has it import modules; whether it may be forked afterwards."""
        self.order({"preload": modules})
        try:
            async with asyncio.timeout(PRELOAD_WITHIN_S):
                self.has_preloaded = await self._ready
        except TimeoutError:
            return False
        return self.has_preloaded

    def fork(self, folder: Path, environment: Mapping[str, str]) -> Forked:
        number = next(self._numbers)
        forked = self._forked[number] = Forked(self, number)
        if self.is_alive:
            self.order({"run": number, "folder": str(folder), "environment": dict(environment)})
        else:
            self._end(number, LOST)
        return forked

    def order(self, order: Mapping[str, object]) -> None:
        """Sends one order; to a process that has died it goes nowhere."""
        if self.is_alive and self._process.stdin is not None:
            self._process.stdin.write(orjson.dumps(order) + b"\n")

    def retire(self) -> None:
        """Ends it once the steps below it have ended."""
        self._is_retired = True
        if not self._forked and self._process.stdin is not None:
            self._process.stdin.close()

    async def close(self) -> None:
        if self.is_alive:
            self._process.kill()
        await self._listening

    async def _listen(self) -> None:
        if self._process.stdout is None:
            raise AssertionError("it was started with a pipe")
        async for line in self._process.stdout:
            told: dict[str, Any] = orjson.loads(line)  # Any: JSON
            if "ready" in told:
                self._ready.set_result(told["ready"])
            else:
                self._end(told["ended"], told["status"])
        await self._process.wait()
        self.is_alive = False
        if not self._ready.done():
            self._ready.set_result(False)
        for number in list(self._forked):
            self._end(number, LOST)
        self._gone(self)

    def _end(self, number: int, status: int) -> None:
        forked = self._forked.pop(number, None)
        if forked is not None and not forked.ended.done():
            forked.ended.set_result(status)
        if self._is_retired:
            self.retire()
