"""Events as they lie in the store and in the log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from google.protobuf.message import Message

from headrace.api.audit.v1 import resources_pb2
from headrace_kit.cloudevents import ReceivedEvent
from headrace_kit.context import CommandContext


def project_of(stream_id: str) -> str:
    """The project of a stream: ``p`` of ``projects/p/runs/r``; empty for an id of another form."""
    parts = stream_id.split("/", 2)
    return parts[1] if len(parts) == 3 and parts[0] == "projects" else ""


@dataclass(frozen=True, slots=True)
class EventMeta:
    """Who wrote an event and why. Stored as the protobuf message ``headrace.api.audit.v1.EventMeta``."""

    actor: str
    command_id: UUID
    project: str = ""
    on_behalf_of: str = ""
    causation_id: UUID | None = None
    correlation_id: UUID | None = None
    traceparent: str = ""
    method: str = ""

    @staticmethod
    def of(context: CommandContext, stream_id: str) -> EventMeta:
        """The meta of events a command writes; a command without a correlation id begins a chain of its own."""
        return EventMeta(
            actor=context.actor,
            command_id=context.command_id,
            project=project_of(stream_id),
            on_behalf_of=context.on_behalf_of,
            causation_id=context.causation_id,
            correlation_id=context.correlation_id or context.command_id,
            traceparent=context.traceparent,
            method=context.method,
        )

    def encode(self) -> bytes:
        """The stored bytes: fields in the order of their numbers, empty ones left out."""
        return resources_pb2.EventMeta(
            actor=self.actor,
            on_behalf_of=self.on_behalf_of,
            causation_id=str(self.causation_id or ""),
            correlation_id=str(self.correlation_id or ""),
            command_id=str(self.command_id),
            traceparent=self.traceparent,
            project=self.project,
            method=self.method,
        ).SerializeToString(deterministic=True)

    @staticmethod
    def decode(data: bytes) -> EventMeta:
        """The meta of stored bytes; fields added later are ignored."""
        meta = resources_pb2.EventMeta.FromString(data)
        return EventMeta(
            actor=meta.actor,
            command_id=UUID(meta.command_id),
            project=meta.project,
            on_behalf_of=meta.on_behalf_of,
            causation_id=UUID(meta.causation_id) if meta.causation_id else None,
            correlation_id=UUID(meta.correlation_id) if meta.correlation_id else None,
            traceparent=meta.traceparent,
            method=meta.method,
        )


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One committed event.

    Attributes:
        local_id: Order of insertion, with holes; not a position.
        event_id: UUIDv7.
        stream_id: The stream, a resource name.
        version: Version of the stream after the event, from 1, without holes.
        type: Stable type name.
        occurred_at: The writer's clock, UTC.
        recorded_at: The database's clock, UTC.
        hlc: Hybrid logical clock.
        meta: ``EventMeta`` as stored.
        data: The protobuf message as stored.
        message: ``data`` decoded, or None when the type is unknown here.
    """

    local_id: int
    event_id: UUID
    stream_id: str
    version: int
    type: str
    occurred_at: datetime
    recorded_at: datetime
    hlc: int
    meta: bytes
    data: bytes
    message: Message | None

    @property
    def origin(self) -> EventMeta:
        """``meta`` decoded."""
        return EventMeta.decode(self.meta)


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One event at its place in the log of a service.

    Attributes:
        source: Who owns the log, ``headrace/registry``.
        position: From 1, without holes.
        sequenced_at: When it took its place, UTC; never runs backwards along the log.
        leaf: Its Merkle leaf hash, 32 bytes.
        event: The event.
    """

    source: str
    position: int
    sequenced_at: datetime
    leaf: bytes
    event: StoredEvent

    def received(self) -> ReceivedEvent:
        """The entry as a consumer sees it."""
        event, meta = self.event, self.event.origin
        return ReceivedEvent(
            id=event.event_id,
            type=event.type,
            source=self.source,
            subject=event.stream_id,
            time=event.occurred_at,
            sequence=event.version,
            position=self.position,
            hlc=event.hlc,
            project=meta.project,
            actor=meta.actor,
            on_behalf_of=meta.on_behalf_of,
            causation_id=meta.causation_id,
            correlation_id=meta.correlation_id,
            traceparent=meta.traceparent,
            data=event.data,
            message=event.message,
        )
