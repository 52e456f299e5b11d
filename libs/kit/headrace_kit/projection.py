"""Projections of a service's own log: read models that cross its streams, folded by position.

Each batch of events, its rows and the new position are one transaction, so every event counts exactly once and a reader
that asks for a position finds everything up to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from google.protobuf.message import Message

from headrace_kit.consumer import ProjectionHandler
from headrace_kit.errors import DeadlineExceeded, KitError
from headrace_kit.eventstore import LogEntry, PostgresEventStore
from headrace_kit.postgres import Connection

BATCH = 50
"""Events of one transaction: a long one holds back every sequencer of the database cluster."""
POLL_S = 0.02

_CLAIM = """
INSERT INTO consumer_positions (consumer, source, partition, position) VALUES ($1, $2, 0, 0) ON CONFLICT DO NOTHING
"""
_POSITION = "SELECT position FROM consumer_positions WHERE consumer = $1 AND source = $2 AND partition = 0"
_MOVE = """
UPDATE consumer_positions SET position = $4
WHERE consumer = $1 AND source = $2 AND partition = 0 AND position = $3
"""


class LogProjection:
    """Folds a service's own log into its read models, in order of position, each event exactly once.

    Args:
        name: Under which the position is kept; stable, and another than any consumer's.
        store: Whose log.
        handlers: Event class -> handler; it writes by the connection it is given and nothing else.
    """

    def __init__(
        self, name: str, store: PostgresEventStore, handlers: Mapping[type[Message], ProjectionHandler]
    ) -> None:
        self.name = name
        self._store = store
        self._handlers = handlers

    async def run(self) -> None:
        """Folds until cancelled, through outages of the database.

        Raises:
            Exception: what a handler raises that is not retryable: a read model that cannot be folded is a fault.
        """
        backoff = 0.1
        while True:
            try:
                if not await self.step():
                    await asyncio.sleep(POLL_S)
                backoff = 0.1
            except KitError as error:
                if not error.retryable:
                    raise
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, 5.0)

    async def step(self) -> int:
        """Folds one batch; returns how many events it had. Two at once fold nothing twice."""
        before = await self.position()
        entries = await self._store.read_log(before + 1, BATCH)
        if not entries:
            return 0
        async with self._store.database.transaction() as connection:
            await connection.execute(_CLAIM, self.name, self._store.source)
            place = (self.name, self._store.source, before, entries[-1].position)
            if not await connection.execute(_MOVE, *place):
                return 0
            for entry in entries:
                await self._fold(entry, connection)
        return len(entries)

    async def position(self) -> int:
        """The last position folded."""
        return await self._store.database.fetchval(_POSITION, self.name, self._store.source) or 0

    async def wait_for(self, position: int, *, timeout_s: float) -> None:
        """Returns once everything up to ``position`` is folded: what a read with ``min_position`` does first.

        Raises:
            DeadlineExceeded: it was not within ``timeout_s``.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while await self.position() < position:
            if loop.time() >= deadline:
                raise DeadlineExceeded(f"{self.name} did not reach position {position} within {timeout_s} s")
            await asyncio.sleep(POLL_S / 2)

    async def _fold(self, entry: LogEntry, connection: Connection) -> None:
        message = entry.event.message
        handler = None if message is None else self._handlers.get(type(message))
        if handler is not None:
            await handler(entry.received(), connection)
