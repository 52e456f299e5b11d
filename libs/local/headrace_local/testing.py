"""Real infrastructure for tests: a stack in a thread of its own, fresh databases, topics and buckets on it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Coroutine, Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from headrace_local import accounts, kafka_admin, psql
from headrace_local.s3 import ObjectStoreAddress
from headrace_local.stack import Addresses, Stack
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


class BackgroundStack:
    """A :class:`Stack` driven from synchronous code; its event loop lives in a thread until :meth:`stop`."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="headrace-stack", daemon=True)

    @property
    def addresses(self) -> Addresses:
        """Where everything listens."""
        return self.stack.addresses

    def start(self) -> None:
        """Start the stack; raises its ``LocalError`` when it cannot."""
        self._thread.start()
        try:
            self.call(self.stack.start())
        except BaseException:
            self._end_loop()
            raise

    def stop(self) -> None:
        """Stop the stack and the thread."""
        try:
            self.call(self.stack.stop())
        finally:
            self._end_loop()

    def call(self, coroutine: Coroutine[object, object, T]) -> T:
        """Run ``coroutine`` in the stack's loop and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_WITHIN_S)

    def kill(self, name: str, *, by: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal (SIGKILL) to a part's process and return its process id; the supervisor starts it again."""
        pid = self.stack.supervised[name].pid
        if pid is None:
            raise AssertionError(f"{name} does not run")
        os.kill(pid, by)
        return pid

    def wait_ready(self, name: str, *, other_than: int | None = None, within_s: float = 60.0) -> int:
        """Wait until a part is ready, as another process than ``other_than``; return its process id."""
        deadline = time.monotonic() + within_s
        part = self.stack.supervised[name]
        while time.monotonic() < deadline:
            pid = part.pid
            if part.state == "ready" and pid is not None and pid != other_than:
                return pid
            time.sleep(0.02)
        raise AssertionError(f"{name} was not ready again within {within_s:.0f} s; see {part.log}")

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


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
