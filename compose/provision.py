"""Make databases, roles, topics and the bucket where they are missing, as the local stack does, and end.

With ``console-link`` as argument: print a link that opens the console once (in the gateway's container).
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from headrace_local import accounts, databases, external, kafka_admin, names, topics
from headrace_local.credentials import Credentials
from headrace_local.folder import DataFolder


def passwords(environment: Mapping[str, str]) -> dict[str, str]:
    """Database role -> password, from ``HEADRACE_<SERVICE>_PASSWORD`` and ``HEADRACE_<SERVICE>_OWNER_PASSWORD``.

    Raises:
        KeyError: one is not set.
    """
    roles = [role for name in names.WITH_DATABASE for role in databases.roles(name)]
    return {role: environment[f"{role.upper()}_PASSWORD"] for role in roles}


async def provision(environment: Mapping[str, str]) -> None:
    """Make what is missing on the servers that the environment names. Idempotent.

    Raises:
        LocalError, SqlError, KafkaError: a server does not answer or refuses.
    """
    servers = external.from_environment(environment)
    if not servers.postgres_dsn or not servers.kafka_bootstrap or servers.s3 is None:
        raise SystemExit("HEADRACE_POSTGRES_DSN, HEADRACE_KAFKA_BOOTSTRAP and HEADRACE_S3_* say where the servers are")
    program = accounts.binaries(user=None) / "psql"
    await databases.provision(program, servers.postgres_dsn, [*names.WITH_DATABASE], passwords=passwords(environment))
    await kafka_admin.create_topics(servers.kafka_bootstrap, topics.TOPICS)
    await servers.s3.ensure_bucket()


def console_link(environment: Mapping[str, str]) -> str:
    """A link that opens the console once."""
    folder = DataFolder(Path(environment["HEADRACE_DATA"]))
    return Credentials(folder).console_link("http://127.0.0.1:8000")


def main() -> None:
    """Do what the arguments say."""
    if sys.argv[1:] == ["console-link"]:
        print(console_link(os.environ))
        return
    asyncio.run(provision(os.environ))
    print("databases, topics and bucket are there")


if __name__ == "__main__":
    main()
