"""A process as the world sees it: it is slow, it freezes, it dies, and its network loses things."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random


@dataclass
class Faults:
    """Chances for one statement or call, and the longest latency, in seconds. Shared by a world."""

    lost_before: float = 0.0
    lost_after: float = 0.0
    late: float = 0.0
    latency_s: float = 0.004

    def heal(self) -> None:
        """Kind from now on."""
        self.lost_before = self.lost_after = self.late = 0.0


class Host:
    """What a process's connections have in common.

    Attributes:
        cut: It is dead: nothing it still says gets through, which is what ``kill -9`` does to a program's clean-up.
        frozen_until: Until then it neither sends nor receives (SIGSTOP).
    """

    def __init__(self, random: Random, faults: Faults) -> None:
        self.random, self.faults = random, faults
        self.cut = False
        self.frozen_until = 0.0

    def require(self) -> None:
        """Raises what a socket does for a process that is dead."""
        if self.cut:
            raise ConnectionResetError("this process is dead")

    async def pause(self) -> None:
        """The network takes its time, and a frozen process all of it."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self.random.random() * self.faults.latency_s)
        while loop.time() < self.frozen_until:
            await asyncio.sleep(self.frozen_until - loop.time())
        self.require()

    def lose_before(self) -> None:
        """The connection may break before anything was done."""
        self._lose(self.faults.lost_before)

    def lose_after(self) -> None:
        """The connection may break when all was done and only the answer is missing."""
        self._lose(self.faults.lost_after)

    def _lose(self, chance: float) -> None:
        if self.random.random() < chance:
            raise ConnectionResetError("the connection broke")
