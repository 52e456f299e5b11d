"""PostgreSQL, as far as the kit's statements go: a disk that keeps what is committed and loses what is not.

Each statement of the kit is found by its text, so that the real store, sequencer, relay, lease and consumers run on it
unchanged. A statement that is not known here is a fault of the simulation and ends the run.

Modelled: transactions with xids and a snapshot's xmin, row locks, the unique keys the kit relies on, latency, answers
that get lost before or after the commit, restarts. Not modelled: statements that see half of another's work, since
PostgreSQL does not either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

import asyncpg

from headrace_kit import causes, lease, relay, sequencer, upkeep
from headrace_kit.consumer import offsets, parking
from headrace_kit.eventstore import postgres as store
from headrace_kit.postgres import Database
from headrace_kit.sequencer import TICK
from tests.simulation.host import Host
from tests.simulation.virtual import now

Row = dict[str, Any]
Trace = Callable[[str], None]
EFFECT = "INSERT INTO effects (consumer, event_id) VALUES ($1, $2)"
"""The one write of the simulation's own projections."""


class Unmodelled(BaseException):
    """The program used a statement that is not modelled here; not an Exception, so that nobody survives it."""


class Cells(dict[str, Any]):
    """A row: values by name, or by place."""

    def __getitem__(self, key: str | int) -> Any:
        return list(self.values())[key] if isinstance(key, int) else super().__getitem__(key)


@dataclass
class Tables:
    """What is committed."""

    commands: dict[UUID, Row] = field(default_factory=dict[UUID, Row])
    streams: dict[str, Row] = field(default_factory=dict[str, Row])
    events: list[Row] = field(default_factory=list[Row])
    log: list[Row] = field(default_factory=list[Row])
    leases: dict[str, Row] = field(default_factory=dict[str, Row])
    offsets: dict[tuple[str, str, int], Row] = field(default_factory=dict[tuple[str, str, int], Row])
    positions: dict[tuple[str, str, int], int] = field(default_factory=dict[tuple[str, str, int], int])
    seen: dict[tuple[str, str, str], tuple[int, int]] = field(
        default_factory=dict[tuple[str, str, str], tuple[int, int]]
    )
    effects: list[tuple[str, UUID]] = field(default_factory=list[tuple[str, UUID]])
    parked: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    relayed: int = 0
    sequencer: Row = field(default_factory=lambda: {"position": 0, "low": 0, "high": 0, "local_id": 0})


class Server:
    """One database server: survives everything but its disk; ``restart`` ends every connection."""

    def __init__(self, name: str, trace: Trace) -> None:
        self.name = name
        self.tables = Tables()
        self.incarnation = 0
        self._trace = trace
        self._next_xid, self._next_local = 1, 1
        self._open: set[int] = set()
        self._locks: dict[str, Transaction] = {}
        self._freed = asyncio.Event()
        self.tables.sequencer["sequenced_at"] = now() - timedelta(days=1)

    def restart(self) -> None:
        """What was not committed is gone, and so is every connection."""
        self.incarnation += 1
        self._open.clear()
        self._locks.clear()
        self._freed.set()
        self._trace(f"{self.name} restarts")

    def begin_xid(self) -> int:
        """The next transaction id, open until ``end_xid``."""
        xid, self._next_xid = self._next_xid, self._next_xid + 1
        self._open.add(xid)
        return xid

    def end_xid(self, xid: int) -> None:
        """Committed or not, it is over."""
        self._open.discard(xid)

    def local_ids(self, count: int) -> list[int]:
        """Values of the identity column; those of a rollback leave holes."""
        self._next_local += count
        return list(range(self._next_local - count, self._next_local))

    @property
    def xmin(self) -> int:
        """Every transaction below it is over."""
        return min(self._open, default=self._next_xid)

    async def lock(self, key: str, owner: Transaction) -> None:
        """Waits for a row."""
        while self._locks.get(key, owner) is not owner:
            self._freed.clear()
            await self._freed.wait()
            owner.require_alive()
        self._locks[key] = owner

    def release(self, owner: Transaction) -> None:
        """Lets go of all rows."""
        self._locks = {key: each for key, each in self._locks.items() if each is not owner}
        self._freed.set()

    def trace(self, what: str) -> None:
        """Notes something that became true on this disk."""
        self._trace(f"{self.name} {what}")


class Transaction:
    """Writes wait here for the commit; reads see what is committed."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.writes: list[Callable[[], None]] = []
        self.incarnation = server.incarnation
        self.xids: list[int] = []

    def require_alive(self) -> None:
        """Raises what asyncpg does on a connection that is gone."""
        if self.incarnation != self.server.incarnation:
            raise ConnectionResetError("the server restarted")

    def commit(self) -> None:
        """All writes at once."""
        self.require_alive()
        for write in self.writes:
            write()
        self.end()

    def end(self) -> None:
        """Over, whatever became of it."""
        self.writes = []
        for xid in self.xids:
            self.server.end_xid(xid)
        self.server.release(self)


class Pool:
    """The connections of one process, behind asyncpg's interface."""

    def __init__(self, server: Server, host: Host) -> None:
        self.server, self.host = server, host

    def database(self) -> Database:
        """The kit's own pool on it."""
        return Database(self)

    async def acquire(self, *, timeout: float) -> RawConnection:  # noqa: ASYNC109 - asyncpg's own name
        """A connection."""
        self.host.require()
        return RawConnection(self)

    async def release(self, raw: RawConnection) -> None:
        """Gives it back; what it left open is rolled back."""
        raw.rollback()

    async def expire_connections(self) -> None:
        """Nothing: each is a new one."""


class RawTransaction:
    """asyncpg's transaction."""

    def __init__(self, connection: RawConnection) -> None:
        self._connection = connection

    async def start(self) -> None:
        """Begins."""
        self._connection.begin()

    async def commit(self) -> None:
        """Commits; the answer may get lost."""
        await self._connection.commit()

    async def rollback(self) -> None:
        """Rolls back."""
        self._connection.rollback()


class RawConnection:
    """asyncpg's connection."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._transaction: Transaction | None = None

    def transaction(self) -> RawTransaction:
        """A transaction to be started."""
        return RawTransaction(self)

    def begin(self) -> None:
        """Statements wait for a commit from here on."""
        self._transaction = Transaction(self._pool.server)

    async def commit(self) -> None:
        """Makes the writes true."""
        transaction = self._transaction
        if transaction is None:
            raise ConnectionResetError("the transaction is gone")
        self._transaction = None
        try:
            await self._pool.host.pause()
            self._pool.host.lose_before()
            transaction.commit()
        finally:
            transaction.end()
        self._pool.host.lose_after()
        await self._pool.host.pause()

    def rollback(self) -> None:
        """Forgets the writes."""
        if self._transaction is not None:
            self._transaction.end()
            self._transaction = None

    def terminate(self) -> None:
        """Ends it at once; what it left open is rolled back."""
        self.rollback()

    async def fetch(self, sql: str, *args: Any) -> list[Row]:
        """All rows."""
        return await self._run(sql, args)

    async def fetchrow(self, sql: str, *args: Any) -> Row | None:
        """The first row."""
        rows = await self._run(sql, args)
        return rows[0] if rows else None

    async def fetchval(self, sql: str, *args: Any) -> Any:
        """The first value of it."""
        row = await self.fetchrow(sql, *args)
        return None if row is None else next(iter(row.values()))

    async def execute(self, sql: str, *args: Any) -> str:
        """Asyncpg's status line."""
        return f"UPDATE {len(await self._run(sql, args))}"

    async def _run(self, sql: str, args: Sequence[Any]) -> list[Row]:
        await self._pool.host.pause()
        self._pool.host.lose_before()
        if self._transaction is not None:
            return await self._statement(sql, args, self._transaction)
        transaction = Transaction(self._pool.server)
        try:
            rows = await self._statement(sql, args, transaction)
            transaction.commit()
        finally:
            transaction.end()
        self._pool.host.lose_after()
        await self._pool.host.pause()
        return rows

    async def _statement(self, sql: str, args: Sequence[Any], transaction: Transaction) -> list[Row]:
        transaction.require_alive()
        if sql.startswith("WITH ") and "gate AS (" in sql:
            return await _append(transaction, args, self._pool)
        known = STATEMENTS.get(sql)
        if known is None:
            raise Unmodelled(sql)
        return [Cells(row) for row in await known(transaction, *args)]


async def _append(tx: Transaction, args: Sequence[Any], pool: Pool) -> list[Row]:
    server, tables = tx.server, tx.server.tables
    xid = server.begin_xid()
    tx.xids.append(xid)
    locals_ = server.local_ids(len(args[11]))
    recorded = now()
    await pool.host.pause()  # another transaction may begin later and commit earlier
    tx.require_alive()
    await server.lock(f"command {args[0]}", tx)
    await server.lock(f"stream {args[2]}", tx)
    if args[0] in tables.commands:
        return [Cells(count=0)]
    taken = tables.streams.get(args[2], {"version": 0})["version"]
    if taken > args[6]:
        raise _conflict()

    def write() -> None:
        names = ("request_hash", "stream_id", "response_type", "response")
        tables.commands[args[0]] = dict(zip(names, args[1:5], strict=True))
        tables.streams[args[2]] = Cells(
            aggregate=args[5], version=args[7], hlc=args[8], revision=args[9], state=args[10]
        )
        for index, event_id in enumerate(args[11]):
            event = Cells(
                local_id=locals_[index],
                event_id=event_id,
                stream_id=args[2],
                version=args[6] + index + 1,
                type=args[12][index],
                occurred_at=args[15],
                recorded_at=recorded,
                hlc=args[13][index],
                meta=args[16][index],
                data=args[14][index],
                causation_id=args[17][index],
                xid=xid,
                command_id=args[0],
            )
            tables.events.append(event)
            server.trace(f"has {event['type']} {args[2]} v{event['version']} {event_id}")

    tx.writes.append(write)
    return [Cells(count=1)]


def _conflict() -> Exception:
    raised: Any = asyncpg.UniqueViolationError("duplicate key")  # Any: the server's fields are set on it by asyncpg
    raised.constraint_name = "events_stream_id_version_key"
    return cast("Exception", raised)


async def _look_up(tx: Transaction, command_id: UUID, stream_id: str) -> list[Row]:
    command = tx.server.tables.commands.get(command_id, {})
    stream = tx.server.tables.streams.get(stream_id, {})
    columns = ("request_hash", "stream_id", "response_type", "response")
    state = ("aggregate", "version", "hlc", "revision", "state")
    return [{**{key: command.get(key) for key in columns}, **{key: stream.get(key) for key in state}}]


async def _load(tx: Transaction, stream_id: str) -> list[Row]:
    found = tx.server.tables.streams.get(stream_id)
    return [found] if found else []


async def _read_stream(tx: Transaction, stream_id: str, version: int) -> list[Row]:
    rows = [row for row in tx.server.tables.events if row["stream_id"] == stream_id and row["version"] >= version]
    return sorted(rows, key=lambda row: cast("int", row["version"]))


async def _read_log(tx: Transaction, position: int, limit: int) -> list[Row]:
    return tx.server.tables.log[position - 1 : position - 1 + limit]


async def _head(tx: Transaction) -> list[Row]:
    return [{"head": len(tx.server.tables.log)}]


async def _epoch(tx: Transaction, name: str) -> list[Row]:
    return [{"epoch": row["epoch"]} for row in _leases(tx, name)]


def _leases(tx: Transaction, name: str) -> list[Row]:
    found = tx.server.tables.leases.get(name)
    return [found] if found else []


async def _take(tx: Transaction, name: str, holder: str, ttl: timedelta) -> list[Row]:
    await tx.server.lock(f"lease {name}", tx)
    for row in _leases(tx, name):
        if now() <= row["expires_at"] <= now() + 2 * ttl and row["holder"] != holder:
            return []
    epoch = sum(row["epoch"] for row in _leases(tx, name)) + 1
    tx.writes.append(
        lambda: tx.server.tables.leases.update({name: {"epoch": epoch, "holder": holder, "expires_at": now() + ttl}})
    )
    tx.server.trace(f"epoch {epoch}")
    return [{"epoch": epoch}]


async def _renew(tx: Transaction, name: str, epoch: int, ttl: timedelta = timedelta()) -> list[Row]:
    await tx.server.lock(f"lease {name}", tx)
    rows = [row for row in _leases(tx, name) if row["epoch"] == epoch]
    tx.writes.extend([lambda: row.update(expires_at=now() + ttl) for row in rows])  # noqa: B023 - at most one
    return rows


async def _check(tx: Transaction, name: str, epoch: int) -> list[Row]:
    await tx.server.lock(f"lease {name}", tx)
    return [{"one": 1} for row in _leases(tx, name) if row["epoch"] == epoch]


async def _oldest(tx: Transaction) -> list[Row]:
    state = tx.server.tables.sequencer
    for event in tx.server.tables.events:
        if event["xid"] >= state["low"] and (event["xid"] >= state["high"] or event["local_id"] > state["local_id"]):
            return [{"age": (now() - event["recorded_at"]).total_seconds()}]
    return []


async def _state(tx: Transaction, name: str, epoch: int, size: int) -> list[Row]:
    await tx.server.lock("sequencer", tx)
    if not await _check(tx, name, epoch):
        return []
    state = tx.server.tables.sequencer
    waiting = sorted(row["xid"] for row in tx.server.tables.events if row["xid"] >= state["high"])
    later = [xid for xid in waiting if xid > waiting[0]]
    return [{**state, "ended": min([tx.server.xmin, *later[size : size + 1]]), "now": now()}]


async def _window(tx: Transaction, low: str, high: str, after: int, limit: int) -> list[Row]:
    events = tx.server.tables.events
    rows = [row for row in events if int(low) <= row["xid"] < int(high) and row["local_id"] > after]
    return sorted(rows, key=lambda row: cast("int", row["local_id"]))[:limit]


async def _advance(  # noqa: PLR0917 - in the order of the statement's parameters
    tx: Transaction, position: int, local_id: int, at: datetime, low: str, high: str, *columns: list[Any]
) -> list[Row]:
    tables = tx.server.tables
    events = {row["local_id"]: row for row in tables.events}

    def write() -> None:
        for place, local, leaf in zip(*columns, strict=True):
            time = at - TICK * (position - place)
            tables.log.append(Cells(position=place, sequenced_at=time, leaf=leaf, **events[local]))
            tx.server.trace(f"position {place} {leaf.hex()[:16]}")
        tables.sequencer.update(position=position, local_id=local_id, sequenced_at=at, low=int(low), high=int(high))

    tx.writes.append(write)
    return [{}]


async def _mark(tx: Transaction, before: int, after: int) -> list[Row]:
    await tx.server.lock("relay", tx)
    if tx.server.tables.relayed != before:
        return []
    tx.writes.append(lambda: setattr(tx.server.tables, "relayed", after))
    return [{}]


async def _marked(tx: Transaction) -> list[Row]:
    return [{"position": tx.server.tables.relayed}]


async def _claim(tx: Transaction, consumer: str, topic: str, partition: int) -> list[Row]:
    key = (consumer, topic, partition)
    await tx.server.lock(f"offset {key}", tx)
    row = tx.server.tables.offsets.get(key, {"next_offset": None, "generation": 0})
    claimed = {"next_offset": row["next_offset"], "generation": row["generation"] + 1}
    tx.writes.append(lambda: tx.server.tables.offsets.update({key: claimed}))
    return [claimed]


async def _position(tx: Transaction, consumer: str, source: str, partition: int) -> list[Row]:
    found = tx.server.tables.positions.get((consumer, source, partition))
    return [] if found is None else [{"position": found}]


async def _streams(tx: Transaction, consumer: str, source: str, names: Sequence[str]) -> list[Row]:
    seen = tx.server.tables.seen
    keys = [(consumer, source, name) for name in names if (consumer, source, name) in seen]
    return [{"stream_id": key[2], "version": seen[key][0], "position": seen[key][1]} for key in keys]


async def _move(  # noqa: PLR0917 - in the order of the statement's parameters
    tx: Transaction,
    consumer: str,
    topic: str,
    partition: int,
    generation: int,
    expected: int | None,
    following: int | None,
    source: str,
    position: int,
    *columns: list[Any],
) -> list[Row]:
    key, tables = (consumer, topic, partition), tx.server.tables
    await tx.server.lock(f"offset {key}", tx)
    row = tables.offsets.get(key)
    if row is None or (row["generation"], row["next_offset"]) != (generation, expected):
        return [{"count": 0}]

    def write() -> None:
        tables.offsets[key] = {"next_offset": following, "generation": generation}
        place = (consumer, source, partition)
        tables.positions[place] = max(tables.positions.get(place, 0), position)
        for stream, version, at in zip(*columns, strict=True):
            tables.seen[consumer, source, stream] = (version, at)

    tx.writes.append(write)
    return [{"count": 1}]


async def _next_offsets(tx: Transaction, consumer: str) -> list[Row]:
    return [
        {"topic": topic, "partition": partition, "next_offset": row["next_offset"]}
        for (name, topic, partition), row in tx.server.tables.offsets.items()
        if name == consumer and row["next_offset"] is not None
    ]


async def _effect(tx: Transaction, consumer: str, event_id: UUID) -> list[Row]:
    def write() -> None:
        tx.server.tables.effects.append((consumer, event_id))
        tx.server.trace(f"effect of {consumer} {event_id}")

    tx.writes.append(write)
    return [{}]


async def _parked(tx: Transaction, consumer: str, source: str, stream: str = "") -> list[Row]:
    rows = [row for row in tx.server.tables.parked if row[:2] == (consumer, source) and stream in ("", row[2])]
    return [{"stream_id": row[2]} for row in rows]


async def _park(tx: Transaction, consumer: str, source: str, stream: str) -> list[Row]:
    tx.server.trace(f"{consumer} parks {stream}")
    tx.writes.append(lambda: tx.server.tables.parked.append((consumer, source, stream)))
    return [{}]


async def _filled(tx: Transaction) -> list[Row]:
    return [{"position": len(tx.server.tables.log)}]  # every event here was written with its cause in its column


async def _causes(tx: Transaction, position: int, limit: int) -> list[Row]:
    return []


async def _nothing(tx: Transaction, *args: object) -> list[Row]:
    return [{}]


async def _forget(tx: Transaction, older_than: timedelta, at_most: int) -> list[Row]:
    return [Cells(count=0)]  # no simulation lasts for 30 days


async def _following(tx: Transaction, model: str, alias: str) -> list[Row]:
    return [{"name": name} for name, row in tx.server.tables.streams.items() if row["aggregate"] == "endpoint"]


STATEMENTS: dict[str, Callable[..., Any]] = {
    store._LOOK_UP: _look_up,
    store._LOAD: _load,
    store._READ_STREAM: _read_stream,
    store._READ_LOG: _read_log,
    "SELECT coalesce(max(position), 0) FROM log_entries": _head,
    "SELECT epoch FROM leases WHERE name = $1": _epoch,
    lease._TAKE: _take,
    lease._RENEW: _renew,
    lease._GIVE_UP: _renew,
    lease._CHECK: _check,
    sequencer._OLDEST_UNSEQUENCED: _oldest,
    sequencer._STATE: _state,
    sequencer._WINDOW: _window,
    sequencer._ADVANCE: _advance,
    upkeep._FORGET: _forget,
    causes._FILLED: _filled,
    causes._CHUNK: _causes,
    relay._MARK: _mark,
    relay._MARKED: _marked,
    offsets._CLAIM: _claim,
    offsets._POSITION: _position,
    offsets._STREAMS: _streams,
    offsets._ADVANCE: _move,
    "SELECT topic, partition, next_offset FROM consumer_offsets "
    "WHERE consumer = $1 AND next_offset IS NOT NULL": _next_offsets,
    "SELECT stream_id FROM parked_streams WHERE consumer = $1 AND source = $2": _parked,
    "SELECT 1 FROM parked_streams WHERE consumer = $1 AND source = $2 AND stream_id = $3 FOR SHARE": _parked,
    "INSERT INTO parked_streams (consumer, source, stream_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING": _park,
    f"INSERT INTO parked_events ({parking._COLUMNS}) "
    "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, clock_timestamp()) ON CONFLICT DO NOTHING": _nothing,
    "SELECT name FROM endpoints WHERE model = $1 AND alias = $2 ORDER BY name": _following,
    EFFECT: _effect,
}
