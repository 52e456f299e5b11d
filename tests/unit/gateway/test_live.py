"""What open pages are fed."""

from __future__ import annotations

import asyncio

import pytest

from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace_gateway.live import QUEUE, Hub, Notice, push
from headrace_gateway.platform import Services


@pytest.fixture
def hub() -> Hub:
    """One that follows no service."""
    return Hub(Services({}, lambda: ""), "projects/default/")


async def test_a_stop_ends_every_feed_and_those_that_come_late(hub: Hub) -> None:
    running = asyncio.create_task(hub.run())
    with hub.feed() as first, hub.feed() as second:
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])

        assert first.get_nowait() is Notice.END
        assert second.get_nowait() is Notice.END
    with hub.feed() as late:
        assert late.get_nowait() is Notice.END


def test_a_page_that_falls_behind_is_told_and_then_gets_the_newest(hub: Hub) -> None:
    with hub.feed() as feed:
        for number in range(QUEUE + 1):
            push(feed, LogEntry(position=number))

        assert feed.get_nowait() is Notice.LOST
        newest = feed.get_nowait()
        assert isinstance(newest, LogEntry)
        assert newest.position == QUEUE
        assert feed.empty()
