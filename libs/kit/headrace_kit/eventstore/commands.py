"""The pure half of the command path: what a command would append, and what a repeat of it is answered."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Generic, TypeVar
from uuid import UUID

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

from headrace_kit.context import CommandContext
from headrace_kit.decided import Decided, cause_of, event_of
from headrace_kit.errors import AlreadyExists, InvalidArgument, NotFound
from headrace_kit.eventstore.aggregate import Aggregate, Row, S
from headrace_kit.eventstore.stored import EventMeta, project_of
from headrace_kit.eventtypes import EventTypes
from headrace_kit.hlc import HybridClock, require_plausible

R = TypeVar("R", bound=Message)

MAX_EVENT_BYTES = 4 * 1024 * 1024
"""Largest event; what is bigger belongs into the object store."""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event about to be appended."""

    event_id: UUID
    version: int
    type: str
    occurred_at: datetime
    hlc: int
    meta: bytes
    data: bytes
    causation_id: UUID | None
    message: Message


@dataclass(frozen=True, slots=True)
class Loaded(Generic[S]):
    """A stream as a command finds it: version 0 and no state when there is none yet."""

    state: S | None = None
    version: int = 0
    hlc: int = 0


@dataclass(frozen=True, slots=True)
class Draft(Generic[S, R]):
    """What a command would append: nothing when ``events`` is empty."""

    events: tuple[NewEvent, ...]
    state: S
    expected_version: int
    version: int
    hlc: int
    rows: tuple[Row, ...]
    response: R


@dataclass(frozen=True, slots=True)
class Answered:
    """What is kept of a command that was carried out; ``response`` is None once its body was forgotten."""

    request_hash: bytes
    stream_id: str
    response_type: str
    response: bytes | None


class Drafting:
    """Turns decisions into drafts for one service's store."""

    def __init__(self, types: EventTypes, clock: HybridClock) -> None:
        self._types = types
        self._clock = clock

    def draft(
        self,
        aggregate: Aggregate[S],
        stream_id: str,
        *,
        loaded: Loaded[S],
        context: CommandContext,
        decide: Callable[[S | None], Sequence[Decided]],
        respond: Callable[[S], R],
    ) -> Draft[S, R]:
        """Decides and folds; whatever ``decide`` raises goes to the caller.

        Raises:
            InvalidArgument: an event is larger than ``MAX_EVENT_BYTES``, or the cause's clock is absurd.
            NotFound: the decision was to do nothing on a stream that does not exist.
            UnknownEventType: the service does not own an event of this type.
        """
        require_plausible(context.hlc, context.now)
        decided = list(decide(loaded.state))
        messages = [event_of(each) for each in decided]
        state, version, hlc = loaded.state, loaded.version, max(loaded.hlc, context.hlc)
        meta_of = _Metas(context, stream_id)
        events: list[NewEvent] = []
        for message, cause in zip(messages, map(cause_of, decided), strict=True):
            hlc = self._clock.tick(context.now, above=hlc)
            version += 1
            data = _bounded(message)
            events.append(
                NewEvent(
                    event_id=context.event_id(len(events)),
                    version=version,
                    type=self._types.name(message),
                    occurred_at=context.now,
                    hlc=hlc,
                    meta=meta_of(cause),
                    data=data,
                    causation_id=cause or context.causation_id,
                    message=message,
                )
            )
            state = aggregate.evolve(state, message)
        if state is None:
            raise NotFound(aggregate.name, stream_id)
        return Draft(
            events=tuple(events),
            state=state,
            expected_version=loaded.version,
            version=version,
            hlc=hlc if events else loaded.hlc,
            rows=tuple(aggregate.rows(stream_id, state, messages)) if events else (),
            response=respond(state),
        )


class _Metas:
    """The encoded meta of a command's events: made once where they share it."""

    def __init__(self, context: CommandContext, stream_id: str) -> None:
        self._shared = EventMeta.of(context, stream_id)
        self._encoded = self._shared.encode()

    def __call__(self, cause: UUID | None) -> bytes:
        return self._encoded if cause is None else replace(self._shared, causation_id=cause).encode()


def request_hash(request: Message, *, name: str = "") -> bytes:
    """32 bytes that tell one request body from another; ``name`` is the message it counts as, if not its own."""
    name = name or request.DESCRIPTOR.full_name
    return hashlib.sha256(name.encode() + b"\x00" + request.SerializeToString(deterministic=True)).digest()


def require_stream_id(stream_id: str) -> None:
    """Raises InvalidArgument when an id is not a resource name below a project."""
    if not project_of(stream_id):
        raise InvalidArgument(f"{stream_id!r} is not a resource name below projects/", field="name")


def require_same_request(answered: Answered, hashed: bytes, command_id: UUID) -> None:
    """Raises AlreadyExists when the command id was used with another body."""
    if answered.request_hash != hashed:
        raise AlreadyExists(
            f"command id {command_id} was already used with another request",
            field="command_id",
            reason="COMMAND_ID_REUSED",
        )


def stored_response(answered: Answered) -> Message | None:
    """The response as it was given, or None when its body was forgotten."""
    if answered.response is None:
        return None
    descriptor = descriptor_pool.Default().FindMessageTypeByName(answered.response_type)
    return message_factory.GetMessageClass(descriptor).FromString(answered.response)


def _bounded(message: Message) -> bytes:
    data = message.SerializeToString(deterministic=True)
    if len(data) > MAX_EVENT_BYTES:
        raise InvalidArgument(f"an event of {len(data)} bytes is over the limit of {MAX_EVENT_BYTES}")
    return data


__all__ = [
    "MAX_EVENT_BYTES",
    "Answered",
    "Draft",
    "Drafting",
    "Loaded",
    "NewEvent",
    "R",
    "request_hash",
    "require_same_request",
    "require_stream_id",
    "stored_response",
]
