"""The log of the whole platform: the services' logs merged, and the chain of causes of one event."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from headrace.api.audit.v1 import service_pb2 as service
from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.monitor.v1 import events_pb2 as _monitor
from headrace.api.orchestrator.v1 import events_pb2 as _orchestrator
from headrace.api.registry.v1 import events_pb2 as _registry
from headrace.api.serving.v1 import events_pb2 as _serving
from headrace.api.tracking.v1 import events_pb2 as _tracking
from headrace.client import Client
from headrace.connection import SERVICES
from headrace.errors import NotFound

KNOWN: Final = (_monitor, _orchestrator, _registry, _serving, _tracking)
"""Modules whose event types are decoded."""
_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Link:
    """An event of a chain, and how deep below the first it hangs."""

    entry: LogEntry
    depth: int


def read_logs(
    client: Client, *, prefix: str = "", types: Iterable[str] = (), services: Iterable[str] = SERVICES
) -> list[LogEntry]:
    """Every entry of the services' logs, so that no effect precedes its cause: by (hlc, source, position).

    Services that are not known to the client are left out.

    Raises:
        grpc.RpcError: A service can not be reached.
    """
    logs = [
        list(_entries(client, name, prefix, list(types))) for name in services if name in client.connection.addresses
    ]
    return list(heapq.merge(*logs, key=order_of))


def newest(
    client: Client, name: str, count: int, *, prefix: str = "", types: Iterable[str] = ()
) -> tuple[list[LogEntry], int]:
    """The last entries of a service's log that a filter accepts, in order, and the position where the log ended.

    Reads from the end only as far as it must.

    Raises:
        grpc.RpcError: The service can not be reached.
    """
    head = client.log(name).GetLogStatus(service.GetLogStatusRequest()).last_position
    found: list[LogEntry] = []
    position = head
    while position and len(found) < count:
        request = service.ReadLogRequest(
            from_position=position,
            page_size=min(count - len(found), _PAGE),
            stream_prefix=prefix,
            types=types,
            backwards=True,
        )
        page = client.log(name).ReadLog(request)
        found.extend(page.entries)
        position = page.next_position
    return found[::-1], head


def order_of(entry: LogEntry) -> tuple[int, str, int]:
    """The order of entries of several logs."""
    return entry.hlc, entry.source, entry.position


def find_event(client: Client, event_id: str) -> LogEntry:
    """The event of an id, in whichever log it is. Raises NotFound."""
    for name in SERVICES:
        if name not in client.connection.addresses:
            continue
        try:
            return client.log(name).GetEvent(service.GetEventRequest(event_id=event_id)).entry
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
    raise NotFound(f"no log has an event {event_id}")


def chain(entries: Iterable[LogEntry], event_id: str) -> list[Link]:
    """The causes of an event and everything it led to, causes first, each effect below its cause.

    Args:
        entries: The platform's log.
        event_id: Any event of the chain.

    Raises:
        NotFound: The log has no such event.
    """
    by_id = {entry.event_id: entry for entry in entries}
    if event_id not in by_id:
        raise NotFound(f"no log has an event {event_id}")
    effects: dict[str, list[LogEntry]] = {}
    for entry in sorted(by_id.values(), key=order_of):
        effects.setdefault(entry.meta.causation_id, []).append(entry)
    first = by_id[event_id]
    while first.meta.causation_id in by_id:
        first = by_id[first.meta.causation_id]
    found: list[Link] = []
    waiting = [Link(first, 0)]
    while waiting:
        link = waiting.pop()
        found.append(link)
        following = effects.get(link.entry.event_id, [])
        waiting.extend(Link(entry, link.depth + 1) for entry in reversed(following))
    return found


def decode(entry: LogEntry) -> Message | None:
    """The event itself, or None when its type is not known here."""
    area, _, name = entry.type.removeprefix("headrace.").rpartition(".")
    try:
        descriptor = descriptor_pool.Default().FindMessageTypeByName(f"headrace.api.{area}.{name}")
    except KeyError:
        return None
    return message_factory.GetMessageClass(descriptor).FromString(entry.data)


def _entries(client: Client, name: str, prefix: str, types: list[str]) -> Iterator[LogEntry]:
    position = 1
    while True:
        request = service.ReadLogRequest(from_position=position, page_size=_PAGE, stream_prefix=prefix, types=types)
        page = client.log(name).ReadLog(request)
        yield from page.entries
        position = page.next_position
        if page.end_of_log or not page.entries:
            return
