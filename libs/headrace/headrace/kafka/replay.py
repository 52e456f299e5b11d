"""Plays ranges of the log to a topic of the user's own, merged and at a rate."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Final

from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.client import Client
from headrace.events.event import EventFilter
from headrace.export.ranges import LogRange, read_range
from headrace.kafka.copies import CopyPublisher, copy_of
from headrace.story import order_of

_BATCH: Final = 500
_STEPS_A_SECOND: Final = 20.0


async def replay(
    client: Client,
    ranges: Sequence[LogRange],
    publisher: CopyPublisher,
    *,
    topic: str,
    wanted: EventFilter,
    rate: float = 0.0,
    advance: Callable[[int], object] = lambda _: None,
) -> int:
    """Publishes copies of what a filter accepts, by (hlc, source, position); returns how many.

    Args:
        client: The platform.
        ranges: What is read.
        publisher: Entered already.
        topic: Its topic, which the copies' ids are of.
        wanted: Which events.
        rate: Copies a second at most; 0 for as many as go.
        advance: Called with how many events were read since the last call.

    Raises:
        HeadraceError: as ``read_range`` and ``CopyPublisher.publish``.
    """
    size = _BATCH if rate <= 0 else max(1, min(_BATCH, int(rate / _STEPS_A_SECOND)))
    began_s, published = time.monotonic(), 0
    async for entries in _batches(merged(client, ranges), size):
        copies = [copy_of(entry, topic) for entry in entries if accepts(wanted, entry)]
        if rate > 0:
            await asyncio.sleep(max(began_s + published / rate - time.monotonic(), 0.0))
        if copies:
            await publisher.publish(copies)
        published += len(copies)
        advance(len(entries))
    return published


def merged(client: Client, ranges: Iterable[LogRange]) -> Iterator[LogEntry]:
    """The entries of ranges by (hlc, source, position)."""
    return heapq.merge(*(_entries(client, each) for each in ranges), key=order_of)


def accepts(wanted: EventFilter, entry: LogEntry) -> bool:
    """Whether a filter accepts an entry."""
    return entry.stream_id.startswith(wanted.stream_prefix) and (not wanted.types or entry.type in wanted.types)


def _entries(client: Client, wanted: LogRange) -> Iterator[LogEntry]:
    for page in read_range(client, wanted):
        yield from page


async def _batches(entries: Iterator[LogEntry], size: int) -> AsyncIterator[list[LogEntry]]:
    """Reads ahead of nothing: the next batch is read, in a thread, when it is asked for."""

    def following() -> list[LogEntry]:
        return [entry for _, entry in zip(range(size), entries, strict=False)]

    while batch := await asyncio.to_thread(following):
        yield batch
