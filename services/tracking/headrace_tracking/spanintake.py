"""The way of spans into the tables: bounded in bytes that wait, and in transactions at once."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from headrace.api.tracking.v1.resources_pb2 import Span
from headrace_kit import metrics
from headrace_kit.errors import ResourceExhausted
from headrace_tracking.tracedeleting import TraceDeleter
from headrace_tracking.tracerequests import spans_in_time
from headrace_tracking.tracestore import Appended, TraceStore

MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
"""Bytes of spans that may wait; more are refused, unless nothing waits."""
AT_ONCE: Final = 3
"""Transactions at once: other calls need connections too."""
AHEAD: Final = timedelta(days=1)
"""How far ahead of this clock a span may begin; else it would never be too old."""


class SpanIntake:
    """Takes spans. For the tasks of one loop.

    Args:
        store: The tables.
        deleter: Knows how long traces are kept.
    """

    def __init__(self, store: TraceStore, deleter: TraceDeleter) -> None:
        self._store, self._deleter = store, deleter
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def take(self, experiment: str, run: str, spans: Sequence[Span], now: datetime) -> Appended:
        """Commits spans, each once; those that can not be kept are counted.

        Raises:
            ResourceExhausted: Too many bytes wait.
        """
        kept, reason = spans_in_time(spans, self._deleter.oldest(now), now + AHEAD)
        size = sum(each.ByteSize() for each in kept)
        if self._waiting and self._waiting + size > MAX_WAITING_BYTES:
            raise ResourceExhausted(f"{self._waiting} bytes of spans wait", reason="TRACES_BUSY")
        self._waiting += size
        try:
            async with self._turn:
                appended = await self._store.append(experiment, run, kept) if kept else Appended()
        finally:
            self._waiting -= size
        if len(kept) < len(spans):
            appended = Appended(appended.count, appended.rejected + len(spans) - len(kept), reason=reason)
        metrics.SPANS_TAKEN.inc(appended.count)
        metrics.SPANS_DROPPED.labels("rejected").inc(appended.rejected)
        return appended
