"""Reading an owner's log directly: where a new or late consumer begins, and where a missing event is found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from headrace_kit.cloudevents import ReceivedEvent
from headrace_kit.eventstore import EventStore


class LogReader(Protocol):
    """The log of one service, as its owner serves it."""

    async def read(self, from_position: int, limit: int) -> Sequence[ReceivedEvent]:
        """At most ``limit`` events from a position on, in order and without holes; none at the end of the log.

        ``message`` need not be decoded.

        Raises:
            Unavailable: the owner is away.
        """
        ...


class StoreLogReader:
    """``LogReader`` of a service's own log."""

    def __init__(self, store: EventStore) -> None:
        self._store = store

    async def read(self, from_position: int, limit: int) -> Sequence[ReceivedEvent]:
        """As ``LogReader.read``."""
        return [entry.received() for entry in await self._store.read_log(from_position, limit)]
