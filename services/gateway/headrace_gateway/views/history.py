"""One entity through time: every event of it, and its state as of any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from urllib.parse import urlencode

import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.audit.v1.service_pb2 import ListStatesRequest, ReadStreamRequest, StateAtRequest, StreamState
from headrace.past import OWNERS, flat
from headrace_gateway.logs import causes_of
from headrace_gateway.pages import Pages
from headrace_gateway.platform import Platform, ServiceMissingError
from headrace_gateway.views.home import Causes
from headrace_kit.errors import InvalidArgument, NotFound

Log: TypeAlias = Any  # a stub of AuditService, see Services.log
PAGE: Final = 100
"""Events of a page of the timeline."""
FIELDS: Final = 500
"""Fields of a state that a page shows."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The moment that an address asks for: a time, or a position of the log, which tells apart events of one time.

    False where it asks for now.
    """

    at: str = ""
    position: int = 0

    @staticmethod
    def of(query: Mapping[str, str]) -> Asked:
        """Reads an address. Raises InvalidArgument."""
        at = query.get("at", "").strip()
        return Asked(at, 0 if at else _number(query, "position"))

    @property
    def query(self) -> str:
        """As an address has it; empty for now."""
        if self.at:
            return urlencode({"at": self.at})
        return urlencode({"position": self.position}) if self.position else ""

    def request(self, name: str) -> StateAtRequest:
        """Asks for the state of an entity then. Raises InvalidArgument."""
        if not self.at:
            return StateAtRequest(stream_id=name, position=self.position)
        time = Timestamp()
        time.FromDatetime(moment_of(self.at))
        return StateAtRequest(stream_id=name, time=time)

    def __bool__(self) -> bool:
        return bool(self.at or self.position)


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a state, and what it was before the event that made the state; None where it was not."""

    path: str
    value: object
    before: object

    @property
    def differs(self) -> bool:
        """Whether that event changed it."""
        return bool(self.value != self.before)


@dataclass(frozen=True, slots=True)
class Moment:
    """The state at a moment, and the events around it; no entry where there was nothing yet.

    Attributes:
        entry: The event that made it so.
        fields: The state, field by field; those that the event changed come first.
        left_out: Fields that are not shown.
        previous: Position of the event before; 0 at the first.
        following: Position of the event after; 0 at the last.
        folded: Whether the service keeps states of such streams.
    """

    entry: LogEntry | None = None
    fields: tuple[Field, ...] = ()
    left_out: int = 0
    previous: int = 0
    following: int = 0
    folded: bool = True


def routes(platform: Platform, pages: Pages) -> list[BaseRoute]:
    """The page of an entity's past."""

    async def show(request: Request) -> Response:
        name = f"{platform.parent}/{request.path_params['entity']}"
        log, asked = _log(platform, name), Asked.of(request.query_params)
        first, last = await _ends(log, name)
        page = await _events(log, name, _number(request.query_params, "before") or last.version)
        moment, causes = await asyncio.gather(
            _moment(log, name, asked, first=first, last=last), causes_of(platform, page)
        )
        return pages.render(
            request,
            "history.html",
            name=name,
            asked=asked,
            state=moment,
            first=first,
            last=last,
            entries=page[::-1],
            causes=Causes(causes.values()),
        )

    return [Route("/events/of/{entity:path}", show)]


def changed_fields(before: Mapping[str, object], after: Mapping[str, object]) -> list[Field]:
    """Every field of either state: those that differ first, then the others, each in the order of the state."""
    paths = [*after, *(path for path in before if path not in after)]
    fields = [Field(path, after.get(path), before.get(path)) for path in paths]
    return sorted(fields, key=lambda each: not each.differs)


def moment_of(text: str) -> datetime:
    """A moment as given in an address; without an offset it is UTC. Raises InvalidArgument."""
    try:
        found = datetime.fromisoformat(text.replace(" ", "T"))
    except ValueError:
        raise InvalidArgument(f"give a time such as 2026-05-03T14:03:00Z, not {text!r}", field="at") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _log(platform: Platform, name: str) -> Log:
    owner = OWNERS.get(name.split("/")[2])
    if owner is None:
        raise NotFound(f"{name} is no entity")
    if owner not in platform.read.names:
        raise ServiceMissingError(owner)
    return platform.read.log(owner)


async def _ends(log: Log, name: str) -> tuple[LogEntry, LogEntry]:
    """The first and the last event of a stream; a page of it is read from where the last one is."""
    begin = await log.ReadStream(ReadStreamRequest(stream_id=name, page_size=1))
    first: LogEntry = begin.entries[0]
    try:
        newest: LogEntry = (await log.StateAt(StateAtRequest(stream_id=name))).entry
    except grpc.aio.AioRpcError as error:
        if error.code() not in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND):
            raise
        newest = first
    return first, newest


async def _events(log: Log, name: str, last: int) -> list[LogEntry]:
    """The events of a stream up to a version, at most a page of them, in order."""
    start = max(last - PAGE + 1, 1)
    answer = await log.ReadStream(ReadStreamRequest(stream_id=name, from_version=start, page_size=last - start + 1))
    return list(answer.entries)


async def _moment(log: Log, name: str, asked: Asked, *, first: LogEntry, last: LogEntry) -> Moment:
    entry = last
    try:
        if asked:
            entry = (await log.StateAt(asked.request(name))).entry
        start = max(entry.version - 1, 1)
        request = ListStatesRequest(stream_id=name, from_version=start, to_version=entry.version + 1)
        states = {each.entry.version: each for each in (await log.ListStates(request)).states}
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return Moment(following=first.position)
        if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
            return Moment(folded=False)
        raise
    if entry.version not in states:  # not sequenced yet
        return Moment()
    plain = {version: _fields(each) for version, each in states.items()}
    fields = changed_fields(plain.get(entry.version - 1, {}), plain[entry.version])
    before, after = states.get(entry.version - 1), states.get(entry.version + 1)
    return Moment(
        entry,
        tuple(fields[:FIELDS]),
        max(len(fields) - FIELDS, 0),
        before.entry.position if before else 0,
        after.entry.position if after else 0,
    )


def _fields(state: StreamState) -> dict[str, object]:
    plain = MessageToDict(state.state, preserving_proto_field_name=True)
    return {path: value for path, value in flat(plain) if path != "@type"}


def _number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name, "")
    if text and not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise InvalidArgument(f"give a number for {name}", field=name)
    return int(text or 0)


__all__ = ["Field", "Moment", "changed_fields", "moment_of", "routes"]
