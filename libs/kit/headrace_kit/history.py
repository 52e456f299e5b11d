"""The past of a service's log: the state of an entity at a moment.

The state at a position is the fold of the stream's events up to it. Long streams leave snapshots behind, a cache
keyed by stream, version and the aggregate's revision: without it the answers are the same, and slower.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

from google.protobuf.message import Message

from headrace_kit.errors import FailedPrecondition, InvalidArgument, NotFound
from headrace_kit.eventstore import Aggregate, LogEntry, PostgresEventStore, StoredEvent
from headrace_kit.eventstore.postgres import EVENT_COLUMNS, log_entry

SNAPSHOT_EVERY: Final = 256
"""Versions between two snapshots of a stream."""
_POSITION_AT: Final = """
SELECT position FROM log_entries WHERE sequenced_at <= $1 ORDER BY sequenced_at DESC, position DESC LIMIT 1
"""
_STREAM: Final = "SELECT aggregate, version FROM streams WHERE stream_id = $1"
_SNAPSHOT: Final = """
SELECT version, state FROM snapshots
WHERE stream_id = $1 AND version <= $2 AND aggregate = $3 AND revision = $4 ORDER BY version DESC LIMIT 1
"""
_KEEP: Final = """
INSERT INTO snapshots (stream_id, version, aggregate, revision, state) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (stream_id, version) DO UPDATE SET
    aggregate = EXCLUDED.aggregate, revision = EXCLUDED.revision, state = EXCLUDED.state
WHERE snapshots.revision < EXCLUDED.revision
"""
_ENTRIES: Final = f"""
SELECT l.position, l.sequenced_at, l.leaf, {EVENT_COLUMNS} FROM events e JOIN log_entries l USING (local_id)
WHERE e.stream_id = $1 AND e.version BETWEEN $2 AND $3 ORDER BY e.version
"""  # noqa: S608 - constants


@dataclass(frozen=True, slots=True)
class PastState:
    """The state of an entity at a position.

    Attributes:
        state: The folded state; not to be changed.
        entry: The last event of the stream at or before ``position``.
        position: The position asked for.
    """

    state: Message
    entry: LogEntry
    position: int


class History:
    """Answers about the past of one log. Safe for many tasks of one loop.

    Args:
        store: Whose log.
        aggregates: Every kind of stream in it.
        snapshot_every: Versions between two snapshots; 0 neither reads nor writes any.
    """

    def __init__(
        self,
        store: PostgresEventStore,
        aggregates: Iterable[Aggregate[Any]],  # Any: states of different classes
        *,
        snapshot_every: int = SNAPSHOT_EVERY,
    ) -> None:
        self._store, self._every = store, snapshot_every
        self._aggregates = {each.name: each for each in aggregates}

    async def position_at(self, time: datetime) -> int:
        """The last position given by ``time`` (aware); 0 before the first event."""
        return cast("int", await self._store.database.fetchval(_POSITION_AT, time) or 0)

    async def state_at(self, stream_id: str, position: int | None = None) -> PastState:
        """The state after the event at ``position`` of the log; None is the end of the log.

        Raises:
            InvalidArgument: The log does not reach so far.
            NotFound: There was no such stream then.
            FailedPrecondition: The stream is of a kind this service does not fold.
        """
        head = await self._store.head()
        wanted = head if position is None else position
        if wanted > head:
            raise InvalidArgument(f"the log ends at position {head}", field="position")
        stream = await self._store.database.fetchrow(_STREAM, stream_id)
        version = 0 if stream is None else await self._version_at(stream_id, wanted, newest=stream["version"])
        if stream is None or version == 0:
            raise NotFound("stream", stream_id, field="stream_id")
        aggregate = self._aggregate(stream["aggregate"])
        state = await self._fold(aggregate, stream_id, version)
        row = await self._store.database.fetchrow(_ENTRIES, stream_id, version, version)
        if row is None:
            raise AssertionError("a version with a position has an entry")
        return PastState(state, log_entry(row, self._store.source, self._store.types), wanted)

    async def states(self, stream_id: str, first: int, last: int | None = None, *, limit: int) -> list[PastState]:
        """The states after each of a stream's versions from ``first`` to ``last`` that have positions, in order.

        Args:
            stream_id: The stream.
            first: First version, from 1.
            last: Last version; None for the newest.
            limit: Most states given.

        Raises:
            NotFound: There is no such stream.
            FailedPrecondition: The stream is of a kind this service does not fold.
        """
        stream = await self._store.database.fetchrow(_STREAM, stream_id)
        if stream is None:
            raise NotFound("stream", stream_id, field="stream_id")
        aggregate = self._aggregate(stream["aggregate"])
        final = min(first + limit - 1, stream["version"] if last is None else last)
        rows = await self._store.database.fetch(_ENTRIES, stream_id, first, final)
        state = await self._fold(aggregate, stream_id, first - 1) if rows and first > 1 else None
        found: list[PastState] = []
        for row in rows:
            entry = log_entry(row, self._store.source, self._store.types)
            state = self._evolve(aggregate, state, entry.event)
            found.append(PastState(state, entry, entry.position))
        return found

    def _aggregate(self, name: str) -> Aggregate[Any]:
        aggregate = self._aggregates.get(name)
        if aggregate is None:
            raise FailedPrecondition(f"no state is kept of streams of {name}", field="stream_id")
        return aggregate

    def _evolve(self, aggregate: Aggregate[Any], state: Message | None, event: StoredEvent) -> Message:
        if event.message is None:
            raise FailedPrecondition(f"{event.type} is not an event type of {self._store.source}")
        return cast("Message", aggregate.evolve(state, event.message))

    async def _version_at(self, stream_id: str, position: int, *, newest: int) -> int:
        """The stream's last version at or before a position, 0 for none; positions rise with versions."""
        low, high, middle = 0, newest, newest
        while low < high:
            found = await self._store.position_of(stream_id, middle)
            if found is not None and found <= position:
                low = middle
            else:
                high = middle - 1
            middle = (low + high + 1) // 2
        return low

    async def _fold(self, aggregate: Aggregate[Any], stream_id: str, version: int) -> Message:
        state, base = await self._snapshot(aggregate, stream_id, version)
        for event in await self._store.read_stream(stream_id, base + 1, version):
            state = self._evolve(aggregate, state, event)
            if self._every and event.version % self._every == 0:
                await self._keep(aggregate, stream_id, event.version, state=state)
        if state is None:
            raise AssertionError("a stream with a version has events")
        return state

    async def _snapshot(self, aggregate: Aggregate[Any], stream_id: str, version: int) -> tuple[Message | None, int]:
        if self._every and version >= self._every:
            row = await self._store.database.fetchrow(_SNAPSHOT, stream_id, version, aggregate.name, aggregate.revision)
            if row is not None:
                return cast("Message", aggregate.state.FromString(row["state"])), row["version"]
        return None, 0

    async def _keep(self, aggregate: Aggregate[Any], stream_id: str, version: int, *, state: Message) -> None:
        data = state.SerializeToString(deterministic=True)
        await self._store.database.execute(_KEEP, stream_id, version, aggregate.name, aggregate.revision, data)
