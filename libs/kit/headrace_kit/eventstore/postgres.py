"""The event store on PostgreSQL."""
# Statements are put together from constants and checked names; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from enum import Enum, auto
from typing import cast
from uuid import UUID

import structlog
from google.protobuf.message import Message

from headrace_kit.context import CommandContext
from headrace_kit.decided import Decided
from headrace_kit.errors import Aborted, DeadlineExceeded, Deposed, Unavailable
from headrace_kit.eventstore.aggregate import Aggregate, S
from headrace_kit.eventstore.commands import (
    Answered,
    Draft,
    Drafting,
    Loaded,
    R,
    request_hash,
    require_same_request,
    require_stream_id,
    stored_response,
)
from headrace_kit.eventstore.rows import compile_rows
from headrace_kit.eventstore.stored import LogEntry, StoredEvent
from headrace_kit.eventstore.streamqueue import StreamQueues
from headrace_kit.eventtypes import EventTypes
from headrace_kit.hlc import HybridClock
from headrace_kit.lease import Fence
from headrace_kit.postgres import (
    CheckViolation,
    Connection,
    ConnectionLost,
    Database,
    Record,
    UniqueViolation,
)
from headrace_kit.wakeup import WakeUp

_log = structlog.get_logger(__name__)

Within = Callable[[Connection], Awaitable[None]]
"""Further writes in the transaction of an append."""

MAX_CONFLICTS = 5
_LAST_VERSION = (1 << 63) - 1
RECONNECT_S = 10.0
"""How long a command whose outcome is unknown tries to find it out."""

EVENT_COLUMNS = (
    "e.local_id, e.event_id, e.stream_id, e.version, e.type, e.occurred_at, e.recorded_at, e.hlc, e.meta, e.data"
)

_LOOK_UP = """
SELECT c.request_hash, c.stream_id, c.response_type, c.response,
       s.aggregate, s.version, s.hlc, s.revision, s.state
FROM (VALUES ($1::uuid, $2::text)) AS q (command_id, stream_id)
LEFT JOIN commands c ON c.command_id = q.command_id
LEFT JOIN streams s ON s.stream_id = q.stream_id
"""
_LOAD = "SELECT aggregate, version, hlc, revision, state FROM streams WHERE stream_id = $1"
_READ_STREAM = (
    f"SELECT {EVENT_COLUMNS} FROM events e WHERE stream_id = $1 AND version BETWEEN $2 AND $3 ORDER BY version"
)
_FIND_EVENT = f"SELECT {EVENT_COLUMNS} FROM events e WHERE event_id = $1"
_READ_LOG = f"""
SELECT l.position, l.sequenced_at, l.leaf, {EVENT_COLUMNS}
FROM log_entries l JOIN events e USING (local_id)
WHERE l.position >= $1 ORDER BY l.position LIMIT $2
"""
_READ_LOG_BACKWARDS = f"""
SELECT l.position, l.sequenced_at, l.leaf, {EVENT_COLUMNS}
FROM log_entries l JOIN events e USING (local_id)
WHERE l.position <= $1 ORDER BY l.position DESC LIMIT $2
"""
_EFFECTS = f"""
SELECT {EVENT_COLUMNS} FROM events e
WHERE causation_id = ANY($1::uuid[]) AND local_id > $2 ORDER BY local_id LIMIT $3
"""
_POSITION_OF = """
SELECT l.position FROM events e JOIN log_entries l USING (local_id) WHERE e.stream_id = $1 AND e.version = $2
"""
_POSITION_AT = """
SELECT position FROM log_entries WHERE sequenced_at <= $1 ORDER BY sequenced_at DESC, position DESC LIMIT 1
"""

# Every part selects from gate, so that a repeat, or a stale epoch, writes nothing at all. A version conflict is a
# unique violation on events and rolls the whole statement back; the condition on streams says the same twice. A
# state of code older than the read models breaks a check on streams, likewise.
_GATE = """
gate AS (
    INSERT INTO commands (command_id, request_hash, stream_id, response_type, response)
    SELECT $1, $2, $3, $4, $5 {fence} ON CONFLICT DO NOTHING RETURNING command_id
), stream AS (
    INSERT INTO streams AS s (stream_id, aggregate, version, hlc, revision, state)
    SELECT $3, $6, $8, $9, $10, $11 FROM gate
    ON CONFLICT (stream_id) DO UPDATE SET
        version = EXCLUDED.version, hlc = EXCLUDED.hlc, revision = EXCLUDED.revision, state = EXCLUDED.state
    WHERE s.version = $7
), appended AS (
    INSERT INTO events (stream_id, version, event_id, type, occurred_at, hlc, meta, data, causation_id)
    SELECT $3, $7 + n.ordinality, n.event_id, n.type, $16, n.hlc, n.meta, n.data, n.causation_id
    FROM gate, unnest($12::uuid[], $13::text[], $14::bigint[], $15::bytea[], $17::bytea[], $18::uuid[])
        WITH ORDINALITY AS n (event_id, type, hlc, data, meta, causation_id, ordinality)
    ORDER BY n.ordinality
)"""
_FENCE = "fence AS (SELECT 1 FROM leases WHERE name = $19 AND epoch = $20 FOR SHARE), "
_FIXED_PARAMETERS = 18


class _Outcome(Enum):
    APPENDED = auto()
    NOT_ADMITTED = auto()  # a repeat won the race, or the fence is stale
    CONFLICT = auto()


class PostgresEventStore:
    """``EventStore`` of one service in its own database. Safe for many tasks of one loop.

    Args:
        database: From ``create_pool``, as the service's role.
        source: Who owns the log, ``headrace/<service>``.
        registry: The event types the service owns.
    """

    def __init__(self, database: Database, source: str, registry: EventTypes) -> None:
        self.database = database
        self.source = source
        self.types = registry
        self.conflicts = 0
        """Version conflicts so far."""
        self.unknown_outcomes = 0
        """Commands so far whose connection died under them."""
        self.appended = WakeUp()
        """Rung after each append, for the sequencer of the same process."""
        self._drafting = Drafting(registry, HybridClock())
        self._queues = StreamQueues()

    async def execute(
        self,
        aggregate: Aggregate[S],
        stream_id: str,
        *,
        context: CommandContext,
        request: Message,
        decide: Callable[[S | None], Sequence[Decided]],
        respond: Callable[[S], R],
        fence: Fence | None = None,
        within: Within | None = None,
    ) -> R:
        """As ``EventStore.execute``.

        ``within`` writes further rows in the transaction of the append, after it: it runs only when events are
        appended, again for each attempt, and what it raises rolls everything back.
        """
        require_stream_id(stream_id)
        hashed = request_hash(request)
        async with self._queues.turn(stream_id):
            conflicts, give_up_at = 0, None
            while True:
                try:
                    # One connection for both statements: to borrow it costs as much as half of one.
                    async with self.database.acquire() as connection:
                        answered, loaded = await self._look_up(connection, aggregate, stream_id, context.command_id)
                        if answered is not None:
                            require_same_request(answered, hashed, context.command_id)
                            return await self._repeat(connection, aggregate, answered, respond)
                        draft = self._drafting.draft(
                            aggregate, stream_id, loaded=loaded, context=context, decide=decide, respond=respond
                        )
                        if not draft.events:
                            return draft.response
                        append = _Append(aggregate, stream_id, context.command_id, hashed, draft=draft, fence=fence)
                        outcome = await append.run(connection, within)
                except ConnectionLost as error:
                    give_up_at = await self._survive(error, give_up_at)
                    continue
                if outcome is _Outcome.APPENDED:
                    self.appended.ring()
                    return draft.response
                if outcome is _Outcome.NOT_ADMITTED:
                    await self._require_fence(fence)
                    continue
                conflicts += 1
                self.conflicts += 1
                if conflicts > MAX_CONFLICTS:
                    raise Aborted(f"{stream_id} changed {conflicts} times while the command was decided")

    async def _survive(self, error: ConnectionLost, give_up_at: float | None) -> float:
        """Waits a little before the look-up that tells what became of the command."""
        now = asyncio.get_running_loop().time()
        if give_up_at is None:
            self.unknown_outcomes += 1
            give_up_at = now + RECONNECT_S
        if now >= give_up_at:
            raise error
        _log.warning("command_outcome_unknown", cause=str(error))
        await asyncio.sleep(0.05)
        return give_up_at

    async def _require_fence(self, fence: Fence | None) -> None:
        if fence is None:
            return
        newest = await self.database.fetchval("SELECT epoch FROM leases WHERE name = $1", fence.name)
        if newest != fence.epoch:
            raise Deposed(f"epoch {fence.epoch} of {fence.name} is over: another process leads")

    async def _look_up(
        self, connection: Connection, aggregate: Aggregate[S], stream_id: str, command_id: UUID
    ) -> tuple[Answered | None, Loaded[S]]:
        found = await connection.fetchrow(_LOOK_UP, command_id, stream_id)
        if found is None:
            raise AssertionError("a join on one row of values gives one row")
        if found["request_hash"] is not None:
            answered = Answered(
                request_hash=found["request_hash"],
                stream_id=found[1],
                response_type=found["response_type"],
                response=found["response"],
            )
            return answered, Loaded()
        return None, await self._loaded(connection, aggregate, stream_id, found)

    async def _loaded(
        self, connection: Connection, aggregate: Aggregate[S], stream_id: str, found: Record
    ) -> Loaded[S]:
        if found["version"] is None:
            return Loaded()
        if found["aggregate"] != aggregate.name:
            raise TypeError(f"{stream_id} is a stream of {found['aggregate']}, not of {aggregate.name}")
        if found["revision"] == aggregate.revision:
            return Loaded(aggregate.state.FromString(found["state"]), found["version"], found["hlc"])
        state: S | None = None
        rows = await connection.fetch(_READ_STREAM, stream_id, 1, _LAST_VERSION)
        events = [stored_event(row, self.types) for row in rows]
        for event in events:
            if event.message is None:
                raise TypeError(f"{event.type} is not among the event types of {self.source}")
            state = aggregate.evolve(state, event.message)
        return Loaded(state, events[-1].version, events[-1].hlc)

    async def _repeat(
        self, connection: Connection, aggregate: Aggregate[S], answered: Answered, respond: Callable[[S], R]
    ) -> R:
        response = stored_response(answered)
        if response is not None:
            return cast("R", response)
        loaded = await self._load(connection, aggregate, answered.stream_id)
        if loaded is None:
            raise AssertionError(f"the command wrote to {answered.stream_id}, which has no events")
        return respond(loaded[0])

    async def load(self, aggregate: Aggregate[S], stream_id: str) -> tuple[S, int] | None:
        """As ``EventStore.load``."""
        async with self.database.acquire() as connection:
            return await self._load(connection, aggregate, stream_id)

    async def _load(self, connection: Connection, aggregate: Aggregate[S], stream_id: str) -> tuple[S, int] | None:
        found = await connection.fetchrow(_LOAD, stream_id)
        if found is None:
            return None
        loaded = await self._loaded(connection, aggregate, stream_id, found)
        return None if loaded.state is None else (loaded.state, loaded.version)

    async def read_stream(
        self, stream_id: str, from_version: int = 1, to_version: int = _LAST_VERSION
    ) -> list[StoredEvent]:
        """As ``EventStore.read_stream``, up to a version."""
        rows = await self.database.fetch(_READ_STREAM, stream_id, from_version, to_version)
        return [stored_event(row, self.types) for row in rows]

    async def find_event(self, event_id: UUID) -> StoredEvent | None:
        """As ``EventStore.find_event``."""
        row = await self.database.fetchrow(_FIND_EVENT, event_id)
        return None if row is None else stored_event(row, self.types)

    async def read_log(self, from_position: int, limit: int) -> list[LogEntry]:
        """As ``EventStore.read_log``."""
        return [log_entry(row, self.source, self.types) for row in await self.read_log_rows(from_position, limit)]

    async def read_log_rows(self, from_position: int, limit: int) -> list[Record]:
        """As ``read_log``, the rows as they lie: nothing is decoded."""
        return await self.database.fetch(_READ_LOG, from_position, limit)

    async def read_log_backwards(self, from_position: int, limit: int) -> list[LogEntry]:
        """As ``EventStore.read_log_backwards``."""
        rows = await self.database.fetch(_READ_LOG_BACKWARDS, from_position, limit)
        return [log_entry(row, self.source, self.types) for row in rows]

    async def effects_of(self, causes: Sequence[UUID], *, after: int = 0, limit: int = 100) -> list[StoredEvent]:
        """As ``EventStore.effects_of``."""
        rows = await self.database.fetch(_EFFECTS, list(causes), after, limit)
        return [stored_event(row, self.types) for row in rows]

    async def head(self) -> int:
        """As ``EventStore.head``."""
        return int(await self.database.fetchval("SELECT coalesce(max(position), 0) FROM log_entries"))

    async def position_of(self, stream_id: str, version: int) -> int | None:
        """As ``EventStore.position_of``."""
        return cast("int | None", await self.database.fetchval(_POSITION_OF, stream_id, version))

    async def position_at(self, time: datetime) -> int:
        """As ``EventStore.position_at``."""
        return cast("int", await self.database.fetchval(_POSITION_AT, time) or 0)

    async def wait_for_position(self, position: int, *, timeout_s: float) -> None:
        """As ``EventStore.wait_for_position``."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while await self.head() < position:
            if loop.time() >= deadline:
                raise DeadlineExceeded(f"the log did not reach position {position} within {timeout_s} s")
            await asyncio.sleep(0.005)


class _Append:
    """The one statement of a command."""

    def __init__(
        self,
        aggregate: Aggregate[S],
        stream_id: str,
        command_id: UUID,
        hashed: bytes,
        *,
        draft: Draft[S, R],
        fence: Fence | None,
    ) -> None:
        events, first = draft.events, draft.events[0]
        fixed = (
            command_id,
            hashed,
            stream_id,
            draft.response.DESCRIPTOR.full_name,
            draft.response.SerializeToString(deterministic=True),
            aggregate.name,
            draft.expected_version,
            draft.version,
            draft.hlc,
            aggregate.revision,
            draft.state.SerializeToString(deterministic=True),
            [event.event_id for event in events],
            [event.type for event in events],
            [event.hlc for event in events],
            [event.data for event in events],
            first.occurred_at,
            [event.meta for event in events],
            [event.causation_id for event in events],
        )
        fences = () if fence is None else (fence.name, fence.epoch)
        rows, parameters = compile_rows(draft.rows, first_parameter=_FIXED_PARAMETERS + len(fences) + 1)
        gate = _GATE.format(fence="" if fence is None else "FROM fence")
        clauses = ", ".join([gate, *rows])
        self._sql = f"WITH {_FENCE if fence else ''}{clauses} SELECT count(*) FROM gate"
        self._parameters = (*fixed, *fences, *parameters)

    async def run(self, connection: Connection, within: Within | None) -> _Outcome:
        try:
            if within is None:
                admitted = await connection.fetchval(self._sql, *self._parameters)
            else:
                async with connection.transaction():
                    admitted = await connection.fetchval(self._sql, *self._parameters)
                    if admitted:
                        await within(connection)
        except UniqueViolation as error:
            if error.constraint == "events_stream_id_version_key":
                return _Outcome.CONFLICT
            raise
        except CheckViolation as error:
            if error.constraint == "streams_revision":
                message = "a newer process has rebuilt the read models, and takes over"
                raise Unavailable(message, reason="READ_MODELS_NEWER") from error
            raise
        return _Outcome.APPENDED if admitted else _Outcome.NOT_ADMITTED


def stored_event(row: Record, types: EventTypes) -> StoredEvent:
    """A row with the columns of ``events``."""
    return StoredEvent(
        local_id=row["local_id"],
        event_id=row["event_id"],
        stream_id=row["stream_id"],
        version=row["version"],
        type=row["type"],
        occurred_at=row["occurred_at"],
        recorded_at=row["recorded_at"],
        hlc=row["hlc"],
        meta=row["meta"],
        data=row["data"],
        message=types.decode(row["type"], row["data"]),
    )


def log_entry(row: Record, source: str, types: EventTypes) -> LogEntry:
    """A row of ``log_entries`` joined with its event."""
    return LogEntry(
        source=source,
        position=row["position"],
        sequenced_at=row["sequenced_at"],
        leaf=row["leaf"],
        event=stored_event(row, types),
    )
