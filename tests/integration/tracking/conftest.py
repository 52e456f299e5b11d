"""Tracking on a database of the test's own."""

from collections.abc import AsyncIterator

import pytest

from headrace_kit.postgres import create_pool, migrate
from headrace_local.testing import FreshDatabase
from tests.support.tracking import Tracking


@pytest.fixture
async def tracking(database: FreshDatabase) -> AsyncIterator[Tracking]:
    await migrate(database.migration_dsn, ["headrace_tracking"], service_dsn=database.service_dsn)
    pool = await create_pool(database.service_dsn)
    found = Tracking(pool)
    yield found
    await found.writer.close()
    await pool.close()
