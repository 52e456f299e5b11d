"""What a servicer asks about the call it answers, and what its own calls tell others about their cause."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from headrace_kit.auth import SERVICE, caller, current_principal
from headrace_kit.context import CommandContext
from headrace_kit.errors import InvalidArgument
from headrace_kit.names import require_text
from headrace_kit.tracing import traceparent

CAUSATION: Final = "headrace-causation-id"
CORRELATION: Final = "headrace-correlation-id"
ON_BEHALF_OF: Final = "headrace-on-behalf-of"
CAUSE_HLC: Final = "headrace-hlc"
_MAX_NAME: Final = 500
_MAX_HLC: Final = (1 << 63) - 1

Clock = Callable[[], datetime]
Pairs = tuple[tuple[str, str], ...]


def utc_now() -> datetime:
    """The wall clock, UTC."""
    return datetime.now(UTC)


_NO_METADATA: Final[Mapping[str, str]] = {}
_metadata: ContextVar[Mapping[str, str]] = ContextVar("headrace_metadata", default=_NO_METADATA)
_clock: ContextVar[Clock] = ContextVar("headrace_clock", default=utc_now)
_method: ContextVar[str] = ContextVar("headrace_method", default="")
_causing: ContextVar[Pairs | None] = ContextVar("headrace_causing", default=None)


def set_metadata(metadata: Mapping[str, str], clock: Clock = utc_now, *, method: str = "") -> None:
    """Remembers the metadata and the method of the call that this task answers; for the edges only."""
    _metadata.set(metadata)
    _clock.set(clock)
    _method.set(method)


def command_context(command_id: str) -> CommandContext:
    """The context of the command that this call gives: who, when, and what caused it.

    The actor is whose token it is, whatever the metadata say; a principal to act on behalf of is taken from services
    alone.

    Raises:
        InvalidArgument: the command id, or an id in the metadata, is not a UUID.
        Unauthenticated: there is no call.
    """
    principal, metadata = current_principal(), _metadata.get()
    return CommandContext(
        command_id=parse_uuid(command_id, field="command_id"),
        actor=principal.id,
        now=_clock.get()(),
        on_behalf_of=_on_behalf_of(metadata) if SERVICE in principal.roles else "",
        causation_id=_optional(metadata, CAUSATION),
        correlation_id=_optional(metadata, CORRELATION),
        traceparent=traceparent(),
        hlc=_hlc(metadata),
        method=_method.get(),
    )


def causal_metadata(context: CommandContext) -> Pairs:
    """Metadata by which a call made for this command names the same cause."""
    pairs = (
        (CAUSATION, str(context.causation_id or "")),
        (CORRELATION, str(context.correlation_id or "")),
        (ON_BEHALF_OF, context.on_behalf_of),
        (CAUSE_HLC, str(context.hlc) if context.hlc else ""),
    )
    return tuple((key, value) for key, value in pairs if value)


@contextmanager
def causing(context: CommandContext) -> Iterator[None]:
    """Calls made inside through ``channel`` name the cause of ``context``.

    A handler writes::

        context = CommandContext.caused_by(event, "monitor.retrain", now)
        with causing(context):
            await pipelines.StartRun(StartRunRequest(command_id=str(context.command_id), ...))
    """
    token = _causing.set(causal_metadata(context))
    try:
        yield
    finally:
        _causing.reset(token)


def outgoing_metadata() -> Pairs:
    """What a call made now tells about its cause: that of ``causing``, else that of the call being answered."""
    explicit = _causing.get()
    if explicit is not None:
        return explicit
    principal, metadata = caller(), _metadata.get()
    if principal is None:
        return ()
    kept = tuple((key, metadata[key]) for key in (CAUSATION, CORRELATION, CAUSE_HLC) if metadata.get(key))
    trusted = SERVICE in principal.roles and metadata.get(ON_BEHALF_OF)
    return (*kept, (ON_BEHALF_OF, trusted or principal.id))


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


def _on_behalf_of(metadata: Mapping[str, str]) -> str:
    return require_text(metadata.get(ON_BEHALF_OF, ""), field=f"metadata[{ON_BEHALF_OF!r}]", least=0, most=_MAX_NAME)


def _hlc(metadata: Mapping[str, str]) -> int:
    text = metadata.get(CAUSE_HLC, "0")
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= _MAX_HLC):
        raise InvalidArgument("give a number of 63 bits", field=f"metadata[{CAUSE_HLC!r}]")
    return int(text)
