"""Stories told and tails begun by blocking clients, over real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace.api.monitor.v1.events_pb2 import AlertRaised
from headrace.api.registry.v1.events_pb2 import VersionPromoted
from headrace.causes import lacks, tell
from headrace.cli.log_tail import last_events
from headrace.client import Client
from headrace.errors import NotFound
from headrace.events.event import EventFilter
from headrace.story import newest
from tests.support.subscribing import Logs, served_logs

MONITOR, MODEL = "projects/default/monitors/m", "projects/default/models/m"
EVERYTHING = EventFilter()


@pytest.fixture
async def logs(tmp_path: Path) -> AsyncIterator[Logs]:
    async with served_logs(tmp_path, "monitor", "registry") as served:
        yield served


async def test_a_story_crosses_services_and_goes_on_without_one(logs: Logs) -> None:
    alert = await logs.add("monitor", MONITOR, AlertRaised())
    moved = await logs.add("registry", MODEL, VersionPromoted(), cause=alert)
    wide = [await logs.add("monitor", MONITOR, AlertRaised(), cause=moved) for _ in range(3)]

    with Client(logs.connection) as client:
        told = await asyncio.to_thread(tell, client, wide[1])
        cut = await asyncio.to_thread(tell, client, wide[1], most=3)
        await logs.servers["monitor"].stop()
        partly = await asyncio.to_thread(tell, client, moved)
        with pytest.raises(NotFound, match="monitor did not answer"):
            await asyncio.to_thread(tell, client, alert)

    assert [(link.entry.event_id, link.depth) for link in told.links] == [
        (alert, 0),
        (moved, 1),
        *((each, 2) for each in wide),
    ]
    assert (told.more, list(lacks(told.lacking))) == (False, [])
    assert [link.entry.event_id for link in cut.links] == [alert, moved, wide[1]]
    assert cut.more
    assert [link.entry.event_id for link in partly.links] == [moved]
    assert lacks(partly.lacking) == ["monitor does not answer: its part of the story may be missing"]


async def test_a_tail_begins_with_the_last_events_that_fit(logs: Logs) -> None:
    for number in range(6):
        await logs.promote(str(number))
        await logs.raise_alert(str(number), project="other" if number % 2 else "default")

    with Client(logs.connection) as client:
        names = ["monitor", "registry"]
        three, heads = await asyncio.to_thread(last_events, client, names, 3, EVERYTHING)
        none, _ = await asyncio.to_thread(last_events, client, names, 0, EVERYTHING)
        other, _ = await asyncio.to_thread(last_events, client, names, 9, EventFilter(stream_prefix="projects/other/"))
        of_one, head = await asyncio.to_thread(newest, client, "monitor", 2, prefix="projects/default/")
        await logs.servers["registry"].stop()
        left, known = await asyncio.to_thread(last_events, client, names, 2, EVERYTHING)

    assert [(each.source, each.position) for each in three] == [
        ("headrace/monitor", 5),
        ("headrace/registry", 6),
        ("headrace/monitor", 6),
    ]
    assert (none, heads) == ([], {"monitor": 6, "registry": 6})
    assert [each.position for each in other] == [2, 4, 6]
    assert ([each.position for each in of_one], head) == ([3, 5], 6)
    assert ([each.position for each in left], known) == ([5, 6], {"monitor": 6})
