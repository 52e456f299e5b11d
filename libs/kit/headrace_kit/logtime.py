"""Where in a log a moment lies."""

from __future__ import annotations

from datetime import datetime

from headrace_kit.eventstore import EventStore


async def position_at(store: EventStore, moment: datetime) -> int:
    """The first position given at or after a moment; the one after the last when there is none yet.

    Positions are dense and their times never run backwards, so some twenty look-ups find it in a million events.
    """
    low, high = 1, await store.head() + 1
    while low < high:
        middle = (low + high) // 2
        [entry] = await store.read_log(middle, 1)
        if entry.sequenced_at < moment:
            low = middle + 1
        else:
            high = middle
    return low
