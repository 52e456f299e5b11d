"""Tells of alerts, on asyncio: runs a command for each, several at a time.

    python examples/subscribers/alerts_async.py notify-send

Acknowledgements may come in any order: the cursor passes an alert only when all before it are done with. The first
command that fails ends the program; started again, it goes on with what was not acknowledged.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import cast

import headrace
from headrace.api.monitor.v1.events_pb2 import AlertRaised
from headrace.events import AsyncDelivery

WITHIN_S = 10.0


async def tell(delivery: AsyncDelivery, command: str, *, room: asyncio.Semaphore) -> None:
    """Runs the command with an alert's summary, then acknowledges."""
    try:
        async with delivery as event, asyncio.timeout(WITHIN_S):
            alert = cast("AlertRaised", event.message).alert
            print(f"{event.occurred_at.isoformat()}  {alert.endpoint}  {alert.summary}", flush=True)
            process = await asyncio.create_subprocess_exec(command, alert.summary)
            if await process.wait():
                raise RuntimeError(f"{command} failed: {process.returncode}")
    finally:
        room.release()


async def main() -> None:
    """Runs until it is stopped."""
    parser = argparse.ArgumentParser(description="Run a command for each alert.")
    parser.add_argument("command", help="program to run with each alert's summary")
    parser.add_argument("--project", default="default")
    parser.add_argument("--start", default="now", help="now, beginning, or a time such as 2026-05-03T14:03:00Z")
    parser.add_argument("--at-a-time", type=int, default=4)
    given = parser.parse_args()

    room = asyncio.Semaphore(given.at_a_time)
    subscription = headrace.events.alerts_async("alerts-async-example", project=given.project, start=given.start)
    async with subscription as alerts, asyncio.TaskGroup() as tasks:
        async for delivery in alerts:
            await room.acquire()
            tasks.create_task(tell(delivery, given.command, room=room))


if __name__ == "__main__":
    asyncio.run(main())
