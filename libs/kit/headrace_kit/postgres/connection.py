"""Connections to PostgreSQL: asyncpg, wrapped once.

What it raises becomes the kit's errors: a lost connection is ``ConnectionLost`` (the outcome of what ran is unknown),
a statement over its time ``DeadlineExceeded``, a full disk or connection limit ``ResourceExhausted``, a unique key
that is taken ``UniqueViolation``, a row that a check refuses ``CheckViolation``. Everything else is a fault in the
program and stays as it is.
"""
# asyncpg ships no types: inside this module Any is what it gives.
# ruff: noqa: ANN401

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Protocol, cast

import asyncpg

from headrace_kit.errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    ResourceExhausted,
    Unavailable,
)

MINIMUM_SERVER_VERSION = 18


class ConnectionLost(Unavailable):
    """The database went away; whether the last statement took effect is unknown."""

    default_reason = "DATABASE_UNAVAILABLE"


class UniqueViolation(AlreadyExists):
    """A unique key is taken; ``constraint`` names it. The transaction has done nothing."""

    default_reason = "UNIQUE_VIOLATION"

    def __init__(self, message: str, *, constraint: str) -> None:
        super().__init__(message)
        self.constraint = constraint


class CheckViolation(FailedPrecondition):
    """A row is not as the table demands; ``constraint`` names what it breaks. The transaction has done nothing."""

    default_reason = "CHECK_VIOLATION"

    def __init__(self, message: str, *, constraint: str) -> None:
        super().__init__(message)
        self.constraint = constraint


class Record(Protocol):
    """One row: values by column name or index."""

    # Any: the type of an SQL value is known to the statement only.
    def __getitem__(self, key: str | int, /) -> Any: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __len__(self) -> int: ...
    def keys(self) -> Iterable[str]: ...  # noqa: D102 - as of a mapping
    def items(self) -> Iterable[tuple[str, Any]]: ...  # noqa: D102 - as of a mapping


_LOST = (
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    OSError,
)


@contextmanager
def translated() -> Iterator[None]:
    """Turns what asyncpg raises into the kit's errors."""
    try:
        yield
    except asyncpg.UniqueViolationError as error:
        raise UniqueViolation(str(error), constraint=str(getattr(error, "constraint_name", ""))) from error
    except asyncpg.CheckViolationError as error:
        raise CheckViolation(str(error), constraint=str(getattr(error, "constraint_name", ""))) from error
    except asyncpg.QueryCanceledError as error:
        raise DeadlineExceeded("the database took too long", reason="DATABASE_TIMEOUT") from error
    except asyncpg.LockNotAvailableError as error:
        raise DeadlineExceeded("a lock in the database took too long", reason="DATABASE_TIMEOUT") from error
    except (asyncpg.IdleInTransactionSessionTimeoutError, asyncpg.TransactionTimeoutError) as error:
        raise ConnectionLost(f"the database ended the transaction: {error}") from error
    except asyncpg.InsufficientResourcesError as error:
        raise ResourceExhausted(f"the database is out of resources: {error}", reason="DATABASE_FULL") from error
    except _LOST as error:
        raise ConnectionLost(f"the database is not reachable: {error}") from error
    except asyncpg.InterfaceError as error:
        if "closed" in str(error) or "closing" in str(error):
            raise ConnectionLost(f"the database is not reachable: {error}") from error
        raise


class Connection:
    """One connection, held by one task at a time. Statements take ``$1``-style parameters."""

    __slots__ = ("_raw",)

    def __init__(self, raw: Any) -> None:  # Any: an untyped asyncpg connection
        self._raw = raw

    async def fetch(self, sql: str, *args: object) -> list[Record]:
        """All rows."""
        with translated():
            return cast("list[Record]", await self._raw.fetch(sql, *args))

    async def fetchrow(self, sql: str, *args: object) -> Record | None:
        """The first row, or None."""
        with translated():
            return cast("Record | None", await self._raw.fetchrow(sql, *args))

    async def fetchval(self, sql: str, *args: object) -> Any:  # Any: as for Record
        """The first column of the first row, or None."""
        with translated():
            return await self._raw.fetchval(sql, *args)

    async def execute(self, sql: str, *args: object) -> int:
        """Runs a statement, or a script without parameters; returns the number of rows it touched."""
        with translated():
            status: str = await self._raw.execute(sql, *args)
        last = status.rpartition(" ")[2]
        return int(last) if last.isdigit() else 0

    async def executemany(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        """Runs a statement once a row, all or none."""
        with translated():
            await self._raw.executemany(sql, rows)

    async def copy_rows(
        self, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, schema: str | None = None
    ) -> int:
        """Binary COPY of rows into a table; returns their number."""
        with translated():
            status: str = await self._raw.copy_records_to_table(
                table, records=rows, columns=list(columns), schema_name=schema
            )
        return int(status.rpartition(" ")[2])

    def terminate(self) -> None:
        """Ends the session without a goodbye: what it holds goes with it, and the pool makes another."""
        with suppress(asyncpg.InterfaceError):  # the pool has let go of it already
            self._raw.terminate()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """A transaction, or a savepoint inside one; an exception rolls back."""
        raw = self._raw.transaction()
        with translated():
            await raw.start()
        try:
            yield
        except BaseException:
            # A rollback that fails must not hide what happened: the pool resets or closes the connection anyway.
            with suppress(Exception):
                await raw.rollback()
            raise
        with translated():
            await raw.commit()


@asynccontextmanager
async def connected(dsn: str, *, application: str = "headrace") -> AsyncIterator[Connection]:
    """One connection outside any pool and without time limits: for migrations and maintenance."""
    with translated():
        raw = await asyncpg.connect(dsn, server_settings={"application_name": application, "timezone": "UTC"})
        await prepare(raw)
    try:
        yield Connection(raw)
    finally:
        await raw.close(timeout=5)


async def require_server_version(connection: Connection) -> None:
    """Raises Unavailable when the server is too old for what the sequencer relies on."""
    version = int(await connection.fetchval("SELECT current_setting('server_version_num')::int")) // 10_000
    if version < MINIMUM_SERVER_VERSION:
        raise Unavailable(
            f"PostgreSQL {MINIMUM_SERVER_VERSION} or newer is needed, the server is {version}",
            reason="DATABASE_TOO_OLD",
        )


async def prepare(raw: Any) -> None:  # Any: an untyped asyncpg connection
    """Sets up a new connection: jsonb is decoded to Python values."""
    await raw.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
