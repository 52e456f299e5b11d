"""Fixtures on real infrastructure: PostgreSQL, Kafka and S3, started once per session and only when a test asks.

    pytest_plugins = ["tests.support.stack"]        # once, in tests/conftest.py

    async def test_appends(database: FreshDatabase) -> None:
        await migrate(database.migration_dsn, ...)  # owner role
        pool = await create_pool(database.service_dsn)

    async def test_relays(topics: Topics) -> None:
        name = await topics.create("events", partitions=6)
        producer = ...(bootstrap_servers=topics.bootstrap)

    def test_stores(bucket: ObjectStoreAddress) -> None:
        ...(bucket.endpoint, bucket.access_key, bucket.secret_key, bucket.bucket)

    def test_survives_a_kill(infrastructure: Infrastructure) -> None:
        killed = infrastructure.kill("kafka")
        infrastructure.wait_ready("kafka", other_than=killed)

``infrastructure.addresses`` has the administrator's DSN, the Kafka bootstrap address and S3; the platform's own topics
exist on the broker. Databases, topics and buckets from the fixtures belong to one test and never collide. Starting
takes about 4 s, with Kafka's jars cached. The servers die with the test process, however it ends.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace_local.s3 import ObjectStoreAddress
from headrace_local.testing import FreshDatabase, Infrastructure, Topics, run_infrastructure


@pytest.fixture(scope="session")
def infrastructure() -> Iterator[Infrastructure]:
    """PostgreSQL, Kafka and S3, shared by the whole session."""
    with run_infrastructure() as running:
        yield running


@pytest.fixture
def database(infrastructure: Infrastructure) -> Iterator[FreshDatabase]:
    """An empty database with an owner and a service role, dropped after the test."""
    with infrastructure.database() as fresh:
        yield fresh


@pytest.fixture
def topics(infrastructure: Infrastructure) -> Topics:
    """A maker of topics under a prefix of this test's own."""
    return infrastructure.topics()


@pytest.fixture
def bucket(infrastructure: Infrastructure) -> ObjectStoreAddress:
    """An empty bucket of this test's own."""
    return infrastructure.bucket()
