"""One queue per stream and process: commands for a hot stream wait here and not in version conflicts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from headrace_kit.errors import ResourceExhausted

MAX_WAITING = 1024
"""Most commands that may wait for one stream."""


class StreamQueues:
    """Lets one task at a time work on a stream, in the order of arrival."""

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        self._max_waiting = max_waiting
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def turn(self, stream_id: str) -> AsyncIterator[None]:
        """Waits for this task's turn.

        Raises:
            ResourceExhausted: too many wait already.
        """
        lock, users = self._locks.get(stream_id) or (asyncio.Lock(), 0)
        if users >= self._max_waiting:
            raise ResourceExhausted(f"too many commands wait for {stream_id}", reason="STREAM_BUSY")
        self._locks[stream_id] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            _, users = self._locks[stream_id]
            if users == 1:
                del self._locks[stream_id]
            else:
                self._locks[stream_id] = (lock, users - 1)
