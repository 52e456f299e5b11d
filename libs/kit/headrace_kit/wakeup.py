"""A wake-up call between tasks of one process: many rings before the waiter looks count as one."""

from __future__ import annotations

import asyncio


class WakeUp:
    """Wakes the one task that waits for it; never lost, never counted."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wakes the waiter, or lets its next wait return at once."""
        self._event.set()

    async def wait(self, timeout_s: float) -> bool:
        """True when rung, False after ``timeout_s`` without."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True
