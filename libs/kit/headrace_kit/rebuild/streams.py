"""Every stream of a log folded again, into ``streams`` and the rows the streams own, in the schema ``rebuild``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from headrace_kit.errors import FailedPrecondition
from headrace_kit.eventstore import Aggregate, PostgresEventStore, Row
from headrace_kit.eventstore.rows import writes_to
from headrace_kit.postgres import Connection, Record, UniqueViolation
from headrace_kit.rebuild.folding import Event, Folded, StreamFold

SCHEMA: Final = "rebuild"
STREAMS: Final = "streams"
PAGE: Final = 4000
"""Events read by one statement."""
SLICE: Final = 100
"""Events folded before the loop's other tasks have their turn: some milliseconds."""
BATCH: Final = 500
"""Streams, and rows, written in one transaction: every write transaction is short, since all share one horizon."""
TOUCHED_PAGE: Final = 200
"""Streams folded again by one statement."""

_NEXT: Final = """
SELECT stream_id, version, hlc, type, meta, data FROM events
WHERE (stream_id, version) > ($1, $2) ORDER BY stream_id, version LIMIT $3
"""
_SOME: Final = """
SELECT stream_id, version, hlc, type, meta, data FROM events
WHERE stream_id = ANY($1::text[]) ORDER BY stream_id, version
"""
_COUNT: Final = "SELECT count(*) FROM events"
_HORIZON: Final = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text"
_TOUCHED: Final = "SELECT DISTINCT stream_id FROM events WHERE xid >= $1::text::xid8 ORDER BY stream_id"
_FORGET: Final = "DELETE FROM rebuild.streams WHERE stream_id = ANY($1::text[])"
_COLUMNS: Final = ("stream_id", "aggregate", "version", "hlc", "revision", "state")
Advance = Callable[[int], None]
"""Told of each number of events that was folded."""


class StreamRebuild:
    """Folds the streams of one store. Call ``fold`` once, then ``catch_up`` until little is left.

    An append may be committed and have no position yet, and one that took its ``local_id`` early may commit late. So
    what was missed is told by transaction: before a pass begins, the oldest transaction under way is noted. All below
    it are over and every statement of the pass sees what they did; the streams of all others are folded again.

    Args:
        store: Whose events.
        aggregates: Every kind of stream there is.
    """

    def __init__(self, store: PostgresEventStore, aggregates: Sequence[Aggregate[Any]]) -> None:  # Any: any state
        self._store = store
        self._aggregates = aggregates
        self._declared = {each.name: frozenset(each.tables) for each in aggregates}
        self._horizon = "0"
        self._put_off: set[str] = set()

    @property
    def tables(self) -> tuple[str, ...]:
        """What is made anew. ``streams`` comes first: each append locks it before any other of these."""
        return (STREAMS, *(table for each in self._aggregates for table in each.tables))

    async def count(self) -> int:
        """Events to fold."""
        return int(await self._store.database.fetchval(_COUNT))

    async def fold(self, advance: Advance) -> None:
        """Folds every stream, page by page.

        Raises:
            FailedPrecondition: an event is of a type, or a stream of a kind, that this code does not know.
        """
        database = self._store.database
        self._horizon = await database.fetchval(_HORIZON)
        fold: StreamFold | None = None
        done: list[Folded] = []
        # While one page is folded, the next is read and what the one before gave is written.
        reading = asyncio.ensure_future(database.fetch(_NEXT, "", 0, PAGE))
        writing = asyncio.ensure_future(self._write(()))
        try:
            while rows := await reading:
                reading = asyncio.ensure_future(database.fetch(_NEXT, rows[-1]["stream_id"], rows[-1]["version"], PAGE))
                for start in range(0, len(rows), SLICE):
                    part = rows[start : start + SLICE]
                    for row in part:
                        if fold is None or fold.stream_id != row["stream_id"]:
                            if fold is not None:
                                done.append(fold.finish())
                            fold = self._begin(row["stream_id"])
                        fold.add(self._event(row))
                    advance(len(part))
                    await asyncio.sleep(0)
                await writing
                *batches, done = _batches(done)
                writing = asyncio.ensure_future(self._write(batches))
            await writing
        finally:
            reading.cancel()
            writing.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)
        if fold is not None:
            done.append(fold.finish())
        await self._write([done])

    async def catch_up(self, connection: Connection | None = None) -> int:
        """Folds again what was appended since the last pass began; returns how many streams that were.

        With a connection, inside its transaction: nothing may be appended meanwhile, and the next call begins where
        this one did, since the transaction may be rolled back.
        """
        source = connection or self._store.database
        horizon = await source.fetchval(_HORIZON)
        touched = {row["stream_id"] for row in await source.fetch(_TOUCHED, self._horizon)} | self._put_off
        if connection is None:
            self._horizon, self._put_off = horizon, set()
        names = sorted(touched)
        for start in range(0, len(names), TOUCHED_PAGE):
            page = names[start : start + TOUCHED_PAGE]
            folds: dict[str, StreamFold] = {}
            for row in await source.fetch(_SOME, page):
                stream_id = row["stream_id"]
                fold = folds.get(stream_id) or folds.setdefault(stream_id, self._begin(stream_id))
                fold.add(self._event(row))
            folded = [fold.finish() for fold in folds.values()]
            if connection is not None:
                await self._put(connection, folded)
            else:
                await self._write(_batches(folded))
        return len(names)

    async def _write(self, batches: Iterable[Sequence[Folded]]) -> None:
        for batch in batches:
            try:
                async with self._store.database.transaction() as connection:
                    # The swap waits for its own commit to be on disk, and with it for all before.
                    await connection.execute("SET LOCAL synchronous_commit TO off")
                    await self._put(connection, batch)
            except UniqueViolation:
                # One stream was read before and another after a key went from the first to the second. Both changed
                # meanwhile, so the next pass has the first in its new form; these follow it.
                self._put_off |= {each.stream_id for each in batch}

    async def _put(self, connection: Connection, folded: Sequence[Folded]) -> None:
        await connection.execute(_FORGET, [each.stream_id for each in folded])
        states = [(e.stream_id, e.aggregate, e.version, e.hlc, e.revision, e.state) for e in folded]
        await connection.copy_rows(STREAMS, _COLUMNS, states, schema=SCHEMA)
        for sql, parameter in writes_to(SCHEMA, [row for each in folded for row in self._rows(each)]):
            await connection.execute(sql, parameter)

    def _rows(self, folded: Folded) -> Iterator[Row]:
        declared = self._declared[folded.aggregate]
        for row in folded.rows:
            if row.table not in declared:
                raise AssertionError(f"{folded.aggregate} does not declare the table {row.table} it writes to")
            yield row

    def _begin(self, stream_id: str) -> StreamFold:
        aggregate = next((each for each in self._aggregates if each.owns(stream_id)), None)
        if aggregate is None:
            raise FailedPrecondition(f"{stream_id} is of a kind this process does not know", reason="STREAM_UNKNOWN")
        return StreamFold(aggregate, stream_id)

    def _event(self, row: Record) -> Event:
        message = self._store.types.decode(row["type"], row["data"])
        if message is None:
            raise FailedPrecondition(f"this process does not know events {row['type']}", reason="TYPE_UNKNOWN")
        return Event(row["version"], row["hlc"], row["meta"], message)


def _batches(folded: Sequence[Folded]) -> list[list[Folded]]:
    """Streams that together make a batch each; the last one is not full, and may be empty."""
    batches: list[list[Folded]] = [[]]
    size = 0
    for each in folded:
        batches[-1].append(each)
        size += 1 + len(each.rows)
        if size >= BATCH:
            batches.append([])
            size = 0
    return batches
