"""Timers in memory: a heap of wall-clock times, rebuilt from the log at each start."""

import asyncio
import heapq
import itertools
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

LONGEST_SLEEP_S = 1.0
"""The clock is looked at so often while a timer is set, since it may jump."""


class Timers:
    """Calls functions at their times, in order. What is late is called at once.

    Functions are called once, must be quick and must not raise. They check for themselves whether there is still
    something to do, so timers are never taken back.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._heap: list[tuple[datetime, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._changed = asyncio.Event()

    def at(self, when: datetime, call: Callable[[], None]) -> None:
        """Calls ``call`` at ``when`` (UTC)."""
        heapq.heappush(self._heap, (when, next(self._numbers), call))
        self._changed.set()

    async def run(self) -> None:
        """Runs until cancelled."""
        while True:
            self._changed.clear()
            self._fire()
            timeout_s = None
            if self._heap:
                left_s = (self._heap[0][0] - self._now()).total_seconds()
                timeout_s = min(max(left_s, 0.0), LONGEST_SLEEP_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):  # wait_for of Python 3.11 may swallow a cancellation
                    await self._changed.wait()

    def _fire(self) -> None:
        now = self._now()
        while self._heap and self._heap[0][0] <= now:
            heapq.heappop(self._heap)[2]()
