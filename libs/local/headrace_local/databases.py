"""Each service's own database, its owner role and its service role."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace_local import psql

_PROVISION = r"""
SELECT format('CREATE ROLE %I', :'user') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'user') \gexec
SELECT format('CREATE ROLE %I', :'owner') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'owner') \gexec
ALTER ROLE :"user" LOGIN PASSWORD :'user_password';
ALTER ROLE :"owner" LOGIN PASSWORD :'owner_password';
-- An administrator who is no superuser may only give a database to a role it belongs to.
GRANT :"owner" TO CURRENT_USER;
SELECT format('CREATE DATABASE %I OWNER %I', :'database', :'owner')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec
REVOKE ALL ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"database" TO :"user";
SELECT current_database() AS admin_database \gset
\connect :"database"
GRANT USAGE ON SCHEMA public TO :"user";
\connect :"admin_database"
"""


@dataclass(frozen=True, slots=True)
class ServiceDatabase:
    """Names and addresses of one service's database."""

    service: str
    service_dsn: str
    """The role the service works as: no rights on tables but what migrations grant."""
    migration_dsn: str
    """The role that owns the database and runs migrations."""


def describe(service: str, *, admin_dsn: str, passwords: Mapping[str, str]) -> ServiceDatabase:
    """Return the database of ``service`` on the server of ``admin_dsn``; ``passwords`` is keyed by role."""
    database = f"headrace_{service}"
    owner = f"{database}_owner"
    return ServiceDatabase(
        service=service,
        service_dsn=psql.with_database(admin_dsn, database=database, user=database, password=passwords[database]),
        migration_dsn=psql.with_database(admin_dsn, database=database, user=owner, password=passwords[owner]),
    )


def roles(service: str) -> tuple[str, str]:
    """Return the (service, owner) role names of ``service``."""
    return f"headrace_{service}", f"headrace_{service}_owner"


async def provision(program: Path, admin_dsn: str, services: list[str], *, passwords: Mapping[str, str]) -> None:
    """Create what is missing of the services' roles and databases, and set the roles' passwords. Idempotent.

    Raises:
        psql.SqlError: the administrator may not, or the server is unreachable.
    """
    script = "".join(_script(service, passwords) for service in services)
    await psql.execute(program, admin_dsn, f"SET client_min_messages = warning;\n{script}")


def _script(service: str, passwords: Mapping[str, str]) -> str:
    user, owner = roles(service)
    variables = {
        "user": user,
        "user_password": passwords[user],
        "owner": owner,
        "owner_password": passwords[owner],
        "database": f"headrace_{service}",
    }
    return "".join(f"\\set {name} '{value}'\n" for name, value in variables.items()) + _PROVISION
