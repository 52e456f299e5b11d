"""An event loop whose time is a number: it jumps to the next timer instead of waiting, and knows no network.

Everything that runs on it runs in one order, which depends on nothing but the program and its seeds.
"""

from __future__ import annotations

import asyncio
from asyncio import base_events
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

T = TypeVar("T")
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Stuck(AssertionError):
    """Everyone waits for somebody, and no timer runs."""


class VirtualLoop(base_events.BaseEventLoop):
    """Time begins at 1.0 and passes only when nothing can be done without it."""

    def __init__(self) -> None:
        super().__init__()
        self._seconds = 1.0
        self._clock_resolution = 1e-9
        self._selector = self  # BaseEventLoop asks its selector how long to wait

    def time(self) -> float:
        """Seconds."""
        return self._seconds

    def select(self, timeout: float | None) -> list[object]:
        """What a selector does: here time passes, and nothing ever arrives from outside."""
        if timeout is None:
            raise Stuck("nothing is scheduled any more")
        self._seconds += max(timeout, 0.0)
        return []

    def _process_events(self, event_list: list[object]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody calls from another thread."""


def now() -> datetime:
    """The virtual wall clock, UTC."""
    return EPOCH + timedelta(seconds=asyncio.get_running_loop().time())


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs a program to its end; whatever it left running is cancelled."""
    loop = VirtualLoop()
    try:
        asyncio.set_event_loop(loop)
        try:
            return loop.run_until_complete(main)
        finally:
            left = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        asyncio.set_event_loop(None)
        loop.close()
