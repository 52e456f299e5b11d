"""What a servicer asks about the call it answers."""

from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from opentelemetry.propagate import inject

from headrace_kit.auth import current_principal
from headrace_kit.context import CommandContext
from headrace_kit.errors import InvalidArgument

CAUSATION: Final = "headrace-causation-id"
CORRELATION: Final = "headrace-correlation-id"
ON_BEHALF_OF: Final = "headrace-on-behalf-of"
CAUSE_HLC: Final = "headrace-hlc"
_MAX_NAME: Final = 500

_metadata: ContextVar[Mapping[str, str]] = ContextVar("headrace_metadata", default={})  # noqa: B039 - never changed


def set_metadata(metadata: Mapping[str, str]) -> None:
    """Remembers the metadata of the call that this task answers; for the edges only."""
    _metadata.set(metadata)


def command_context(command_id: str) -> CommandContext:
    """The context of the command that this call gives: who, when, and what caused it.

    Raises:
        InvalidArgument: The command id, or an id in the metadata, is not a UUID.
    """
    metadata = _metadata.get()
    carrier: dict[str, str] = {}
    inject(carrier)
    clock = metadata.get(CAUSE_HLC, "")
    return CommandContext(
        command_id=parse_uuid(command_id, field="command_id"),
        actor=current_principal().id,
        now=datetime.now(UTC),
        on_behalf_of=metadata.get(ON_BEHALF_OF, "")[:_MAX_NAME],
        causation_id=_optional(metadata, CAUSATION),
        correlation_id=_optional(metadata, CORRELATION),
        traceparent=carrier.get("traceparent", ""),
        hlc=int(clock) if clock.isascii() and clock.isdecimal() and len(clock) < 20 else 0,
    )


def causal_metadata(context: CommandContext) -> tuple[tuple[str, str], ...]:
    """Metadata by which a call made for this command names the same cause."""
    pairs = (
        (CAUSATION, str(context.causation_id or "")),
        (CORRELATION, str(context.correlation_id or "")),
        (ON_BEHALF_OF, context.on_behalf_of),
        (CAUSE_HLC, str(context.hlc) if context.hlc else ""),
    )
    return tuple((key, value) for key, value in pairs if value)


def parse_uuid(text: str, *, field: str) -> UUID:
    """The UUID in its canonical form. Raises InvalidArgument."""
    try:
        value = UUID(text)
    except ValueError:
        value = None
    if value is None or str(value) != text.lower() or value.int == 0:
        raise InvalidArgument("give a UUID, such as one of uuid4()", field=field)
    return value


def _optional(metadata: Mapping[str, str], key: str) -> UUID | None:
    text = metadata.get(key, "")
    return parse_uuid(text, field=f"metadata[{key!r}]") if text else None
