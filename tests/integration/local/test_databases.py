"""What the stack prepares for each service's database, on the real server."""

from __future__ import annotations

import secrets

import asyncpg
import pytest

from headrace_local import accounts, databases
from headrace_local.testing import Infrastructure

SERVICE = "tracking"
PASSWORDS = {role: secrets.token_hex(8) for role in databases.roles(SERVICE)}


async def _provision(infrastructure: Infrastructure) -> databases.ServiceDatabase:
    program = accounts.binaries(user=None) / "psql"
    admin = infrastructure.addresses.postgres_dsn
    await databases.provision(program, admin, [SERVICE], passwords=PASSWORDS)
    return databases.describe(SERVICE, admin_dsn=admin, passwords=PASSWORDS)


async def test_the_owner_may_migrate_and_the_service_role_only_look(infrastructure: Infrastructure) -> None:
    database = await _provision(infrastructure)

    owner = await asyncpg.connect(database.migration_dsn)
    await owner.execute("CREATE TABLE IF NOT EXISTS ours (id int)")
    await owner.close()

    service = await asyncpg.connect(database.service_dsn)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await service.execute("CREATE TABLE mine (id int)")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await service.execute("SELECT * FROM ours")
    await service.close()


async def test_provisioning_again_keeps_the_data_and_accepts_a_new_password(infrastructure: Infrastructure) -> None:
    database = await _provision(infrastructure)
    owner = await asyncpg.connect(database.migration_dsn)
    await owner.execute("DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT 7 AS value")
    await owner.close()

    PASSWORDS[databases.roles(SERVICE)[1]] = secrets.token_hex(8)
    again = await _provision(infrastructure)

    owner = await asyncpg.connect(again.migration_dsn)
    assert await owner.fetchval("SELECT value FROM kept") == 7
    await owner.close()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(database.migration_dsn)
