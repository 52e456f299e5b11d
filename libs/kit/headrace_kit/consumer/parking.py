"""Parked streams: the event that could not be handled and all later ones of its stream, until a redrive."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from headrace_kit.cloudevents import ReceivedEvent, from_headers, to_headers
from headrace_kit.postgres import Connection, Database, Record

_COLUMNS = "consumer, source, stream_id, position, version, headers, data, cause, attempts, parked_at"


ParkedKey = tuple[str, str, str, int]
"""Consumer, source, stream and position: the place of a parked event among all."""


@dataclass(frozen=True, slots=True)
class ParkedEvent:
    """One parked event.

    Attributes:
        consumer: Who could not handle it.
        event: The event, not decoded.
        cause: ``REASON: message`` of the failure; empty for an event that waits behind another.
        attempts: How often it was tried.
        parked_at: When it was put aside.
    """

    consumer: str
    event: ReceivedEvent
    cause: str
    attempts: int
    parked_at: datetime

    @property
    def key(self) -> ParkedKey:
        """Its place."""
        return self.consumer, self.event.source, self.event.subject, self.event.position


class Parking:
    """The parked streams of one consumer."""

    def __init__(self, database: Database, consumer: str) -> None:
        self._database = database
        self._consumer = consumer

    async def streams(self, source: str) -> set[str]:
        """Ids of the parked streams of a log."""
        rows = await self._database.fetch(
            "SELECT stream_id FROM parked_streams WHERE consumer = $1 AND source = $2", self._consumer, source
        )
        return {row["stream_id"] for row in rows}

    async def park(self, connection: Connection, event: ReceivedEvent, *, cause: str, attempts: int) -> None:
        """Puts a stream aside, beginning with this event."""
        await connection.execute(
            "INSERT INTO parked_streams (consumer, source, stream_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            self._consumer,
            event.source,
            event.subject,
        )
        await self._insert(connection, event, cause=cause, attempts=attempts)

    async def follow(self, connection: Connection, event: ReceivedEvent) -> bool:
        """Puts a later event behind its stream's others; False when the stream was redriven meanwhile."""
        parked = await connection.fetchval(
            "SELECT 1 FROM parked_streams WHERE consumer = $1 AND source = $2 AND stream_id = $3 FOR SHARE",
            self._consumer,
            event.source,
            event.subject,
        )
        if parked is None:
            return False
        await self._insert(connection, event, cause="", attempts=0)
        return True

    async def _insert(self, connection: Connection, event: ReceivedEvent, *, cause: str, attempts: int) -> None:
        await connection.execute(
            f"INSERT INTO parked_events ({_COLUMNS}) "  # noqa: S608 - a constant list of columns
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, clock_timestamp()) ON CONFLICT DO NOTHING",
            self._consumer,
            event.source,
            event.subject,
            event.position,
            event.sequence,
            [[name, value.decode()] for name, value in to_headers(event)],
            event.data,
            cause,
            attempts,
        )

    async def first(self, stream_id: str) -> ParkedEvent | None:
        """The first parked event of a stream."""
        row = await self._database.fetchrow(
            f"SELECT {_COLUMNS} FROM parked_events WHERE consumer = $1 AND stream_id = $2 "  # noqa: S608 - as above
            "ORDER BY source, version LIMIT 1",
            self._consumer,
            stream_id,
        )
        return None if row is None else _parked(row)

    async def remove(self, connection: Connection, event: ReceivedEvent) -> bool:
        """Takes an event out in the caller's transaction; False when someone else did."""
        removed = await connection.execute(
            "DELETE FROM parked_events WHERE consumer = $1 AND source = $2 AND stream_id = $3 AND position = $4",
            self._consumer,
            event.source,
            event.subject,
            event.position,
        )
        return removed > 0

    async def failed_again(self, event: ReceivedEvent, cause: str) -> None:
        """A redrive stopped at this event."""
        await self._database.execute(
            "UPDATE parked_events SET attempts = attempts + 1, cause = $5 "
            "WHERE consumer = $1 AND source = $2 AND stream_id = $3 AND position = $4",
            self._consumer,
            event.source,
            event.subject,
            event.position,
            cause,
        )

    async def release(self, stream_id: str) -> bool:
        """Lets a stream flow again when nothing of it is parked; False when something arrived meanwhile."""
        async with self._database.transaction() as connection:
            await connection.fetch(
                "SELECT 1 FROM parked_streams WHERE consumer = $1 AND stream_id = $2 FOR UPDATE",
                self._consumer,
                stream_id,
            )
            if await self.waiting(stream_id, connection):
                return False
            await connection.execute(
                "DELETE FROM parked_streams WHERE consumer = $1 AND stream_id = $2", self._consumer, stream_id
            )
        return True

    async def waiting(self, stream_id: str, connection: Connection | None = None) -> int:
        """How many events of a stream are parked."""
        statement = "SELECT count(*) FROM parked_events WHERE consumer = $1 AND stream_id = $2"
        asked = connection or self._database
        return int(await asked.fetchval(statement, self._consumer, stream_id))


async def list_parked(database: Database, limit: int, *, after: ParkedKey = ("", "", "", 0)) -> list[ParkedEvent]:
    """Parked events of all consumers of a database, in the order of their places, after one."""
    rows = await database.fetch(
        f"SELECT {_COLUMNS} FROM parked_events"  # noqa: S608 - a constant list of columns
        " WHERE (consumer, source, stream_id, position) > ($2, $3, $4, $5)"
        " ORDER BY consumer, source, stream_id, position LIMIT $1",
        limit,
        *after,
    )
    return [_parked(row) for row in rows]


def _parked(row: Record) -> ParkedEvent:
    event, _ = from_headers([(name, value.encode()) for name, value in row["headers"]], row["data"])
    return ParkedEvent(row["consumer"], event, row["cause"], row["attempts"], row["parked_at"])
