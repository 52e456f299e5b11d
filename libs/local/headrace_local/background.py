"""A stack in a thread of its own, for code that is not asynchronous: the demo and tests."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Coroutine
from typing import TypeVar

from headrace_local.blueprint import Addresses
from headrace_local.stack import Stack

T = TypeVar("T")
_WITHIN_S = 240.0


class BackgroundStack:
    """A :class:`Stack` driven from synchronous code; its event loop lives in a thread until :meth:`stop`."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="headrace-stack", daemon=True)

    @property
    def addresses(self) -> Addresses:
        """Where everything listens."""
        return self.stack.addresses

    def start(self) -> None:
        """Start the stack; raises its ``LocalError`` when it cannot."""
        self._thread.start()
        try:
            self.call(self.stack.start())
        except BaseException:
            self._end_loop()
            raise

    def stop(self) -> None:
        """Stop the stack and the thread."""
        try:
            self.call(self.stack.stop())
        finally:
            self._end_loop()

    def call(self, coroutine: Coroutine[object, object, T]) -> T:
        """Run ``coroutine`` in the stack's loop and return its result.

        Who stops waiting for it, by Ctrl-C or because it takes minutes, has it cancelled, and waits for that.
        """
        ended = threading.Event()

        async def until_ended() -> T:
            try:
                return await coroutine
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(until_ended(), self._loop)
        try:
            return future.result(_WITHIN_S)
        except BaseException:
            future.cancel()
            ended.wait(_WITHIN_S)
            raise

    def kill(self, name: str, *, by: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal (SIGKILL) to a part's process and return its process id; the supervisor starts it again."""
        pid = self.stack.supervised[name].pid
        if pid is None:
            raise AssertionError(f"{name} does not run")
        os.kill(pid, by)
        return pid

    def wait_ready(self, name: str, *, other_than: int | None = None, within_s: float = 60.0) -> int:
        """Wait until a part is ready, as another process than ``other_than``; return its process id."""
        deadline = time.monotonic() + within_s
        part = self.stack.supervised[name]
        while time.monotonic() < deadline:
            pid = part.pid
            if part.state == "ready" and pid is not None and pid != other_than:
                return pid
            time.sleep(0.02)
        raise AssertionError(f"{name} was not ready again within {within_s:.0f} s; see {part.log}")

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
