"""What an event store promises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol
from uuid import UUID

from google.protobuf.message import Message

from headrace_kit.context import CommandContext
from headrace_kit.decided import Decided
from headrace_kit.eventstore.aggregate import Aggregate, S
from headrace_kit.eventstore.commands import R
from headrace_kit.eventstore.stored import LogEntry, StoredEvent
from headrace_kit.lease import Fence


class EventStore(Protocol):
    """What a service's command handlers and readers use; see ``PostgresEventStore`` and ``MemoryEventStore``."""

    async def execute(
        self,
        aggregate: Aggregate[S],
        stream_id: str,
        *,
        context: CommandContext,
        request: Message,
        decide: Callable[[S | None], Sequence[Decided]],
        respond: Callable[[S], R],
        fence: Fence | None = None,
    ) -> R:
        """Carries out one command on one stream, at most once for each command id.

        ``decide`` gets the state (None: no such stream) and returns events, or raises to refuse: a refusal is not
        stored. It may run several times and has no effects of its own. An event that another of this stream led to
        is returned as ``Caused``; the others are caused by what caused the command. ``respond`` gets the state after
        the events. No events: ``respond`` answers from the state as it is and nothing is stored, the command id
        included. With the events, in one transaction, go the folded state and the read-model rows of
        ``aggregate.rows``.

        Raises:
            AlreadyExists: the command id was used with another request.
            Aborted: five version conflicts in a row; nothing was written.
            Deposed: ``fence`` is stale; nothing was written.
            InvalidArgument: the stream id is no resource name, or an event is too large.
            NotFound: nothing was decided on a stream that does not exist.
            ResourceExhausted: too many commands wait for this stream.
            Unavailable: the database stayed away; the outcome is unknown, repeat with the same command id.
        """
        ...

    async def load(self, aggregate: Aggregate[S], stream_id: str) -> tuple[S, int] | None:
        """The state and version of a stream, or None; reads every acknowledged write."""
        ...

    async def read_stream(self, stream_id: str, from_version: int = 1) -> list[StoredEvent]:
        """The events of a stream from a version on, in order."""
        ...

    async def find_event(self, event_id: UUID) -> StoredEvent | None:
        """The event of an id, or None."""
        ...

    async def read_log(self, from_position: int, limit: int) -> list[LogEntry]:
        """At most ``limit`` sequenced events from a position on, in order and without holes."""
        ...

    async def read_log_backwards(self, from_position: int, limit: int) -> list[LogEntry]:
        """At most ``limit`` sequenced events from a position down, the last first and without holes."""
        ...

    async def effects_of(self, causes: Sequence[UUID], *, after: int = 0, limit: int = 100) -> list[StoredEvent]:
        """At most ``limit`` events that one of these caused, with a ``local_id`` above ``after``, in its order."""
        ...

    async def head(self) -> int:
        """The last position of the log, 0 when it is empty."""
        ...

    async def position_of(self, stream_id: str, version: int) -> int | None:
        """The position of an event, or None while it has none yet (or does not exist)."""
        ...

    async def wait_for_position(self, position: int, *, timeout_s: float) -> None:
        """Returns once the log reaches ``position``.

        Raises:
            DeadlineExceeded: it did not within ``timeout_s``.
        """
        ...
