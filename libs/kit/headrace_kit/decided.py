"""What a decision returns: events, each with a cause of its own where that is not the command's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

from google.protobuf.message import Message


@dataclass(frozen=True, slots=True)
class Caused:
    """An event that another event of the same stream led to.

    Attributes:
        event: The event.
        by: Id of its cause: an earlier event of the same command (``CommandContext.event_id`` foretells it), or one
            that the stream had before. So the clock of the cause is always lower.
    """

    event: Message
    by: UUID


Decided: TypeAlias = Message | Caused
"""An event as ``decide`` returns it; a plain message is caused by what caused the command."""


def event_of(decided: Decided) -> Message:
    """The event itself."""
    return decided.event if isinstance(decided, Caused) else decided


def cause_of(decided: Decided) -> UUID | None:
    """The cause of its own, or None where the command's holds."""
    return decided.by if isinstance(decided, Caused) else None
