"""PostgreSQL: connections, transactions, migrations. asyncpg is known here and nowhere else in the kit."""

from headrace_kit.postgres.connection import (
    CheckViolation,
    Connection,
    ConnectionLost,
    Record,
    UniqueViolation,
    connected,
)
from headrace_kit.postgres.migrating import Migration, migrate
from headrace_kit.postgres.pool import STATEMENT_TIMEOUT_S, Database, create_pool

__all__ = [
    "STATEMENT_TIMEOUT_S",
    "CheckViolation",
    "Connection",
    "ConnectionLost",
    "Database",
    "Migration",
    "Record",
    "UniqueViolation",
    "connected",
    "create_pool",
    "migrate",
]
