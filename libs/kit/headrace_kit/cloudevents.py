"""CloudEvents 1.0 over Kafka, binary mode: headers <-> values.

Only shapes live here; see ``log`` for the client that moves them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from google.protobuf.message import Message


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
