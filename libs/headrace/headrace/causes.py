"""The story of one event without reading whole logs: up along its causes, down along their effects.

``trace`` is the walk as plain decisions: it asks for events and for effects, and whoever drives it answers from
wherever events are, blocking or not. ``tell`` drives it over the services of a client.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import grpc

from headrace import story
from headrace.api.audit.v1 import service_pb2 as service
from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.client import Client
from headrace.connection import SERVICES
from headrace.errors import NotFound
from headrace.story import Link

MOST: Final = 1000
"""Events told when nothing else is said."""
MAX_CAUSES: Final = 100
"""Events whose effects one call asks for."""
AWAY: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNIMPLEMENTED)
"""Answers of a service that can not tell now, so that a story goes on without it."""
NO_ANSWER: Final = "does not answer"
FILLING: Final = "is still filling in the causes of events of an earlier release"


@dataclass(frozen=True, slots=True)
class Find:
    """Asks for one event; it is in one of the logs, or in none."""

    event_id: str


@dataclass(frozen=True, slots=True)
class Effects:
    """Asks for what some events (at most ``MAX_CAUSES``) caused directly, ``most`` of it from each log."""

    event_ids: tuple[str, ...]
    most: int


@dataclass(frozen=True, slots=True)
class Story:
    """A chain of causes.

    Attributes:
        links: Causes first, each effect below its cause.
        more: Whether there is more than was asked for.
        lacking: Service -> why its part of the story may be missing.
    """

    links: list[Link]
    more: bool = False
    lacking: dict[str, str] = field(default_factory=dict[str, str])


Ask: TypeAlias = Find | Effects
Walk: TypeAlias = Generator[Ask, Sequence[LogEntry], Story]


def trace(event_id: str, *, most: int = MOST) -> Walk:
    """Walks from an event up to the first of its causes, and down to what they led to.

    The causes come first, then what the event itself led to, then the rest; so when ``most`` events are found, what is
    left out is what lies farthest away.

    Raises:
        NotFound: No log has such an event.
    """
    found = yield Find(event_id)
    if not found:
        raise NotFound(f"no log has an event {event_id}")
    known = {event_id: found[0]}
    first = found[0]
    while first.meta.causation_id and first.meta.causation_id not in known and len(known) < most:
        above = yield Find(first.meta.causation_id)
        if not above:
            break
        first = above[0]
        known[first.event_id] = first
    more = bool(first.meta.causation_id) and len(known) >= most
    asked: set[str] = set()
    for start in (event_id, first.event_id):
        waiting = [start]
        while waiting and not more:
            batch = [each for each in waiting[:MAX_CAUSES] if each not in asked]
            waiting = waiting[MAX_CAUSES:]
            if not batch:
                continue
            asked.update(batch)
            room = most - len(known)
            effects = yield Effects(tuple(batch), room + len(known))
            new = [each for each in sorted(effects, key=story.order_of) if each.event_id not in known]
            more = len(new) > room
            known.update((each.event_id, each) for each in new[:room])
            waiting.extend(each.event_id for each in effects)
    return Story(story.chain(known.values(), event_id), more)


def tell(client: Client, event_id: str, *, most: int = MOST) -> Story:
    """The story of an event, from the services that answer; ``lacking`` names the others.

    Raises:
        NotFound: No log that answers has such an event.
        grpc.RpcError: A service refuses.
    """
    lacking: dict[str, str] = {}
    walk = trace(event_id, most=most)
    ask = next(walk)
    while True:
        answer = list(_answers(client, ask, lacking))
        try:
            ask = walk.send(answer)
        except StopIteration as end:
            told: Story = end.value
            return Story(told.links, told.more, lacking)
        except NotFound as error:
            raise not_found(error, lacking) from None


def not_found(error: NotFound, lacking: Mapping[str, str]) -> NotFound:
    """The same error, which also names the services that did not answer."""
    silent = ", ".join(name for name, why in lacking.items() if why == NO_ANSWER)
    return NotFound(f"{error.message} ({silent} did not answer)") if silent else error


def lacks(lacking: Mapping[str, str]) -> list[str]:
    """Sentences about what is missing from a story."""
    return [f"{name} {why}: its part of the story may be missing" for name, why in lacking.items()]


def _answers(client: Client, ask: Ask, lacking: dict[str, str]) -> Iterator[LogEntry]:
    for name in SERVICES:
        if name not in client.connection.addresses:
            continue
        try:
            found = [_find(client, name, ask)] if isinstance(ask, Find) else _effects(client, name, ask, lacking)
        except grpc.RpcError as error:
            if error.code() in AWAY:
                lacking[name] = NO_ANSWER
            elif error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            continue
        yield from found
        if isinstance(ask, Find):
            return


def _find(client: Client, name: str, ask: Find) -> LogEntry:
    return client.log(name).GetEvent(service.GetEventRequest(event_id=ask.event_id)).entry


def _effects(client: Client, name: str, ask: Effects, lacking: dict[str, str]) -> list[LogEntry]:
    found: list[LogEntry] = []
    request = service.ListEffectsRequest(event_ids=ask.event_ids, page_size=1000)
    while True:
        page = client.log(name).ListEffects(request)
        found.extend(page.entries)
        if page.filling:
            lacking.setdefault(name, FILLING)
        request.page_token = page.next_page_token
        if not page.next_page_token or len(found) > ask.most:
            return found
