"""What compose's `prepare` does, on real servers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from headrace_local import accounts, databases, names, psql
from headrace_local.testing import Infrastructure

COMPOSE = Path(__file__).resolve().parents[3] / "compose"


@pytest.fixture
def passwords(infrastructure: Infrastructure) -> Iterator[dict[str, str]]:
    """A password for each role; the databases and roles that come of it are dropped at the end."""
    roles = [role for name in names.WITH_DATABASE for role in databases.roles(name)]
    yield {role: f"secret-of-{role}" for role in roles}
    drops = [f"DROP DATABASE IF EXISTS headrace_{name} WITH (FORCE);" for name in names.WITH_DATABASE]
    infrastructure.sql("\n".join([*drops, *(f"DROP ROLE IF EXISTS {role};" for role in roles)]))


def provision(infrastructure: Infrastructure, passwords: Mapping[str, str]) -> str:
    where = infrastructure.addresses
    assert where.s3 is not None
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")},
        **{f"{role.upper()}_PASSWORD": password for role, password in passwords.items()},
        "HEADRACE_POSTGRES_DSN": where.postgres_dsn,
        "HEADRACE_KAFKA_BOOTSTRAP": where.kafka_bootstrap,
        "HEADRACE_S3_ENDPOINT": where.s3.endpoint,
        "HEADRACE_S3_ACCESS_KEY": where.s3.access_key,
        "HEADRACE_S3_SECRET_KEY": where.s3.secret_key,
    }
    command = [sys.executable, "-P", str(COMPOSE / "provision.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(180)
async def test_it_makes_databases_that_services_can_enter_however_often_it_runs(
    infrastructure: Infrastructure, passwords: dict[str, str]
) -> None:
    assert provision(infrastructure, passwords) == provision(infrastructure, passwords)
    program = accounts.binaries(user=None) / "psql"
    for name in names.WITH_DATABASE:
        where = databases.describe(name, admin_dsn=infrastructure.addresses.postgres_dsn, passwords=passwords)
        entered = await psql.execute(program, where.service_dsn, "SELECT current_database();")
        assert entered.strip() == f"headrace_{name}"
        await psql.execute(program, where.migration_dsn, "CREATE TABLE t (); DROP TABLE t;")
        with pytest.raises(psql.SqlError, match="permission denied"):
            await psql.execute(program, where.service_dsn, "CREATE TABLE t ();")
