"""Schema migrations: numbered SQL files, each applied once, in order, by the role that owns the tables."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from headrace_kit.errors import FailedPrecondition
from headrace_kit.postgres.connection import (
    Connection,
    connected,
    require_server_version,
)

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

_KIT = "headrace_kit"
_LOCK = 0x68656164  # one migration of a database at a time
_FILE = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_APPEND_ONLY = ("events", "log_entries", "commands", "merkle_nodes", "checkpoints", "checkpoint_keys")

_LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    package    text NOT NULL,
    version    integer NOT NULL,
    name       text NOT NULL,
    sha256     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (package, version)
)
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: ``0001_event_store.sql`` of a package."""

    package: str
    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """Digest of the text, by which a file that was changed after its application is noticed."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


async def migrate(dsn: str, packages: Sequence[str | Path] = (), *, service_dsn: str = "") -> list[Migration]:
    """Brings a service's database up to date: the kit's tables first, then those of each package.

    Safe to run at every start and from several processes at once (an advisory lock makes them wait).

    Args:
        dsn: The database as its owner.
        packages: Import names (``headrace_registry``) or package folders, with ``migrations/NNNN_name.sql`` inside.
        service_dsn: The database as the service's role: its user may then read and write every table, but only
            SELECT and INSERT on events, commands, log entries, and what is signed of them.

    Returns:
        What was applied now.

    Raises:
        FailedPrecondition: a file differs from what was applied under its number.
        ConnectionLost: the server cannot be reached.
    """
    wanted = [each for package in (_KIT, *packages) for each in _migrations(package)]
    async with connected(dsn, application="headrace-migrate") as connection:
        await require_server_version(connection)
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
        await connection.execute(_LEDGER)
        rows = await connection.fetch("SELECT package, version, sha256 FROM schema_migrations")
        applied = {(row["package"], row["version"]): row["sha256"] for row in rows}
        missing = [each for each in wanted if (each.package, each.version) not in applied]
        for migration in wanted:
            if applied.get((migration.package, migration.version), migration.sha256) != migration.sha256:
                raise FailedPrecondition(
                    f"migration {migration.package}/{migration.version:04} was changed after it was applied",
                    reason="MIGRATION_CHANGED",
                )
        for migration in missing:
            await _apply(connection, migration)
        await _grant(connection, role_of(service_dsn))
    return missing


def role_of(dsn: str) -> str:
    """The user named in a DSN; empty when it names none."""
    return unquote(urlsplit(dsn).username or "")


def _migrations(package: str | Path) -> Iterable[Migration]:
    folder: Traversable
    if isinstance(package, Path):
        folder = package if package.name == "migrations" else package / "migrations"
        name = package.parent.name if package.name == "migrations" else package.name
    else:
        folder, name = resources.files(package) / "migrations", package
    found: list[Migration] = []
    for file in folder.iterdir():
        match = _FILE.fullmatch(file.name)
        if match:
            found.append(Migration(name, int(match[1]), match[2], file.read_text(encoding="utf-8")))
    return sorted(found, key=lambda each: each.version)


async def _apply(connection: Connection, migration: Migration) -> None:
    async with connection.transaction():
        await connection.execute(migration.sql)
        await connection.execute(
            "INSERT INTO schema_migrations (package, version, name, sha256) VALUES ($1, $2, $3, $4)",
            migration.package,
            migration.version,
            migration.name,
            migration.sha256,
        )


async def _grant(connection: Connection, role: str) -> None:
    if not role or role == await connection.fetchval("SELECT current_user"):
        return
    quoted = '"' + role.replace('"', '""') + '"'
    async with connection.transaction():
        for statement in (
            f"GRANT USAGE ON SCHEMA public TO {quoted}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {quoted}",
            f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {quoted}",
            f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO {quoted}",
            f"REVOKE UPDATE, DELETE, TRUNCATE ON {', '.join(_APPEND_ONLY)} FROM {quoted}",
            f"REVOKE INSERT, UPDATE, DELETE ON schema_migrations FROM {quoted}",
        ):
            await connection.execute(statement)
