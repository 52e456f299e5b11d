"""CloudEvents 1.0 over Kafka in binary mode: headers <-> values.

Attributes are headers ``ce_<name>`` in UTF-8, the value is the plain protobuf message. Only shapes live here; see
``log`` for the clients that move them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from uuid import UUID

from google.protobuf.message import DecodeError, Message

from headrace.api.audit.v1 import resources_pb2
from headrace_kit.errors import InvalidArgument
from headrace_kit.eventtypes import EventTypes

Headers = Sequence[tuple[str, bytes]]

CONTENT_TYPE = "application/protobuf"
_SPECVERSION = ("ce_specversion", b"1.0")
_CONTENT_TYPE = ("content-type", CONTENT_TYPE.encode())
_encoded = lru_cache(maxsize=4096)(str.encode)
"""Of types and sources: there are few."""


@dataclass(frozen=True, slots=True)
class ReceivedEvent:
    """One event of a service's log, as a consumer, a projection or an auditor receives it.

    Attributes:
        id: The event's own id (UUIDv7), the same in the log and on Kafka.
        type: ``headrace.<area>.v1.<MessageName>``.
        source: Who owns the log, ``headrace/registry``.
        subject: The stream id, a resource name.
        time: When it happened by the writer's clock (UTC); shown, never used for order.
        sequence: Version of the stream after this event, from 1, without holes.
        position: Position in the owner's log, from 1, without holes.
        hlc: Hybrid logical clock, above that of its cause.
        project: The project of the stream.
        actor: Principal that wrote it.
        on_behalf_of: Principal at the head of the causal chain, informational.
        causation_id: The event that caused it.
        correlation_id: The first event or command of the causal chain.
        traceparent: W3C trace context of the write.
        data: The protobuf message as stored; hashes cover these bytes.
        message: ``data`` decoded, or None when the type is not known here.
    """

    id: UUID
    type: str
    source: str
    subject: str
    time: datetime
    sequence: int
    position: int
    hlc: int
    project: str
    actor: str
    on_behalf_of: str
    causation_id: UUID | None
    correlation_id: UUID | None
    traceparent: str
    data: bytes
    message: Message | None


class MalformedEvent(InvalidArgument):
    """A record is not one of our CloudEvents, or its value is not the message its type says."""

    default_reason = "MALFORMED_EVENT"


def to_headers(event: ReceivedEvent, *, dataref: str = "") -> list[tuple[str, bytes]]:
    """The headers of an event; empty attributes are left out.

    Args:
        event: The event.
        dataref: Where the value lies when it is not in the record.
    """
    return stored_headers(
        event_id=event.id,
        type=event.type,
        source=event.source,
        stream_id=event.subject,
        occurred_at=event.time,
        version=event.sequence,
        position=event.position,
        hlc=event.hlc,
        meta=resources_pb2.EventMeta(
            project=event.project,
            actor=event.actor,
            on_behalf_of=event.on_behalf_of,
            causation_id=str(event.causation_id or ""),
            correlation_id=str(event.correlation_id or ""),
            traceparent=event.traceparent,
        ),
        dataref=dataref,
    )


def stored_headers(
    *,
    event_id: UUID,
    type: str,
    source: str,
    stream_id: str,
    occurred_at: datetime,
    version: int,
    position: int,
    hlc: int,
    meta: resources_pb2.EventMeta,
    dataref: str = "",
) -> list[tuple[str, bytes]]:
    """As ``to_headers``, of what the store holds: the relay's own, which makes nothing that it does not send."""
    headers = [
        _SPECVERSION,
        ("ce_id", str(event_id).encode()),
        ("ce_type", _encoded(type)),
        ("ce_source", _encoded(source)),
        ("ce_subject", stream_id.encode()),
        ("ce_time", _to_text(occurred_at).encode()),
        ("ce_sequence", b"%d" % version),
        ("ce_position", b"%d" % position),
        ("ce_hlc", b"%d" % hlc),
    ]
    optional = (
        ("ce_project", meta.project),
        ("ce_actor", meta.actor),
        ("ce_onbehalfof", meta.on_behalf_of),
        ("ce_causationid", meta.causation_id),
        ("ce_correlationid", meta.correlation_id),
        ("ce_dataref", dataref),
        ("traceparent", meta.traceparent),
    )
    headers += [(name, value.encode()) for name, value in optional if value]
    headers.append(_CONTENT_TYPE)
    return headers


def from_headers(headers: Headers, data: bytes) -> tuple[ReceivedEvent, str]:
    """The event of a record, not yet decoded (``message`` is None), and its ``dataref``.

    The reference is empty when ``data`` is the value. Unknown headers are ignored.

    Raises:
        MalformedEvent: an attribute is missing or not of its form; ``field`` names it.
    """
    attributes = _Attributes(headers)
    event = ReceivedEvent(
        id=attributes.identity("ce_id"),
        type=attributes.text("ce_type"),
        source=attributes.text("ce_source"),
        subject=attributes.text("ce_subject"),
        time=attributes.time("ce_time"),
        sequence=attributes.number("ce_sequence"),
        position=attributes.number("ce_position"),
        hlc=attributes.number("ce_hlc"),
        project=attributes.optional("ce_project"),
        actor=attributes.optional("ce_actor"),
        on_behalf_of=attributes.optional("ce_onbehalfof"),
        causation_id=attributes.optional_identity("ce_causationid"),
        correlation_id=attributes.optional_identity("ce_correlationid"),
        traceparent=attributes.optional("traceparent"),
        data=data,
        message=None,
    )
    return event, attributes.optional("ce_dataref")


def decoded(event: ReceivedEvent, types: EventTypes) -> ReceivedEvent:
    """The event with its message, when the type is among ``types``.

    Raises:
        MalformedEvent: the value is not such a message.
    """
    try:
        return replace(event, message=types.decode(event.type, event.data))
    except DecodeError as error:
        raise MalformedEvent(f"the value is no {event.type}: {error}", field="data") from error


class _Attributes:
    def __init__(self, headers: Headers) -> None:
        self._values = dict(headers)

    def optional(self, name: str) -> str:
        try:
            return self._values.get(name, b"").decode()
        except UnicodeDecodeError as error:
            raise MalformedEvent(f"header {name} is not UTF-8", field=name) from error

    def text(self, name: str) -> str:
        value = self.optional(name)
        if not value:
            raise MalformedEvent(f"header {name} is missing", field=name)
        return value

    def number(self, name: str) -> int:
        value = self.text(name)
        if not (value.isascii() and value.isdigit()) or int(value) >= 1 << 63:
            raise MalformedEvent(f"header {name} is not a number", field=name)
        return int(value)

    def identity(self, name: str) -> UUID:
        try:
            return UUID(self.text(name))
        except ValueError as error:
            raise MalformedEvent(f"header {name} is not a UUID", field=name) from error

    def optional_identity(self, name: str) -> UUID | None:
        return self.identity(name) if self.optional(name) else None

    def time(self, name: str) -> datetime:
        try:
            value = datetime.fromisoformat(self.text(name))
        except ValueError as error:
            raise MalformedEvent(f"header {name} is not an RFC 3339 time", field=name) from error
        if value.tzinfo is None:
            raise MalformedEvent(f"header {name} has no offset", field=name)
        return value.astimezone(UTC)


def _to_text(moment: datetime) -> str:
    utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return utc.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
