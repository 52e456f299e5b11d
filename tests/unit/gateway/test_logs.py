"""Reads over several logs, by pages, with real stubs on real servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.monitor.v1.events_pb2 import AlertRaised
from headrace.api.registry.v1.events_pb2 import VersionPromoted
from headrace_gateway.logs import LogsPage, causes_of, find, parse_cursor, read_page, tell
from headrace_gateway.platform import Platform, Services
from headrace_kit.errors import InvalidArgument, NotFound
from headrace_kit.testing import OPERATOR_CALLER
from tests.support.subscribing import Logs, served_logs


class Console(Platform):
    """What pages read by, over the logs of a test."""

    def __init__(self, logs: Logs) -> None:
        self.project = "default"
        self.read = self.act = Services(logs.connection.addresses, lambda: OPERATOR_CALLER.token)


@pytest.fixture
async def logs(tmp_path: Path) -> AsyncIterator[Logs]:
    async with served_logs(tmp_path, "monitor", "registry") as served:
        yield served


@pytest.fixture
async def console(logs: Logs) -> AsyncIterator[Console]:
    opened = Console(logs)
    yield opened
    await opened.close()


def places(entries: list[LogEntry]) -> list[tuple[str, int]]:
    return [(entry.source.rpartition("/")[2], entry.position) for entry in entries]


async def all_pages(console: Console, count: int) -> list[LogsPage]:
    pages = [await read_page(console, count)]
    while pages[-1].older:
        pages.append(await read_page(console, count, cursor=pages[-1].older))
    return pages


@pytest.mark.parametrize("count", [1, 2, 5, 100])
async def test_pages_join_to_everything_newest_first(logs: Logs, console: Console, count: int) -> None:
    for number in range(7):
        await logs.promote(str(number))
        if number % 3:
            await logs.raise_alert(str(number))
    await logs.raise_alert("not of this project", project="other")

    pages = await all_pages(console, count)

    found = [entry for page in pages for entry in page.entries]
    assert sorted(places(found)) == [
        *(("monitor", each) for each in range(1, 5)),
        *(("registry", each) for each in range(1, 8)),
    ]
    assert [entry.hlc for entry in found] == sorted((entry.hlc for entry in found), reverse=True)
    assert all(len(page.entries) == count for page in pages[:-1])


async def test_events_that_come_meanwhile_do_not_move_the_pages(logs: Logs, console: Console) -> None:
    for number in range(4):
        await logs.promote(str(number))
    first = await read_page(console, 2)
    await logs.promote("late")
    await logs.raise_alert("late")

    second = await read_page(console, 2, cursor=first.older)

    assert places(first.entries) == [("registry", 4), ("registry", 3)]
    assert places(second.entries)[-1] == ("registry", 1) or ("monitor", 1) in places(second.entries)
    assert ("registry", 5) not in places(second.entries)


async def test_a_search_goes_on_where_the_page_before_stopped_looking(logs: Logs, console: Console) -> None:
    for number in range(9):
        await logs.promote(str(number))

    def odd(entry: LogEntry) -> bool:
        return entry.position % 2 == 1

    first = await read_page(console, 2, scan=4, accept=odd)
    second = await read_page(console, 2, scan=4, cursor=first.older, accept=odd)
    third = await read_page(console, 2, scan=4, cursor=second.older, accept=odd)

    assert [places(page.entries) for page in (first, second, third)] == [
        [("registry", 9), ("registry", 7)],
        [("registry", 5), ("registry", 3)],
        [("registry", 1)],
    ]
    assert third.older == ""


async def test_a_service_that_does_not_answer_is_named_and_the_others_are_read(logs: Logs, console: Console) -> None:
    await logs.promote("1")
    [entry] = (await read_page(console, 5)).entries
    await logs.servers["monitor"].stop()

    page = await read_page(console, 5)

    assert (page.silent, places(page.entries)) == (["monitor"], [("registry", 1)])
    assert await find(console, entry.event_id) == entry
    with pytest.raises(NotFound, match="monitor did not answer"):
        await find(console, "01890000-0000-7000-8000-000000000000")


async def test_a_story_is_told_over_services_and_names_those_that_are_silent(logs: Logs, console: Console) -> None:
    alert = await logs.add("monitor", "projects/default/monitors/m", AlertRaised())
    moved = await logs.add("registry", "projects/default/models/m", VersionPromoted(), cause=alert)
    again = await logs.add("monitor", "projects/default/monitors/m", AlertRaised(), cause=moved)

    told = await tell(console, moved, most=10)
    assert [(link.entry.event_id, link.depth) for link in told.links] == [(alert, 0), (moved, 1), (again, 2)]
    assert (told.more, told.lacking) == (False, {})
    assert (await causes_of(console, [told.links[2].entry]))[moved] == told.links[1].entry

    await logs.servers["monitor"].stop()
    partly = await tell(console, moved, most=10)
    assert [link.entry.event_id for link in partly.links] == [moved]
    assert partly.lacking == {"monitor": "does not answer"}
    with pytest.raises(NotFound, match="monitor did not answer"):
        await tell(console, alert, most=10)


@pytest.mark.parametrize("text", ["registry", "registry:-1", "registry:x", "registry:1,", "a:1:2"])
def test_a_cursor_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_cursor(text)
