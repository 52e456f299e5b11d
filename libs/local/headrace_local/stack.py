"""The whole stack over one data folder, as an object to start and stop."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from headrace_local import accounts, databases, jars, kafka_admin, names, ports, psql, services, topics
from headrace_local.credentials import OPERATOR, Credentials
from headrace_local.errors import DiskFull, PartFailed
from headrace_local.external import DEFAULT_BUCKET, External
from headrace_local.files import write_json
from headrace_local.folder import DataFolder, FolderLock
from headrace_local.guard import Guard
from headrace_local.kafka import Kafka
from headrace_local.part import Part
from headrace_local.postgres import Postgres
from headrace_local.s3 import S3, ObjectStoreAddress
from headrace_local.supervisor import Notice, Report, Supervised

LEAST_FREE_BYTES = 256 * 1024 * 1024
"""A start with less is refused."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a started stack listens; empty strings for what it does not run."""

    postgres_dsn: str
    """The administrator's: may create databases and roles."""
    kafka_bootstrap: str
    s3: ObjectStoreAddress | None
    grpc: dict[str, str]
    """``host:port`` by service."""
    serving_url: str
    gateway_url: str
    token_file: Path
    """The operator's token."""


def _ignore(notice: Notice) -> None:
    del notice


class Stack:
    """PostgreSQL, Kafka, S3 and the services as supervised child processes.

    Start and stop it in one event loop, whose thread must outlive it: the kernel kills the children when that thread
    ends. The same data folder may be started again any number of times, also after a kill -9 of this process.
    """

    def __init__(
        self,
        data: Path,
        *,
        only: Iterable[str] | None = None,
        services: bool = True,
        external: External | None = None,
        port_base: int | None = None,
        cache: Path | None = None,
        report: Report = _ignore,
        jar_progress: jars.Progress | None = None,
    ) -> None:
        """Plan a stack; nothing is touched before :meth:`start`.

        Args:
            data: the data folder; made when absent.
            only: names of parts to run, with what they need; everything when ``None``.
            services: ``False`` runs infrastructure alone.
            external: existing servers to use; none by default (the environment is not read here).
            port_base: pin the ports to consecutive numbers from here.
            cache: where jars are kept; the user's cache folder by default.
            report: called in the event loop with what an operator should read.
            jar_progress: called while jars are fetched, from other threads.

        Raises:
            UnknownPart: ``only`` has a name that is no part.
        """
        self.folder = DataFolder(data.absolute())
        self.external = external or External()
        self.parts = names.select(only, services=services)
        self.notes: list[str] = []
        self._port_base = port_base
        self._cache = cache or jars.cache_home()
        self._report = report
        self._jar_progress = jar_progress
        self._lock = FolderLock(self.folder)
        self._guard = Guard()
        self._credentials = Credentials(self.folder)
        self._supervised: dict[str, Supervised] = {}
        self._addresses: Addresses | None = None
        self._phase = "stopped"

    @property
    def addresses(self) -> Addresses:
        """Where everything listens; valid once started."""
        if self._addresses is None:
            raise PartFailed("the stack is not started")
        return self._addresses

    @property
    def supervised(self) -> dict[str, Supervised]:
        """The parts that run here, by name, in the order of their start."""
        return dict(self._supervised)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start everything in order and return when all parts are ready; on any failure everything is stopped again.

        Raises:
            LocalError: one of the errors of :mod:`headrace_local.errors`.
        """
        self._lock.acquire()
        try:
            self._phase = "starting"
            self._guard.start()
            folder_id = self.folder.prepare()
            self._require_space()
            chosen, self.notes = ports.assign(self.folder.ports, self._port_names(), base=self._port_base)
            infrastructure = self._plan_infrastructure(chosen, folder_id)
            await self._require_external()
            await self._start_together(infrastructure)
            await self._provision()
            await self._start_services(chosen)
            self._phase = "ready"
            self._write_state()
        except BaseException as error:
            await self.stop()
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise DiskFull(f"no space left on the file system of {self.folder.path}") from error
            raise

    async def stop(self) -> None:
        """Stop services, then infrastructure, each drained; give the data folder back. Idempotent."""
        self._phase = "stopping"
        for group in (names.SERVICES, names.INFRASTRUCTURE):
            await asyncio.gather(*(self._supervised[name].stop() for name in group if name in self._supervised))
        self._phase = "stopped"
        self._supervised.clear()
        self._guard.stop()
        if self.folder.state.exists():
            self.folder.state.unlink()
        self._lock.release()

    def _port_names(self) -> list[str]:
        own = {"postgres": ["postgres"], "kafka": ["kafka", "kafka.controller"], "s3": ["s3"]}
        infrastructure = [port for name in names.INFRASTRUCTURE if name in self._own for port in own[name]]
        return infrastructure + [
            port for name in names.SERVICES if name in self.parts for port in services.port_names(name)
        ]

    @property
    def _own(self) -> frozenset[str]:
        return self.parts - self.external.names

    def _require_space(self) -> None:
        free = shutil.disk_usage(self.folder.path).free
        if free < LEAST_FREE_BYTES:
            raise DiskFull(
                f"the file system of {self.folder.path} has {free // 2**20} MiB free; "
                f"the stack needs {LEAST_FREE_BYTES // 2**20} MiB to start"
            )

    async def _require_external(self) -> None:
        given = self.external
        if given.postgres_dsn is not None:
            try:
                await psql.execute(accounts.binaries(user=None) / "psql", given.postgres_dsn, "SELECT 1;", within_s=10)
            except psql.SqlError as error:
                raise PartFailed(f"the server of HEADRACE_POSTGRES_DSN does not answer: {error}") from error
        if given.kafka_bootstrap is not None and not await kafka_admin.answers(given.kafka_bootstrap, within_s=10):
            raise PartFailed(f"the broker of HEADRACE_KAFKA_BOOTSTRAP, {given.kafka_bootstrap}, does not answer")
        if given.s3 is not None and not await given.s3.answers():
            raise PartFailed(f"the server of HEADRACE_S3_ENDPOINT, {given.s3.endpoint}, does not list buckets to us")

    def _plan_infrastructure(self, chosen: dict[str, int], folder_id: str) -> list[Part]:
        parts: list[Part] = []
        postgres_dsn, kafka_bootstrap, store = (
            self.external.postgres_dsn or "",
            self.external.kafka_bootstrap or "",
            self.external.s3,
        )
        if "postgres" in self._own:
            postgres = self._postgres(chosen["postgres"], folder_id)
            postgres_dsn = postgres.dsn
            parts.append(postgres)
        if "kafka" in self._own:
            kafka = self._kafka(chosen["kafka"], chosen["kafka.controller"])
            kafka_bootstrap = kafka.address
            parts.append(kafka)
        if "s3" in self._own:
            s3 = S3(self.folder.s3, chosen["s3"], self._credentials.password("s3"))
            store = s3.location(DEFAULT_BUCKET)
            parts.append(s3)
        self._addresses = Addresses(
            postgres_dsn=postgres_dsn,
            kafka_bootstrap=kafka_bootstrap,
            s3=store,
            grpc={name: f"127.0.0.1:{chosen[f'{name}.grpc']}" for name in names.WITH_GRPC if f"{name}.grpc" in chosen},
            serving_url=_url(chosen, "serving"),
            gateway_url=_url(chosen, "gateway"),
            token_file=self._credentials.token_file(OPERATOR),
        )
        return parts

    def _postgres(self, port: int, folder_id: str) -> Postgres:
        user = accounts.unprivileged()
        if user is not None:
            self.notes.append(f"running as root: PostgreSQL runs as {accounts.name_of(user)}, for it refuses root")
        cluster = accounts.cluster_path(self.folder.path, folder_id=folder_id, user=user)
        if user is not None and cluster.is_relative_to(self.folder.path):
            self.folder.path.chmod(0o711)  # the account must pass through; what lies inside stays closed
        return Postgres(
            programs=accounts.binaries(user=user),
            cluster=cluster,
            user=user,
            port=port,
            password=self._credentials.password("postgres"),
            log=self.folder.log("postgres"),
        )

    def _kafka(self, port: int, controller_port: int) -> Kafka:
        return Kafka(
            folder=self.folder.kafka,
            port=port,
            controller_port=controller_port,
            cache=self._cache,
            log=self.folder.log("kafka"),
            locked=jars.read_lock(jars.lock_file()),
            progress=self._jar_progress,
        )

    async def _start_together(self, parts: Iterable[Part]) -> None:
        for part in parts:
            self._supervised[part.name] = Supervised(
                part, log=self.folder.log(part.name), report=self._report, changed=self._write_state, guard=self._guard
            )
        starts = [asyncio.create_task(self._supervised[part.name].start()) for part in parts]
        try:
            await asyncio.gather(*starts)
        finally:
            for start in starts:
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)

    async def _provision(self) -> None:
        """Create topics, bucket and databases where the services are to run."""
        where = self.addresses
        if "kafka" in self.parts:
            await kafka_admin.create_topics(where.kafka_bootstrap, topics.TOPICS)
        if "s3" in self.parts and where.s3 is not None:
            await where.s3.ensure_bucket()
        owners = [name for name in names.WITH_DATABASE if name in self.parts]
        if owners:
            program = accounts.binaries(user=None) / "psql"
            passwords = {role: self._credentials.password(role) for name in owners for role in databases.roles(name)}
            try:
                await databases.provision(program, where.postgres_dsn, owners, passwords=passwords)
            except psql.SqlError as error:
                raise PartFailed(f"the services' databases could not be made: {error}") from error

    async def _start_services(self, chosen: dict[str, int]) -> None:
        selected = [name for name in names.SERVICES if name in self.parts]
        if not selected:
            return
        self._credentials.write_tokens(names.SERVICES)
        self._write_connection()
        await self._start_together([self._service(name, chosen) for name in selected])

    def _service(self, name: str, chosen: dict[str, int]) -> services.Service:
        where = self.addresses
        environment = {
            "HEADRACE_KAFKA_BOOTSTRAP": where.kafka_bootstrap,
            "HEADRACE_TOKEN_FILE": str(self._credentials.token_file(name)),
            "HEADRACE_TOKENS_FILE": str(self.folder.tokens),
            "HEADRACE_DATA": str(self.folder.scratch(name)),
            "PYTHONUNBUFFERED": "1",
            **services.peer_environment(chosen),
            **services.listen_environment(name, chosen),
        }
        if name in names.WITH_DATABASE:
            passwords = {role: self._credentials.password(role) for role in databases.roles(name)}
            database = databases.describe(name, admin_dsn=where.postgres_dsn, passwords=passwords)
            environment |= {
                "HEADRACE_POSTGRES_DSN": database.service_dsn,
                "HEADRACE_MIGRATION_DSN": database.migration_dsn,
            }
        if where.s3 is not None:
            environment |= {
                "HEADRACE_S3_ENDPOINT": where.s3.endpoint,
                "HEADRACE_S3_ACCESS_KEY": where.s3.access_key,
                "HEADRACE_S3_SECRET_KEY": where.s3.secret_key,
                "HEADRACE_S3_BUCKET": where.s3.bucket,
            }
        if name == "gateway":
            environment["HEADRACE_CONSOLE_CODE_FILE"] = str(self.folder.console_code)
        return services.Service(name, environment, chosen, self.folder.scratch(name))

    def _write_connection(self) -> None:
        where = self.addresses
        write_json(
            self.folder.connection,
            {
                "version": 1,
                "addresses": where.grpc,
                "serving_url": where.serving_url,
                "gateway_url": where.gateway_url,
                "kafka_bootstrap": where.kafka_bootstrap,
                "s3_endpoint": where.s3.endpoint if where.s3 else "",
                "token_file": str(where.token_file),
            },
        )

    def console_link(self) -> str:
        """Return a link that opens the console once; an empty string when no gateway runs."""
        if not self.addresses.gateway_url:
            return ""
        return f"{self.addresses.gateway_url}/login?code={self._credentials.new_console_code()}"

    def _write_state(self) -> None:
        if self._phase == "stopped":
            return
        rows = [
            {
                "name": name,
                "state": item.state,
                "pid": item.pid,
                "restarts": item.restarts,
                "address": item.part.address,
                "log": str(item.log),
            }
            for name, item in self._supervised.items()
        ]
        write_json(
            self.folder.state, {"pid": os.getpid(), "phase": self._phase, "written_at": time.time(), "parts": rows}
        )


def _url(chosen: dict[str, int], service: str) -> str:
    port = chosen.get(f"{service}.http")
    return "" if port is None else f"http://127.0.0.1:{port}"
