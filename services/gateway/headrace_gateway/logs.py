"""Reads over the logs of all services, a page at a time and never a whole log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.audit.v1.service_pb2 import GetEventRequest, ListEffectsRequest, ReadLogRequest
from headrace.causes import AWAY, FILLING, NO_ANSWER, Ask, Find, Story, trace
from headrace.errors import NotFound as NoEvent
from headrace.story import order_of
from headrace_gateway.platform import Platform
from headrace_kit.errors import InvalidArgument, NotFound

WITHIN_S: Final = 3.0
"""How long a page waits for a log."""
RESOLVED: Final = 25
"""Causes of a page's events that are looked up for their names."""


@dataclass(slots=True)
class LogsPage:
    """Events of all logs, newest first; no cause stands above its effect.

    Attributes:
        entries: The events.
        older: Cursor of the page before; empty at the beginning of the logs.
        silent: Services that did not answer.
    """

    entries: list[LogEntry]
    older: str = ""
    silent: list[str] = field(default_factory=list[str])


async def read_page(
    platform: Platform, count: int, *, cursor: str = "", scan: int = 0, accept: Callable[[LogEntry], bool] | None = None
) -> LogsPage:
    """The newest ``count`` events at or before a cursor that are accepted.

    Args:
        platform: The services.
        count: Most events given.
        cursor: ``older`` of another page; empty for the ends of the logs.
        scan: Events of each log that are looked at; ``count`` by default.
        accept: Which are wanted; all by default.

    Raises:
        InvalidArgument: The cursor is none.
    """
    starts = parse_cursor(cursor)
    names = [name for name in platform.read.names if starts.get(name) != 0]
    pages = await asyncio.gather(*(_backwards(platform, name, starts.get(name, 0), scan or count) for name in names))
    held = {name: page for name, page in zip(names, pages, strict=True) if page is not None}
    wanted = {name: [each for each in page[0] if accept is None or accept(each)] for name, page in held.items()}
    shown = newest(wanted.values(), count)
    last = {id(entry) for entry in shown}
    following = {name: 0 for name in platform.read.names if name in starts and name not in names}
    for name in names:
        if name not in held:
            following |= {name: starts[name]} if name in starts else {}
            continue
        left = next((entry.position for entry in wanted[name] if id(entry) not in last), None)
        following[name] = held[name][1] if left is None else left
    older = ",".join(f"{name}:{position}" for name, position in following.items())
    silent = [name for name in names if name not in held]
    return LogsPage(shown, older if any(following.values()) else "", silent)


def newest(logs: Iterable[list[LogEntry]], count: int) -> list[LogEntry]:
    """The newest entries of several logs, newest first; no cause stands above its effect."""
    merged = sorted((entry for entries in logs for entry in entries), key=order_of, reverse=True)
    return merged[:count]


def parse_cursor(text: str) -> Mapping[str, int]:
    """Service -> position to go on at, 0 at the beginning of its log. Raises InvalidArgument."""
    found: dict[str, int] = {}
    for part in text.split(",") if text else ():
        name, _, position = part.partition(":")
        if not (position.isascii() and position.isdecimal() and len(position) < 19):
            raise InvalidArgument("this is no place in the logs; begin again at the newest events", field="before")
        found[name] = int(position)
    return found


async def find(platform: Platform, event_id: str) -> LogEntry:
    """The event of an id, in whichever log it is. Raises NotFound, which names the services that did not answer."""
    lacking: dict[str, str] = {}
    found = await _found(platform, event_id, lacking)
    if not found:
        raise _not_found(event_id, lacking)
    return found[0]


async def tell(platform: Platform, event_id: str, *, most: int) -> Story:
    """The causes of an event and what it led to, from the services that answer. Raises NotFound."""
    lacking: dict[str, str] = {}
    walk = trace(event_id, most=most)
    ask = next(walk)
    while True:
        answer = await _answer(platform, ask, lacking)
        try:
            ask = walk.send(answer)
        except StopIteration as end:
            told: Story = end.value
            return Story(told.links, told.more, lacking)
        except NoEvent:
            raise _not_found(event_id, lacking) from None


async def causes_of(platform: Platform, entries: Iterable[LogEntry]) -> dict[str, LogEntry]:
    """The causes of some events, by their ids, as far as ``RESOLVED`` look-ups go."""
    known = {entry.event_id: entry for entry in entries}
    wanted = dict.fromkeys(
        entry.meta.causation_id
        for entry in known.values()
        if entry.meta.causation_id and entry.meta.causation_id not in known
    )
    found = await asyncio.gather(*(_found(platform, each, {}) for each in list(wanted)[:RESOLVED]))
    return known | {entry.event_id: entry for entries in found for entry in entries}


async def _backwards(platform: Platform, name: str, start: int, count: int) -> tuple[list[LogEntry], int] | None:
    """Entries of a log from a position down and where to go on, or None when it does not answer."""
    request = ReadLogRequest(
        from_position=start, page_size=min(count, 1000), stream_prefix=f"{platform.parent}/", backwards=True
    )
    try:
        async with asyncio.timeout(WITHIN_S):
            page = await platform.read.log(name).ReadLog(request)
    except (grpc.aio.AioRpcError, TimeoutError):
        return None
    return list(page.entries), page.next_position


async def _answer(platform: Platform, ask: Ask, lacking: dict[str, str]) -> list[LogEntry]:
    if isinstance(ask, Find):
        return await _found(platform, ask.event_id, lacking)
    parts = await asyncio.gather(
        *(_effects(platform, name, ask.event_ids, ask.most, lacking) for name in platform.read.names)
    )
    return [entry for part in parts for entry in part]


async def _found(platform: Platform, event_id: str, lacking: dict[str, str]) -> list[LogEntry]:
    async def of(name: str) -> LogEntry | None:
        try:
            answer = await platform.read.log(name).GetEvent(GetEventRequest(event_id=event_id), timeout=WITHIN_S)
        except grpc.aio.AioRpcError as error:
            if error.code() in AWAY:
                lacking[name] = NO_ANSWER
            elif error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT):
                raise
            return None
        found: LogEntry = answer.entry
        return found

    return [each for each in await asyncio.gather(*(of(name) for name in platform.read.names)) if each is not None]


async def _effects(
    platform: Platform, name: str, event_ids: tuple[str, ...], most: int, lacking: dict[str, str]
) -> list[LogEntry]:
    log: Any = platform.read.log(name)  # Any: see Services.log
    found: list[LogEntry] = []
    request = ListEffectsRequest(event_ids=event_ids, page_size=min(most + 1, 1000))
    try:
        while True:
            page = await log.ListEffects(request, timeout=WITHIN_S)
            found.extend(page.entries)
            if page.filling:
                lacking.setdefault(name, FILLING)
            request.page_token = page.next_page_token
            if not page.next_page_token or len(found) > most:
                return found
    except grpc.aio.AioRpcError as error:
        if error.code() not in AWAY:
            raise
        lacking[name] = NO_ANSWER
        return found


def _not_found(event_id: str, lacking: Mapping[str, str]) -> NotFound:
    silent = [name for name, why in lacking.items() if why == NO_ANSWER]
    doubt = f" ({', '.join(silent)} did not answer)" if silent else ""
    return NotFound(f"no log has an event {event_id}{doubt}")
