"""The whole stack over one data folder, as an object to start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from headrace_local import accounts, databases, jars, kafka_admin, names, ports, psql, topics
from headrace_local.blueprint import Addresses, Blueprint, connection
from headrace_local.credentials import Credentials
from headrace_local.errors import DiskFull, PartFailed
from headrace_local.external import External
from headrace_local.files import write_json
from headrace_local.folder import DataFolder, FolderLock
from headrace_local.guard import Guard
from headrace_local.part import Part
from headrace_local.process import rotate
from headrace_local.supervisor import Notice, Report, Supervised

__all__ = ["Addresses", "Stack"]

LEAST_FREE_BYTES = 256 * 1024 * 1024
"""A start with less is refused."""

_ROTATE_EVERY_S = 20.0


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
        self._report = report
        self._lock = FolderLock(self.folder)
        self._guard = Guard()
        self._credentials = Credentials(self.folder)
        self._blueprint = Blueprint(
            self.folder, self.parts, self.external, self._credentials, cache or jars.cache_home(), jar_progress
        )
        self._supervised: dict[str, Supervised] = {}
        self._addresses: Addresses | None = None
        self._phase = "stopped"
        self._rotation: asyncio.Task[None] | None = None

    @property
    def names_here(self) -> list[str]:
        """The parts that this stack runs itself, in the order of their start."""
        return [name for name in (*names.INFRASTRUCTURE, *names.SERVICES) if name in self._blueprint.own]

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
            await self._require_external()
            chosen, notes = ports.assign(self.folder.ports, self._blueprint.port_names(), base=self._port_base)
            infrastructure = self._blueprint.infrastructure(chosen, folder_id=folder_id)
            self.notes = [*notes, *infrastructure.notes]
            self._addresses = infrastructure.addresses
            await self._start_together(infrastructure.parts)
            await self._provision()
            await self._start_services(chosen)
            self._phase = "ready"
            self._write_state()
            self._rotation = asyncio.create_task(self._rotate_logs(), name="rotate logs")
        except BaseException as error:
            await self.stop()
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise DiskFull(f"no space left on the file system of {self.folder.path}") from error
            raise

    async def stop(self) -> None:
        """Stop services, then infrastructure, each drained; give the data folder back. Idempotent."""
        self._phase = "stopping"
        if self._rotation is not None:
            self._rotation.cancel()
            self._rotation = None
        for group in (names.SERVICES, names.INFRASTRUCTURE):
            await self._stop_together([self._supervised[name] for name in group if name in self._supervised])
        self._phase = "stopped"
        self._supervised.clear()
        self._guard.stop()
        self.folder.state.unlink(missing_ok=True)
        self._lock.release()

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

    async def _stop_together(self, parts: list[Supervised]) -> None:
        outcomes = await asyncio.gather(*(item.stop() for item in parts), return_exceptions=True)
        for item, outcome in zip(parts, outcomes, strict=True):
            if isinstance(outcome, Exception):  # the others, and the lock, still have their turn
                self._report(Notice(item.part.name, f"could not be stopped in order: {outcome}", loud=True))

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
        selected = self._blueprint.services(chosen, self.addresses)
        if not selected:
            return
        self._credentials.write_tokens(names.SERVICES)
        write_json(self.folder.connection, connection(self.addresses))
        await self._start_together(selected)

    def console_link(self) -> str:
        """Return a link that opens the console once; an empty string when no gateway runs."""
        return self._credentials.console_link(self.addresses.gateway_url)

    async def _rotate_logs(self) -> None:
        while True:
            await asyncio.sleep(_ROTATE_EVERY_S)
            with contextlib.suppress(OSError):
                for item in self._supervised.values():
                    rotate(item.log)

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
        state = {"pid": os.getpid(), "phase": self._phase, "written_at": time.time(), "parts": rows}
        # A full disk must not end the supervision; `status` then shows an older state.
        with contextlib.suppress(OSError):
            write_json(self.folder.state, state)
