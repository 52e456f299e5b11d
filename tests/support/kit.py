"""Fixtures of the kit's tests: a migrated database with the counters' tables, and a pool on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.postgres import Database, connected, create_pool, migrate
from headrace_local.testing import FreshDatabase
from tests.support.counters import SOURCE, TABLES, TYPES


async def prepare(fresh: FreshDatabase) -> None:
    """Applies the kit's migrations and makes the counters' tables."""
    async with connected(fresh.migration_dsn) as connection:
        await connection.execute(TABLES)
    await migrate(fresh.migration_dsn, service_dsn=fresh.service_dsn)


@asynccontextmanager
async def pooled(fresh: FreshDatabase, *, max_size: int = 10) -> AsyncIterator[Database]:
    """A pool as the service's role."""
    database = await create_pool(fresh.service_dsn, max_size=max_size)
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def counter_store(fresh: FreshDatabase) -> AsyncIterator[PostgresEventStore]:
    """A store of counters on a new database."""
    await prepare(fresh)
    async with pooled(fresh) as database:
        yield PostgresEventStore(database, SOURCE, TYPES)


async def until(condition: Callable[[], Awaitable[bool]], *, within_s: float = 10.0) -> None:
    """Waits for a condition, with a deadline."""
    async with asyncio.timeout(within_s):
        while not await condition():
            await asyncio.sleep(0.01)
