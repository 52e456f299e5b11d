"""A rebuild from its beginning to the swap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any, Final

import structlog

from headrace_kit.errors import Aborted, DeadlineExceeded, FailedPrecondition
from headrace_kit.eventstore import Aggregate, PostgresEventStore
from headrace_kit.postgres import Connection, ConnectionLost, Database
from headrace_kit.rebuild.comparing import MAX_DIFFERENCES, Comparison, Difference
from headrace_kit.rebuild.projections import Projection, ProjectionRebuild
from headrace_kit.rebuild.streams import StreamRebuild

_log = structlog.get_logger(__name__)
SMALL: Final = 20
"""So few streams may be folded while nothing is appended."""
MAX_ROUNDS: Final = 50
LOCK_TIMEOUT_MS: Final = 300
"""Less than the server waits before it looks for deadlocks: the rebuild gives way, whoever is in it goes on."""
SWAP_TIMEOUT_MS: Final = 900
"""Likewise for all the locks of the swap together, each of which keeps readers of the tables before it waiting."""
PATIENT_MS: Final = 1500
"""At each third attempt, more than that, for then the server ends an autovacuum that is in the way. Only against
writers, which lock in one order."""
MAX_ATTEMPTS: Final = 60
_MUTEX: Final = 0x72656275
_LOCK: Final = "SELECT pg_try_advisory_lock($1)"
_UNLOCK: Final = "SELECT pg_advisory_unlock($1)"
_REVISIONS: Final = "SELECT aggregate, revision FROM read_models"
_RECORD: Final = """
INSERT INTO read_models AS r (aggregate, revision) SELECT * FROM unnest($1::text[], $2::integer[])
ON CONFLICT (aggregate) DO UPDATE SET revision = greatest(r.revision, EXCLUDED.revision)
"""


class Phase(Enum):
    """What a rebuild is at."""

    FOLDING = auto()
    CATCHING_UP = auto()
    COMPARING = auto()
    SWAPPING = auto()


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a phase has come; ``total`` is 0 where that is not known."""

    phase: Phase
    done: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class TableReport:
    """What came of one table.

    Attributes:
        table: Its name.
        rows: Rows of the rebuilt one.
        sha256: Digest of its canonical dump: 32 bytes, of the SHA-256 of each row's text in the order of the key.
        differences: Rows in which the live one differed while nothing was written, the first ``MAX_DIFFERENCES``.
    """

    table: str
    rows: int
    sha256: bytes
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a rebuild.

    Attributes:
        tables: Each table, in order.
        events: Events folded.
        swapped: Whether the rebuilt tables are the live ones now.
        locked_s: How long appends waited.
    """

    tables: tuple[TableReport, ...]
    events: int
    swapped: bool
    locked_s: float


class Rebuild:
    """Makes every read model of a service anew. One at a time for each database; another is refused.

    Args:
        store: The service's.
        aggregates: Every kind of stream.
        projections: What is folded from other services' logs.
    """

    def __init__(
        self,
        store: PostgresEventStore,
        aggregates: Sequence[Aggregate[Any]],  # Any: states of different classes
        projections: Sequence[Projection] = (),
    ) -> None:
        self._store = store
        self._database = store.database
        self._aggregates = aggregates
        self._projections = projections

    async def run(self, *, check: bool, tell: Callable[[Progress], None] = lambda _: None) -> Report:
        """Folds beside the live tables, compares, and unless ``check`` swaps. Live tables change in the swap alone.

        Whatever ends it early, this process included, leaves them as they were; the next one begins from the start.

        Raises:
            FailedPrecondition: another rebuild runs, the log has what this code does not know, or a newer process
                has rebuilt.
            Aborted: the tables were in use at every attempt to lock them.
            Unavailable: the database, or the log of another service, is away.
        """
        async with self._alone() as connection:
            await self._require_current(connection)
            work = _Work(
                StreamRebuild(self._store, self._aggregates),
                [ProjectionRebuild(self._database, each) for each in self._projections],
            )
            try:
                return await self._rebuild(work, connection, check=check, tell=tell)
            finally:
                with suppress(ConnectionLost, DeadlineExceeded):
                    await self._drop()

    async def _rebuild(
        self, work: _Work, alone: Connection, *, check: bool, tell: Callable[[Progress], None]
    ) -> Report:
        await self._drop()  # what one that died has left
        await self._database.execute("SELECT begin_rebuild($1)", list(work.tables))
        total, done = await work.streams.count(), 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            tell(Progress(Phase.FOLDING, done, max(total, done)))

        tell(Progress(Phase.FOLDING, 0, total))
        await work.fold(advance)
        tell(Progress(Phase.CATCHING_UP))
        for _ in range(MAX_ROUNDS):
            if await work.catch_up() <= SMALL:
                break
        suspects = await self._compare(work, tell)
        tell(Progress(Phase.SWAPPING))
        loop = asyncio.get_running_loop()
        for attempt in range(MAX_ATTEMPTS):
            await work.catch_up()
            try:
                began = loop.time()
                timeout_ms = PATIENT_MS if attempt % 3 == 2 else LOCK_TIMEOUT_MS
                reports = await self._finish(work, suspects, alone, check=check, timeout_ms=timeout_ms)
            except DeadlineExceeded:  # a table was in use
                await asyncio.sleep(min(0.02 * (attempt + 1), 0.5))
                continue
            locked = loop.time() - began
            _log.info("rebuilt", tables=len(reports), events=done, swapped=not check, locked_s=round(locked, 4))
            return Report(tuple(reports), done, not check, locked)
        raise Aborted(f"the tables were in use at {MAX_ATTEMPTS} attempts to lock them", reason="TABLES_IN_USE")

    async def _drop(self) -> None:
        """Drops the tables under way and those before the swap, each in a transaction of its own."""
        while await self._database.fetchval("SELECT drop_rebuilt()"):
            pass

    async def _compare(self, work: _Work, tell: Callable[[Progress], None]) -> list[tuple[Comparison, TableReport]]:
        """What may differ: a row that is appended to meanwhile seems to."""
        found: list[tuple[Comparison, TableReport]] = []
        rows = 0
        for table in work.tables:
            await self._database.execute("SELECT analyze_rebuilt($1)", table)
            comparison = await Comparison.of(self._database, table)
            differences = await comparison.differences(self._database)

            def seen(count: int) -> None:
                nonlocal rows
                rows += count
                tell(Progress(Phase.COMPARING, rows))

            count, digest = await comparison.digest(self._database, "rebuild", seen)
            found.append((comparison, TableReport(table, count, digest, tuple(differences))))
        return found

    async def _finish(
        self,
        work: _Work,
        suspects: Sequence[tuple[Comparison, TableReport]],
        connection: Connection,
        *,
        check: bool,
        timeout_ms: int,
    ) -> list[TableReport]:
        """The last catch-up while no append can commit, the last word on what differs, and the swap.

        On the connection that keeps other rebuilds out: when it is gone, so is the right to swap.
        """
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = '{timeout_ms}ms'")
            places = ", ".join(f"public.{table}" for table in work.tables)
            await connection.execute(f"LOCK TABLE {places} IN EXCLUSIVE MODE")
            await connection.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT_MS}ms'")
            await work.catch_up(connection)
            for comparison, _ in suspects:
                for condition in (each.ahead.get(comparison.table) for each in self._aggregates):
                    if condition is not None:
                        await comparison.take(connection, condition)
            reports = [
                replace(report, differences=tuple(await comparison.again(connection, report.differences)))
                for comparison, report in suspects
            ]
            if not check:
                await self._require_current(connection)
                names = [each.name for each in self._aggregates]
                await connection.execute(_RECORD, names, [each.revision for each in self._aggregates])
                await connection.execute(f"SET LOCAL statement_timeout = '{SWAP_TIMEOUT_MS}ms'")
                await connection.execute("SELECT swap_rebuilt($1)", list(work.tables))
        return reports

    async def _require_current(self, connection: Connection) -> None:
        recorded = await revisions(connection)
        for each in self._aggregates:
            if recorded.get(each.name, 1) > each.revision:
                raise FailedPrecondition(
                    f"the read models of {each.name} are at revision {recorded[each.name]}, this process is older",
                    reason="READ_MODELS_NEWER",
                )

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[Connection]:
        async with self._database.acquire() as connection:
            held = True  # unless the server says that it is not
            try:
                held = await connection.fetchval(_LOCK, _MUTEX)
                if not held:
                    raise FailedPrecondition("another rebuild of this service runs", reason="REBUILD_RUNNING")
                try:
                    yield connection
                finally:
                    # The swap stands or not by now, and what the lock has come to does not change it.
                    with suppress(Exception):
                        held = not await connection.fetchval(_UNLOCK, _MUTEX)
            finally:
                if held:  # the pool hands a session on as it is: this one ends, and its lock with it
                    connection.terminate()


@dataclass(frozen=True, slots=True)
class _Work:
    streams: StreamRebuild
    projections: Sequence[ProjectionRebuild]

    @property
    def tables(self) -> tuple[str, ...]:
        return (*self.streams.tables, *(table for each in self.projections for table in each.tables))

    async def fold(self, advance: Callable[[int], None]) -> None:
        await self.streams.fold(advance)
        for each in self.projections:
            await each.fold(advance)

    async def catch_up(self, connection: Connection | None = None) -> int:
        folded = [await each.catch_up(connection) for each in self.projections]
        return await self.streams.catch_up(connection) + sum(folded)


async def revisions(database: Database | Connection) -> Mapping[str, int]:
    """The recorded revision of each kind of stream; one that is not recorded is at 1."""
    return {row["aggregate"]: row["revision"] for row in await database.fetch(_REVISIONS)}


__all__ = ["MAX_DIFFERENCES", "Phase", "Progress", "Rebuild", "Report", "TableReport", "revisions"]
