"""An event as a subscriber receives it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from google.protobuf.message import DecodeError, Message

from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.errors import InvalidArgument
from headrace.story import decode

MAX_TYPES = 100


@dataclass(frozen=True, slots=True)
class Event:
    """One fact of the platform.

    Attributes:
        id: A UUIDv7; the key to drop repeats by.
        type: Such as ``headrace.registry.v1.VersionPromoted``.
        service: Who owns the log, such as ``registry``.
        stream: The entity, a resource name.
        version: Of the stream after this event, from 1.
        position: In the service's log, from 1, without holes.
        hlc: Hybrid logical clock, above that of the event that caused it.
        occurred_at: When it happened, as its author said (UTC).
        sequenced_at: When it got its position (UTC); never runs backwards within a service.
        project: Project id.
        actor: Principal that wrote it.
        causation_id: Id of the event that caused it; empty at the start of a chain.
        correlation_id: Id shared by a whole chain.
        data: The protobuf message as stored.
        message: ``data`` decoded, or None when this headrace does not know the type or can not read the bytes.
        entry: The event as it stands in the log, with its leaf.
    """

    id: str
    type: str
    service: str
    stream: str
    version: int
    position: int
    hlc: int
    occurred_at: datetime
    sequenced_at: datetime
    project: str
    actor: str
    causation_id: str
    correlation_id: str
    data: bytes
    message: Message | None
    entry: LogEntry = field(repr=False)

    @property
    def order(self) -> tuple[int, str, int]:
        """The place among the events of all services: (hlc, service, position)."""
        return self.hlc, self.service, self.position


def event_of(entry: LogEntry, service: str) -> Event:
    """The event of a log entry of a service."""
    try:
        message = decode(entry)
    except DecodeError:
        message = None
    return Event(
        id=entry.event_id,
        type=entry.type,
        service=service,
        stream=entry.stream_id,
        version=entry.version,
        position=entry.position,
        hlc=entry.hlc,
        occurred_at=entry.occurred_at.ToDatetime(tzinfo=UTC),
        sequenced_at=entry.sequenced_at.ToDatetime(tzinfo=UTC),
        project=entry.meta.project,
        actor=entry.meta.actor,
        causation_id=entry.meta.causation_id,
        correlation_id=entry.meta.correlation_id,
        data=entry.data,
        message=message,
        entry=entry,
    )


@dataclass(frozen=True, slots=True)
class EventFilter:
    """What a subscriber wants; the services apply it, so nothing else travels.

    Attributes:
        types: Full names of event types; empty for all.
        stream_prefix: How stream ids start; empty for all.
    """

    types: tuple[str, ...] = ()
    stream_prefix: str = ""

    @staticmethod
    def of(types: Iterable[type[Message] | str] = (), *, project: str = "", stream: str = "") -> EventFilter:
        """A filter from what a caller gives.

        Args:
            types: Event classes, or names such as ``headrace.registry.v1.VersionPromoted``.
            project: Only this project.
            stream: How streams start: within the project (``models/delays``) when one is given, else from their
                beginning (``projects/default/models/``).

        Raises:
            InvalidArgument: an argument is of another form; ``field`` names it.
        """
        if isinstance(types, str):
            raise InvalidArgument("give a list of types, not a text", field="types")
        names = tuple(dict.fromkeys(_type_name(each) for each in types))
        if len(names) > MAX_TYPES:
            raise InvalidArgument(f"give at most {MAX_TYPES} types, not {len(names)}", field="types")
        if "/" in project:
            raise InvalidArgument(f"give the id of a project, not {project!r}", field="project")
        prefix = f"projects/{project}/{stream}" if project and not stream.startswith("projects/") else stream
        if project and not prefix.startswith(f"projects/{project}/"):
            raise InvalidArgument(f"{stream!r} lies outside of project {project!r}", field="stream")
        if len(prefix) > 500:
            raise InvalidArgument("give at most 500 characters", field="stream")
        return EventFilter(names, prefix)


def chosen_services(services: str | Iterable[str] | None, known: Sequence[str]) -> tuple[str, ...]:
    """The services asked for, without repeats.

    Args:
        services: A name, names, or None for all.
        known: Those there are.

    Raises:
        InvalidArgument: there is no such service, or none was named.
    """
    if services is None:
        return tuple(known)
    names = tuple(dict.fromkeys([services] if isinstance(services, str) else services))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise InvalidArgument(f"give some of {', '.join(known)}, not {', '.join(unknown) or 'none'}", field="services")
    return names


def _type_name(given: type[Message] | str) -> str:
    if isinstance(given, str):
        if given.startswith("headrace.") and given.count(".") >= 3:
            return given
        raise InvalidArgument(f"give a name such as headrace.monitor.v1.AlertRaised, not {given!r}", field="types")
    return given.DESCRIPTOR.full_name.replace("headrace.api.", "headrace.", 1)
