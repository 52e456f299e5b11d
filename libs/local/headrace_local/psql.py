"""SQL for an administrator, through the ``psql`` that comes with PostgreSQL's wheel."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit


class SqlError(Exception):
    """psql refused or the server did not answer; the text is psql's own."""


async def execute(program: Path, dsn: str, sql: str, *, within_s: float = 30.0) -> str:
    """Run a psql script on ``dsn`` and return its output, unaligned and without headers.

    The connection travels in the environment, never on the command line.

    Raises:
        SqlError: a statement failed, the server is unreachable, or ``within_s`` seconds passed.
    """
    process = await asyncio.create_subprocess_exec(
        *(str(program), "-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", "-f", "-"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment(dsn)},
        cwd="/",
    )
    try:
        async with asyncio.timeout(within_s):
            output, errors = await process.communicate(sql.encode())
    except BaseException as error:
        process.kill()
        await process.wait()
        if isinstance(error, TimeoutError):
            raise SqlError(f"no answer within {within_s:.0f} s") from error
        raise
    if process.returncode != 0:
        raise SqlError(errors.decode(errors="replace").strip())
    return output.decode()


def environment(dsn: str) -> dict[str, str]:
    """Return libpq's environment variables for a ``postgresql://`` URL (parameters such as ``sslmode`` included)."""
    url = urlsplit(dsn)
    values = {
        "PGHOST": url.hostname or "127.0.0.1",
        "PGPORT": str(url.port or 5432),
        "PGUSER": unquote(url.username or ""),
        "PGPASSWORD": unquote(url.password or ""),
        "PGDATABASE": unquote(url.path.lstrip("/")) or "postgres",
        "PGCONNECT_TIMEOUT": "5",
    }
    values.update({f"PG{name.upper()}": value for name, value in parse_qsl(url.query)})
    return {name: value for name, value in values.items() if value}


def with_database(dsn: str, *, database: str, user: str, password: str) -> str:
    """Return ``dsn`` for another database and role, its host, port and parameters kept."""
    url = urlsplit(dsn)
    host = f"[{url.hostname}]" if ":" in (url.hostname or "") else (url.hostname or "127.0.0.1")
    return url._replace(netloc=f"{user}:{password}@{host}:{url.port or 5432}", path=f"/{database}").geturl()
