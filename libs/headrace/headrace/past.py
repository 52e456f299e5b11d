"""The past of entities, asked of the service that owns them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from headrace.api.audit.v1 import service_pb2 as service
from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.registry.v1.resources_pb2 import Model
from headrace.client import Client
from headrace.connection import SERVICES
from headrace.errors import InvalidArgument, NotFound
from headrace.story import decode

OWNERS: Final = {
    "experiments": "tracking",
    "runs": "tracking",
    "loggedModels": "tracking",
    "models": "registry",
    "persons": "registry",
    "webhooks": "registry",
    "pipelines": "orchestrator",
    "pipelineRuns": "orchestrator",
    "endpoints": "serving",
    "monitors": "monitor",
    "archives": "monitor",
}
"""Collection -> the service that owns its entities."""
_PARTS: Final = {"archives": 6}
"""Collection -> parts of a name that are not four: ``projects/headrace/archives/{archive}/ranges/{range}``."""
_PAGE: Final = 1000
_STATES: Final = 200
_REASONS: Final = ("reason", "comment", "note")
"""Fields in which somebody says why."""


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
    if len(parts) != _PARTS.get("".join(parts[2:3]), 4) or parts[0] != "projects" or parts[2] not in OWNERS:
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
    """Every event of an entity, in order; raises as ``state_at``.

    Of a model's alias, ``projects/p/models/m@production``, those that name the alias.
    """
    entity, _, alias = entity.partition("@")
    log, found, version = client.log(owner_of(entity)), list[LogEntry](), 1
    while version:
        request = service.ReadStreamRequest(stream_id=entity, from_version=version, page_size=_PAGE)
        page = log.ReadStream(request)
        found.extend(page.entries)
        version = page.next_version
    return [entry for entry in found if names_alias(entry, alias)] if alias else found


def names_alias(entry: LogEntry, alias: str) -> bool:
    """Whether an event says something of an alias of its model."""
    return any(name == "alias" and value == alias for name, value in _texts_of(entry))


def reason_of(entry: LogEntry) -> str:
    """Why it was done, in the words of whoever did it; empty when the event does not say."""
    return next((value for name, value in _texts_of(entry) if name in _REASONS and value), "")


def changes_between(client: Client, start: datetime, end: datetime, *, prefix: str) -> list[Change]:
    """Every field that an event sequenced after ``start`` and not after ``end`` changed, by service and position."""
    found: list[Change] = []
    for name in SERVICES:
        if name not in client.connection.addresses:
            continue
        first, last = (position_at(client, name, time) for time in (start, end))
        versions: dict[str, list[int]] = {}
        for entry in _range(client, name, first + 1, last, prefix=prefix):
            versions.setdefault(entry.stream_id, []).append(entry.version)
        changes = [
            change
            for entity, changed in versions.items()
            for change in _changes_of(client, name, entity, changed[0], changed[-1])
        ]
        found.extend(sorted(changes, key=lambda change: change.entry.position))
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
    """Ranges of positions (first, last) that a service's log should have and does not; reads the whole log.

    What was published lies in the log, so a log that ends before what is known to be in Kafka has a hole at its end.
    """
    found: list[tuple[int, int]] = []
    published = client.log(name).GetLogStatus(service.GetLogStatusRequest()).relayed_position
    expected, end = 1, False
    while not end:
        page = client.log(name).ReadLog(service.ReadLogRequest(from_position=expected, page_size=_PAGE))
        for entry in page.entries:
            if entry.position > expected:
                found.append((expected, entry.position - 1))
            expected = entry.position + 1
        end = page.end_of_log or not page.entries
    if expected <= published:
        found.append((expected, published))
    return found


def _changes_of(client: Client, name: str, entity: str, first: int, last: int) -> Iterator[Change]:
    """What the events of an entity from one version to another changed: each state is folded once."""
    before: dict[str, object] = {}
    for each in _states(client, name, entity, max(first - 1, 1), last):
        plain = MessageToDict(each.state, preserving_proto_field_name=True)
        after = {key: value for key, value in flat(plain) if key != "@type"}
        if each.entry.version >= first:
            keys = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
            yield from (Change(entity, key, before.get(key), after.get(key), each.entry) for key in keys)
        before = after


def _states(client: Client, name: str, entity: str, first: int, last: int) -> Iterator[service.StreamState]:
    while first:
        request = service.ListStatesRequest(stream_id=entity, from_version=first, to_version=last, page_size=_STATES)
        page = client.log(name).ListStates(request)
        yield from page.states
        first = page.next_version


def _texts_of(entry: LogEntry) -> Iterator[tuple[str, str]]:
    """The texts of an event by the names of their fields, its own before those of the messages in it."""
    message = decode(entry)
    waiting = [message] if message is not None else []
    while waiting:
        inner: list[Message] = []
        for each in waiting:
            for spec, value in each.ListFields():
                if spec.type == spec.TYPE_MESSAGE and not spec.is_repeated:
                    inner.append(value)
                elif spec.type == spec.TYPE_STRING and not spec.is_repeated:
                    yield spec.name, value
        waiting = inner


def _range(client: Client, name: str, first: int, last: int, *, prefix: str) -> Iterator[LogEntry]:
    while first <= last:
        request = service.ReadLogRequest(from_position=first, page_size=_PAGE, stream_prefix=prefix)
        page = client.log(name).ReadLog(request)
        yield from (entry for entry in page.entries if entry.position <= last)
        if page.end_of_log:
            return
        first = page.next_position
