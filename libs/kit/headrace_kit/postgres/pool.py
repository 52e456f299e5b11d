"""A pool of connections to one database."""
# asyncpg ships no types: inside this module Any is what it gives.
# ruff: noqa: ANN401

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from headrace_kit.postgres.connection import (
    Connection,
    ConnectionLost,
    Record,
    prepare,
    require_server_version,
    translated,
)

STATEMENT_TIMEOUT_S = 10.0
"""The server ends a statement after this long."""
IDLE_S = 30.0
"""A connection that nobody used for this long is closed: each costs the server 2 to 4 MB."""


class Database:
    """A pool of connections to one database. Safe for many tasks of one loop."""

    def __init__(self, pool: Any) -> None:  # Any: an untyped asyncpg pool
        self._pool = pool

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """One connection, given back at the end.

        Raises:
            ConnectionLost: the server cannot be reached.
        """
        with translated():
            raw = await self._pool.acquire(timeout=STATEMENT_TIMEOUT_S)
        connection = Connection(raw)
        try:
            yield connection
        except ConnectionLost as error:
            # Nobody may be at the other end: no goodbye, and no further wait for those who were asked at the same time.
            connection.terminate()
            if isinstance(error.__cause__, TimeoutError):
                await self._pool.expire_connections()
            raise
        finally:
            # The work is done or has failed by now; a connection that cannot be reset is closed by the pool.
            with suppress(Exception):
                await self._pool.release(raw)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside a transaction; an exception rolls back."""
        async with self.acquire() as connection, connection.transaction():
            yield connection

    async def fetch(self, sql: str, *args: object) -> list[Record]:
        """All rows of one statement."""
        async with self.acquire() as connection:
            return await connection.fetch(sql, *args)

    async def fetchrow(self, sql: str, *args: object) -> Record | None:
        """The first row of one statement, or None."""
        async with self.acquire() as connection:
            return await connection.fetchrow(sql, *args)

    async def fetchval(self, sql: str, *args: object) -> Any:  # Any: as for Record
        """The first value of one statement, or None."""
        async with self.acquire() as connection:
            return await connection.fetchval(sql, *args)

    async def execute(self, sql: str, *args: object) -> int:
        """Runs one statement; returns the number of rows it touched."""
        async with self.acquire() as connection:
            return await connection.execute(sql, *args)

    async def close(self) -> None:
        """Waits for the connections to come back and closes them."""
        with translated():
            await self._pool.close()


async def create_pool(dsn: str, *, max_size: int = 10, application: str = "headrace") -> Database:
    """Connects to a service's database.

    Args:
        dsn: ``postgresql://user:password@host:port/database``.
        max_size: Most connections at once; further callers wait.
        application: Shown in pg_stat_activity.

    Raises:
        ConnectionLost: the server cannot be reached.
        Unavailable: the server is older than ``MINIMUM_SERVER_VERSION``.
    """
    with translated():
        pool = await asyncpg.create_pool(
            dsn,
            min_size=1,
            max_size=max_size,
            max_inactive_connection_lifetime=IDLE_S,
            command_timeout=STATEMENT_TIMEOUT_S + 5,
            timeout=STATEMENT_TIMEOUT_S,
            init=prepare,
            reset=_keep,
            server_settings=_session(application),
        )
    database = Database(pool)
    try:
        async with database.acquire() as connection:
            await require_server_version(connection)
    except BaseException:
        await database.close()
        raise
    return database


async def _keep(raw: Any) -> None:  # Any: an untyped asyncpg connection
    """Leaves a connection as it comes back: nothing here sets or listens for longer than a transaction.

    Whoever takes a lock of the session lets it go, or ends the session (``Connection.terminate``). asyncpg would ask
    the server to reset it, one round trip more for each statement. It rolls back by itself what was left open.
    """
    del raw


def _session(application: str) -> Mapping[str, str]:
    # One transaction left open holds back the sequencer of every service in the cluster.
    return {
        "application_name": application,
        "timezone": "UTC",
        "statement_timeout": f"{int(STATEMENT_TIMEOUT_S)}s",
        "lock_timeout": "5s",
        "idle_in_transaction_session_timeout": "5s",
        "transaction_timeout": "15s",
    }
