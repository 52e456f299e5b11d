"""Real infrastructure for tests: a stack in a thread of its own, fresh databases, topics and buckets on it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from headrace_local import accounts, kafka_admin, psql
from headrace_local.background import BackgroundStack
from headrace_local.s3 import ObjectStoreAddress
from headrace_local.stack import Stack
from headrace_local.topics import Topic

T = TypeVar("T")
_WITHIN_S = 240.0
_ROLE_PASSWORD = "only-on-loopback-in-tests"  # noqa: S105


@dataclass(frozen=True, slots=True)
class FreshDatabase:
    """An empty database of its own, with the two roles every service's database has."""

    name: str
    service_dsn: str
    """CONNECT and USAGE only: what migrations grant is what it may do."""
    migration_dsn: str
    """Owns the database."""
    service_role: str
    admin_dsn: str
    """Superuser, on the same database."""


@dataclass(frozen=True, slots=True)
class Topics:
    """Topics of one test."""

    bootstrap: str
    prefix: str
    """Unique; also good for consumer groups and client ids."""

    async def create(self, name: str, *, partitions: int = 3, settings: Mapping[str, str] | None = None) -> str:
        """Create topic ``<prefix>.<name>`` and return its full name."""
        topic = Topic(f"{self.prefix}.{name}", partitions, settings or {})
        await kafka_admin.create_topics(self.bootstrap, [topic])
        return topic.name


class Infrastructure(BackgroundStack):
    """PostgreSQL, Kafka (with the platform's topics) and S3 in a temporary data folder."""

    @contextlib.contextmanager
    def database(self) -> Generator[FreshDatabase]:
        """Make a database with its owner and service roles; drop all of it at the end."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        roles = (name, f"{name}_owner")
        self.sql("".join(f"CREATE ROLE {role} LOGIN PASSWORD '{_ROLE_PASSWORD}';\n" for role in roles))
        self.sql(f"CREATE DATABASE {name} OWNER {roles[1]};")
        admin = self.addresses.postgres_dsn
        self.sql(
            f"REVOKE ALL ON DATABASE {name} FROM PUBLIC; GRANT CONNECT ON DATABASE {name} TO {name};\n"
            f"\\connect {name}\nGRANT USAGE ON SCHEMA public TO {name};"
        )
        try:
            yield FreshDatabase(
                name=name,
                service_dsn=psql.with_database(admin, database=name, user=name, password=_ROLE_PASSWORD),
                migration_dsn=psql.with_database(admin, database=name, user=roles[1], password=_ROLE_PASSWORD),
                service_role=name,
                admin_dsn=admin.rpartition("/")[0] + f"/{name}",
            )
        finally:
            self.sql(f"DROP DATABASE {name} WITH (FORCE);\n" + "".join(f"DROP ROLE {role};\n" for role in roles))

    def topics(self) -> Topics:
        """Return a maker of topics under a prefix of their own."""
        return Topics(self.addresses.kafka_bootstrap, f"test-{uuid.uuid4().hex[:12]}")

    def bucket(self) -> ObjectStoreAddress:
        """Make an empty bucket of its own."""
        store = self.addresses.s3
        if store is None:
            raise AssertionError("this stack runs without S3")
        fresh = replace(store, bucket=f"test-{uuid.uuid4().hex[:12]}")
        self.call(fresh.ensure_bucket())
        return fresh

    def sql(self, script: str) -> str:
        """Run a psql script as the administrator and return its unaligned output."""
        program = accounts.binaries(user=None) / "psql"
        return self.call(psql.execute(program, self.addresses.postgres_dsn, script))


@contextlib.contextmanager
def temporary_folder() -> Generator[Path]:
    """A folder for a data folder: as root below ``/var/tmp``, where PostgreSQL's account can pass through."""
    base = "/var/tmp" if os.geteuid() == 0 else None  # noqa: S108 - mkdtemp makes a name of its own there
    path = Path(tempfile.mkdtemp(prefix="headrace-test-", dir=base))
    if base is not None:
        path.chmod(0o711)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def run_infrastructure() -> Generator[Infrastructure]:
    """Start infrastructure in a temporary data folder; stop and delete it at the end."""
    with temporary_folder() as folder:
        infrastructure = Infrastructure(Stack(folder / "data", services=False))
        infrastructure.start()
        try:
            yield infrastructure
        finally:
            infrastructure.stop()
