"""A projection of other services' logs made anew, up to exactly what the live one has taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.message import Message

from headrace_kit.cloudevents import ReceivedEvent, decoded
from headrace_kit.consumer import LogReader, ProjectionHandler
from headrace_kit.eventtypes import EventTypes
from headrace_kit.postgres import Connection, Database
from headrace_kit.rebuild.streams import SCHEMA, Advance

BATCH: Final = 50
"""Events of one transaction, as of the live projection's."""
PAGE: Final = 500
_PLACE: Final = f"SET LOCAL search_path TO {SCHEMA}"
_TAKEN: Final = """
SELECT s.stream_id, least(s.version, min(p.version) - 1) AS version
FROM consumer_streams s LEFT JOIN parked_events p USING (consumer, source, stream_id)
WHERE s.consumer = $1 AND s.source = $2 GROUP BY s.stream_id, s.version
"""


@dataclass(frozen=True, slots=True)
class Projection:
    """A consumer that folds other logs into tables of this database.

    Attributes:
        name: The consumer's.
        tables: Every table its handlers write to; nobody else does.
        handlers: Event class -> handler.
        readers: Source (``headrace/registry``) -> its owner's log.
    """

    name: str
    tables: Sequence[str]
    handlers: Mapping[type[Message], ProjectionHandler]
    readers: Mapping[str, LogReader]


@dataclass(slots=True)
class _Source:
    """How far the log of one source was read, what of it was folded, and what the live projection has not taken."""

    position: int = 0
    versions: dict[str, int] = field(default_factory=dict[str, int])
    ahead: list[ReceivedEvent] = field(default_factory=list[ReceivedEvent])

    def copy(self) -> _Source:
        return _Source(self.position, dict(self.versions), list(self.ahead))

    def take(self, taken: Mapping[str, int]) -> list[ReceivedEvent]:
        """The events that are due now, in order of position."""
        due = [each for each in self.ahead if each.sequence <= taken.get(each.subject, 0)]
        self.ahead = [each for each in self.ahead if each.sequence > taken.get(each.subject, 0)]
        self.versions.update((each.subject, each.sequence) for each in due)
        return due

    def is_behind(self, taken: Mapping[str, int]) -> bool:
        """Whether the live projection has taken what is not folded yet."""
        return any(version > self.versions.get(stream_id, 0) for stream_id, version in taken.items())


class ProjectionRebuild:
    """Folds the sources' logs in order of position, without what the live projection has not taken yet, or has parked.

    The handlers run with the schema ``rebuild`` as their only one, so that a table that was not declared is missed and
    not written to.
    """

    def __init__(self, database: Database, projection: Projection) -> None:
        self._database = database
        self._projection = projection
        self._types = EventTypes(*projection.handlers)
        self._sources = {source: _Source() for source in projection.readers}

    @property
    def tables(self) -> tuple[str, ...]:
        """What is made anew."""
        return tuple(self._projection.tables)

    async def fold(self, advance: Advance) -> None:
        """Folds all that was taken so far. Raises Unavailable when an owner's log can not be read."""
        for source in self._sources:
            self._sources[source], _ = await self._pass(source, None, advance)

    async def catch_up(self, connection: Connection | None = None) -> int:
        """Folds what was taken since; returns how many events that were.

        With a connection, inside its transaction: nothing may be taken meanwhile, and the next call begins where this
        one did, since the transaction may be rolled back.
        """
        count = 0
        for source in self._sources:
            after, folded = await self._pass(source, connection, lambda _: None)
            count += folded
            if connection is None:
                self._sources[source] = after
        return count

    async def _pass(self, source: str, connection: Connection | None, advance: Advance) -> tuple[_Source, int]:
        asked = connection or self._database
        rows = await asked.fetch(_TAKEN, self._projection.name, source)
        taken: dict[str, int] = {row["stream_id"]: row["version"] for row in rows}
        at, count = self._sources[source].copy(), 0
        while True:
            due = at.take(taken)
            for start in range(0, len(due), BATCH):
                await self._fold(due[start : start + BATCH], connection)
            count += len(due)
            page = await self._projection.readers[source].read(at.position + 1, PAGE) if at.is_behind(taken) else ()
            if not page:
                return at, count
            at.position = page[-1].position
            at.ahead += [decoded(each, self._types) for each in page]
            advance(len(page))

    async def _fold(self, events: Sequence[ReceivedEvent], connection: Connection | None) -> None:
        if connection is None:
            async with self._database.transaction() as own:
                await self._handle(events, own)
        else:
            await self._handle(events, connection)

    async def _handle(self, events: Sequence[ReceivedEvent], connection: Connection) -> None:
        await connection.execute(_PLACE)
        for event in events:
            if event.message is not None:
                await self._projection.handlers[type(event.message)](event, connection)
        await connection.execute("SET LOCAL search_path TO DEFAULT")
