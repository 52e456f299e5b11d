"""A rebuild of the counters in a process of its own: ``python -m tests.support.rebuilder DSN``; prints its phases."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace

from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.postgres import create_pool
from headrace_kit.rebuild import Progress, Rebuild
from tests.support.counters import LISTED, SOURCE, TYPES

KEPT = replace(LISTED, tables=("counters",))


def tell(progress: Progress) -> None:
    """One line a step."""
    sys.stdout.write(f"{progress.phase.name} {progress.done}\n")
    sys.stdout.flush()


async def main(dsn: str) -> None:
    """Rebuilds once."""
    database = await create_pool(dsn)
    await Rebuild(PostgresEventStore(database, SOURCE, TYPES), [KEPT]).run(check=False, tell=tell)
    await database.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
