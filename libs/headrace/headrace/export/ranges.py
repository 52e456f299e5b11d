"""Which part of each service's log is meant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

from headrace.api.audit.v1 import service_pb2 as service
from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.client import Client
from headrace.errors import InternalError, InvalidArgument
from headrace.events.start import parse_moment

PAGE: Final = 1000
Bound: TypeAlias = "int | datetime | None"
"""A position, a moment, or neither."""


@dataclass(frozen=True, slots=True)
class LogRange:
    """Positions ``first`` to ``last`` of a log, both included; none when ``last`` is below ``first``."""

    service: str
    source: str
    first: int
    last: int

    @property
    def count(self) -> int:
        """How many events these are."""
        return max(self.last - self.first + 1, 0)


def parse_bound(text: str, *, name: str) -> Bound:
    """A position (digits alone), an RFC 3339 moment, or None for an empty text. Raises InvalidArgument."""
    if not text:
        return None
    if text.isascii() and text.isdigit():
        if not 1 <= int(text) < 1 << 60:
            raise InvalidArgument(f"positions begin at 1; this is {text}", field=name)
        return int(text)
    return parse_moment(text, name=name)


def resolve(
    client: Client, services: Sequence[str], *, start: Bound = None, end: Bound = None, end_name: str = "to"
) -> list[LogRange]:
    """The ranges of services, as their logs are now.

    Args:
        client: The platform.
        services: Whose logs.
        start: The first event meant: at or after a position or a moment; the beginning by default.
        end: The first event no longer meant, likewise; by default the range ends where the log ends now.
        end_name: What the caller calls it, for errors.

    Raises:
        InvalidArgument: positions are given for several services, or the end lies before the start.
        grpc.RpcError: a service can not be reached.
    """
    for name, bound in (("from", start), (end_name, end)):
        if isinstance(bound, int) and len(services) != 1:
            raise InvalidArgument("a position is of one log: name one service, or give a time", field=name)
    ranges: list[LogRange] = []
    for each in services:
        status = client.log(each).GetLogStatus(service.GetLogStatusRequest())
        first = 1 if start is None else _position(client, each, start)
        after = status.last_position + 1 if end is None else _position(client, each, end)
        if end is not None and after < first:
            raise InvalidArgument(f"it lies before the start, in the log of {each}", field=end_name)
        ranges.append(LogRange(each, status.source, first, min(after - 1, status.last_position)))
    return ranges


def read_range(client: Client, wanted: LogRange) -> Iterator[Sequence[LogEntry]]:
    """The entries of a range in order, page by page.

    Raises:
        InternalError: the log has a hole.
        grpc.RpcError: the service can not be reached.
    """
    log, position = client.log(wanted.service), wanted.first
    while position <= wanted.last:
        size = min(PAGE, wanted.last - position + 1)
        entries = log.ReadLog(service.ReadLogRequest(from_position=position, page_size=size)).entries
        position = _following(wanted, position, [each.position for each in entries])
        yield entries


def read_leaves(client: Client, wanted: LogRange) -> Iterator[service.ReadLeavesResponse]:
    """The leaves of a range in order, as they come: several times as fast as the entries.

    Raises:
        InternalError: the log has a hole.
        grpc.RpcError: the service can not be reached.
    """
    position = wanted.first
    if wanted.count:
        request = service.ReadLeavesRequest(from_position=wanted.first, to_position=wanted.last)
        for part in client.log(wanted.service).ReadLeaves(request):
            position = _following(wanted, position, part.positions)
            yield part
    if position <= wanted.last:
        _following(wanted, position, ())


def _following(wanted: LogRange, position: int, found: Sequence[int]) -> int:
    """The position after those found, which are dense from ``position`` on."""
    expected = list(range(position, position + len(found)))
    if not found or list(found) != expected:
        missing = next((at for at, each in zip(expected, found, strict=True) if at != each), position)
        raise InternalError(f"the log of {wanted.service} has a hole at position {missing}", reason="LOG_HOLE")
    return position + len(found)


def _position(client: Client, name: str, bound: int | datetime) -> int:
    if isinstance(bound, int):
        return bound
    request = service.ReadLogRequest(page_size=1)
    request.from_time.FromDatetime(bound)
    page = client.log(name).ReadLog(request)
    return page.entries[0].position if page.entries else page.next_position
