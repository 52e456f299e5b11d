"""The past of entities, asked of the service that owns them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import grpc
from google.protobuf.json_format import MessageToDict

from headrace.api.audit.v1 import service_pb2 as service
from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.registry.v1.resources_pb2 import Model
from headrace.client import Client
from headrace.connection import SERVICES
from headrace.errors import InvalidArgument, NotFound

OWNERS: Final = {
    "experiments": "tracking",
    "runs": "tracking",
    "models": "registry",
    "pipelines": "orchestrator",
    "pipelineRuns": "orchestrator",
    "endpoints": "serving",
    "monitors": "monitor",
}
"""Collection -> the service that owns its entities."""
_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Change:
    """A field of an entity that one event changed; ``before`` and ``after`` are None where there was none."""

    entity: str
    field: str
    before: object
    after: object
    entry: LogEntry

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        meta = {"event_id": self.entry.event_id, "actor": self.entry.meta.actor, "position": self.entry.position}
        return {"entity": self.entity, "field": self.field, "before": self.before, "after": self.after, **meta}


def owner_of(entity: str) -> str:
    """The service that owns an entity. Raises InvalidArgument."""
    parts = entity.split("/")
    if len(parts) != 4 or parts[0] != "projects" or parts[2] not in OWNERS:
        raise InvalidArgument(f"ENTITY: give a name such as projects/default/models/m, not {entity!r}")
    return OWNERS[parts[2]]


def state_at(
    client: Client, entity: str, *, position: int | None = None, time: datetime | None = None
) -> service.StateAtResponse:
    """The state of an entity at a position of its service's log, at a time, or now.

    A model's alias, ``projects/p/models/m@production``, gives the version it stood for then, and the event of the
    model that was the last by then.

    Raises:
        InvalidArgument: The name is not that of an entity.
        NotFound: The model had no such alias then.
        grpc.RpcError: It did not exist then, or the service can not be reached.
    """
    entity, _, alias = entity.partition("@")
    request = service.StateAtRequest(stream_id=entity)
    if position is not None:
        request.position = position
    if time is not None:
        request.time.FromDatetime(time)
    found = client.log(owner_of(entity)).StateAt(request)
    return of_alias(found, alias) if alias else found


def of_alias(found: service.StateAtResponse, alias: str) -> service.StateAtResponse:
    """The version an alias stands for in the state of a model. Raises InvalidArgument and NotFound."""
    model = Model()
    if not found.state.Unpack(model):
        raise InvalidArgument(f"ENTITY: only models have aliases such as {alias}")
    number = next((each.version for each in model.aliases if each.alias == alias), None)
    version = next((each for each in model.versions if each.name.endswith(f"/versions/{number}")), None)
    if version is None:
        raise NotFound(f"{model.name} had no alias {alias} then")
    answer = service.StateAtResponse(entry=found.entry, position=found.position)
    answer.state.Pack(version, deterministic=True)
    return answer


def events_of(client: Client, entity: str) -> list[LogEntry]:
    """Every event of an entity, in order; raises as ``state_at``."""
    log, found, version = client.log(owner_of(entity)), list[LogEntry](), 1
    while version:
        request = service.ReadStreamRequest(stream_id=entity, from_version=version, page_size=_PAGE)
        page = log.ReadStream(request)
        found.extend(page.entries)
        version = page.next_version
    return found


def changes_between(client: Client, start: datetime, end: datetime, *, prefix: str) -> list[Change]:
    """Every field that an event sequenced after ``start`` and not after ``end`` changed, by service and position."""
    found: list[Change] = []
    for name in SERVICES:
        if name not in client.connection.addresses:
            continue
        first, last = (position_at(client, name, time) for time in (start, end))
        before: dict[str, dict[str, object]] = {}
        for entry in _range(client, name, first + 1, last, prefix=prefix):
            entity = entry.stream_id
            old = before[entity] if entity in before else _fields_at(client, name, entity, first)
            new = before[entity] = _fields_at(client, name, entity, entry.position)
            keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
            found.extend(Change(entity, key, old.get(key), new.get(key), entry) for key in keys)
    return found


def position_at(client: Client, name: str, time: datetime) -> int:
    """The last position of a service's log at a time."""
    request = service.PositionAtRequest()
    request.time.FromDatetime(time)
    return client.log(name).PositionAt(request).position


def flat(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """The leaves of nested maps and lists, each with its path: ``a.b[0]``."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from flat(each, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from flat(each, f"{path}[{index}]")
    else:
        yield path, value


def holes(client: Client, name: str) -> list[tuple[int, int]]:
    """Ranges of positions (first, last) that a service's log should have and does not; reads the whole log."""
    found: list[tuple[int, int]] = []
    expected, end = 1, False
    while not end:
        page = client.log(name).ReadLog(service.ReadLogRequest(from_position=expected, page_size=_PAGE))
        for entry in page.entries:
            if entry.position > expected:
                found.append((expected, entry.position - 1))
            expected = entry.position + 1
        end = page.end_of_log or not page.entries
    return found


def _fields_at(client: Client, name: str, entity: str, position: int) -> dict[str, object]:
    if position == 0:
        return {}
    try:
        found = client.log(name).StateAt(service.StateAtRequest(stream_id=entity, position=position))
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return {}
        raise
    plain = MessageToDict(found.state, preserving_proto_field_name=True)
    return {key: value for key, value in flat(plain) if key != "@type"}


def _range(client: Client, name: str, first: int, last: int, *, prefix: str) -> Iterator[LogEntry]:
    while first <= last:
        request = service.ReadLogRequest(from_position=first, page_size=_PAGE, stream_prefix=prefix)
        page = client.log(name).ReadLog(request)
        yield from (entry for entry in page.entries if entry.position <= last)
        if page.end_of_log:
            return
        first = page.next_position
