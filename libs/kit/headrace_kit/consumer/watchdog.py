"""The stall watchdog: a consumer that does not move while there is something to read gets a new client.

aiokafka's client has been seen to stop for ever after a broker restart or a rebalance while its task lives (its issues
1154, 847, 718), and offers no sign of health. So progress is judged from outside: what the broker holds against where
the offsets in the database stand.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from headrace_kit.consumer.offsets import Offsets
from headrace_kit.log import LogConsumer, TopicPartition


class Watchdog:
    """Watches one consumer.

    Attributes:
        lag: Records not yet dealt with on the partitions watched, as of the last look.
    """

    def __init__(self, offsets: Offsets, stall_s: float) -> None:
        self.lag = 0
        self._offsets = offsets
        self._stall_s = stall_s
        self._moved_at = 0.0
        self._before: Mapping[TopicPartition, int] | None = None

    def progress(self) -> None:
        """Something was dealt with, or is known to wait for a reason."""
        self._moved_at = asyncio.get_running_loop().time()
        self._before = None

    async def stalled(self, client: LogConsumer, topics: Collection[str], waiting: Collection[TopicPartition]) -> bool:
        """True when nothing moved for the time allowed although records are there.

        Looks only after half that time without progress, and needs two looks in a row that show the same offsets.

        Raises:
            LogUnavailable: the broker does not answer the client, which is then to be made anew as well.
        """
        now = asyncio.get_running_loop().time()
        if not self._moved_at:
            self._moved_at = now
        if now - self._moved_at < self._stall_s / 2:
            return False
        self._moved_at = now
        watched = (client.assignment or await self._all(client, topics)) - frozenset(waiting)
        bounds = await client.bounds(watched)
        offsets = await self._offsets.next_offsets()
        behind = {
            each: offsets.get(each, 0) for each in watched if offsets.get(each, bounds[each][0]) < bounds[each][1]
        }
        self.lag = sum(bounds[each][1] - max(offset, bounds[each][0]) for each, offset in behind.items())
        before, self._before = self._before, behind
        return before is not None and any(before.get(each) == offset for each, offset in behind.items())

    @staticmethod
    async def _all(client: LogConsumer, topics: Collection[str]) -> frozenset[TopicPartition]:
        """Without partitions of its own it watches them all: perhaps it was forgotten."""
        found = [TopicPartition(topic, each) for topic in topics for each in range(await client.partitions(topic))]
        return frozenset(found)
