"""Who commands, when and why: the envelope of every command, passed by hand and never looked up."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

from headrace_kit.errors import InvalidArgument

if TYPE_CHECKING:
    from headrace_kit.cloudevents import ReceivedEvent

HANDLER_NAMESPACE = UUID("5f0b6f3e-58d1-5c1c-9d0a-4d5bb1e3a7c1")
"""Root of the command ids handlers make. Fixed for ever: changing it makes every redelivery a new command."""


def handler_command_id(handler: str, event_id: UUID) -> UUID:
    """Id of the one command that ``handler`` gives for an event: the same for each redelivery of it."""
    return uuid5(uuid5(HANDLER_NAMESPACE, handler), str(event_id))


@dataclass(frozen=True, slots=True)
class CommandContext:
    """The envelope of one command.

    Attributes:
        command_id: Identity of the command; a repeat with the same id has no further effect.
        actor: Principal that gives the command (``persons/operator``, ``services/monitor``).
        now: The writer's clock, timezone-aware UTC.
        on_behalf_of: Principal at the head of the causal chain, informational.
        causation_id: The event that caused the command.
        correlation_id: The first event or command of the causal chain; the command id where there is none.
        traceparent: W3C trace context.
        hlc: Hybrid logical clock of the cause, 0 where there is none; the events written get higher ones.
        method: How it was given: a gRPC method (``/package.Service/Method``) or a handler; empty where neither did.
    """

    command_id: UUID
    actor: str
    now: datetime
    on_behalf_of: str = ""
    causation_id: UUID | None = None
    correlation_id: UUID | None = None
    traceparent: str = ""
    hlc: int = 0
    method: str = ""

    def __post_init__(self) -> None:
        if not self.actor:
            raise InvalidArgument("a command names who gives it", field="actor")
        if self.now.utcoffset() != timedelta(0):
            raise InvalidArgument("the clock of a command must be timezone-aware UTC", field="now")

    def event_id(self, index: int) -> UUID:
        """Id (UUIDv7) of the ``index``-th event this command writes, from 0.

        The same for each attempt of the same context, so that a decision may put the id of an event into a record.
        """
        digest = hashlib.sha256(self.command_id.bytes + index.to_bytes(4, "big")).digest()
        milliseconds = int(self.now.timestamp() * 1000)
        value = int.from_bytes(milliseconds.to_bytes(6, "big") + digest[:10], "big")
        value = (value & ~(0xF << 76)) | (0x7 << 76)
        value = (value & ~(0x3 << 62)) | (0x2 << 62)
        return UUID(int=value)

    @staticmethod
    def caused_by(event: ReceivedEvent, handler: str, now: datetime, *, actor: str = "") -> CommandContext:
        """Context of the command by which ``handler`` answers ``event``.

        Args:
            event: The event being handled.
            handler: ``<service>.<handler>``, stable for ever and unique among all handlers; the command id derives
                from it, so a handler that gives two commands for one event uses two names.
            now: The handler's clock, UTC.
            actor: Principal of the handler; ``services/<service>`` by default.
        """
        return CommandContext(
            command_id=handler_command_id(handler, event.id),
            actor=actor or f"services/{handler.partition('.')[0]}",
            now=now,
            on_behalf_of=event.on_behalf_of or event.actor,
            causation_id=event.id,
            correlation_id=event.correlation_id or event.id,
            traceparent=event.traceparent,
            hlc=event.hlc,
            method=handler,
        )
