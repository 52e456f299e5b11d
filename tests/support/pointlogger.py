"""A process that logs metric points until it is killed: ``python -m tests.support.pointlogger DSN RUN FIRST SEAL_S``.

Each point's value and step are a number of its own, counted up from ``FIRST``; the number is printed once the point is
acknowledged. Events follow after ``SEAL_S`` seconds.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final
from uuid import UUID, uuid5

from headrace_kit.context import CommandContext
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.eventtypes import EventTypes
from headrace_kit.postgres import create_pool
from headrace_tracking.events import EVENT_TYPES
from headrace_tracking.metrics import MetricWriter
from headrace_tracking.pointstore import MetricCommand, PointStore
from headrace_tracking.sealing import Sealer
from tests.support.points import columns_of

CALLERS: Final = 4
KEY: Final = "loss"
_NUMBERS: Final = UUID("5f0d6c0a-8a37-5c3e-9f43-2f2f6f0b7d21")


def command(run: str, number: int) -> MetricCommand:
    """The call that logs a number: the same each time."""
    identity = uuid5(_NUMBERS, f"{run} {number}")
    context = CommandContext(command_id=identity, actor="persons/ada", now=datetime.now(UTC), method="/logs/points")
    return MetricCommand(
        run, context, hashlib.sha256(identity.bytes).digest(), columns_of([(KEY, number, 0, float(number))])
    )


async def log(dsn: str, run: str, numbers: Iterator[int], seal_s: float) -> None:
    """Logs until it is killed."""
    database = await create_pool(dsn)
    points = PointStore(database)
    sealer = Sealer(
        PostgresEventStore(database, "headrace/tracking", EventTypes(*EVENT_TYPES)), points, interval_s=seal_s
    )
    await sealer.recover()
    writer = MetricWriter(points, sealer)

    async def call() -> None:
        for number in numbers:
            await writer.write(command(run, number))
            print(number, flush=True)

    await asyncio.gather(*(call() for _ in range(CALLERS)))


if __name__ == "__main__":
    asyncio.run(log(sys.argv[1], sys.argv[2], itertools.count(int(sys.argv[3])), float(sys.argv[4])))
