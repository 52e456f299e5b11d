"""The event store in memory: the twin of the one on PostgreSQL, for unit tests of services."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import cast
from uuid import UUID

from google.protobuf.message import Message

from headrace_kit.context import CommandContext
from headrace_kit.decided import Decided
from headrace_kit.errors import DeadlineExceeded, Deposed
from headrace_kit.eventstore.aggregate import Aggregate, Row, S
from headrace_kit.eventstore.commands import (
    Answered,
    Draft,
    Drafting,
    Loaded,
    NewEvent,
    R,
    request_hash,
    require_same_request,
    require_stream_id,
    stored_response,
)
from headrace_kit.eventstore.rows import encode_rows, last_of_each
from headrace_kit.eventstore.stored import LogEntry, StoredEvent
from headrace_kit.eventtypes import EventTypes
from headrace_kit.hlc import HybridClock
from headrace_kit.leaf import leaf_bytes, leaf_hash
from headrace_kit.lease import Fence


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass
class _Stream:
    aggregate: str
    state: bytes
    version: int
    hlc: int
    events: list[StoredEvent] = field(default_factory=list[StoredEvent])


class MemoryEventStore:
    """``EventStore`` in memory; events take their positions as they are appended.

    Args:
        source: Who owns the log.
        registry: The event types the service owns.
        now: The clock of ``recorded_at`` and ``sequenced_at``.
    """

    def __init__(self, source: str, registry: EventTypes, now: Callable[[], datetime] = _utc_now) -> None:
        self.source = source
        self.types = registry
        self.epochs: dict[str, int] = {}
        """Newest epoch of each lease; tests set them."""
        self._now = now
        self._drafting = Drafting(registry, HybridClock())
        self._commands: dict[UUID, Answered] = {}
        self._streams: dict[str, _Stream] = {}
        self._log: list[LogEntry] = []
        self._tables: dict[str, dict[tuple[object, ...], dict[str, object]]] = {}

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
        """As ``EventStore.execute``."""
        require_stream_id(stream_id)
        hashed = request_hash(request)
        answered = self._commands.get(context.command_id)
        if answered is not None:
            require_same_request(answered, hashed, context.command_id)
            return self._repeat(aggregate, answered, respond)
        draft = self._drafting.draft(
            aggregate,
            stream_id,
            loaded=self._loaded(aggregate, stream_id),
            context=context,
            decide=decide,
            respond=respond,
        )
        if not draft.events:
            return draft.response
        if fence is not None and self.epochs.get(fence.name) != fence.epoch:
            raise Deposed(f"epoch {fence.epoch} of {fence.name} is over: another process leads")
        self._append(aggregate, stream_id, draft)
        body = draft.response.SerializeToString(deterministic=True)
        self._commands[context.command_id] = Answered(hashed, stream_id, draft.response.DESCRIPTOR.full_name, body)
        return _copy(draft.response)

    def forget_responses(self) -> None:
        """Drops every stored response body, as time does in PostgreSQL."""
        self._commands = {
            key: Answered(each.request_hash, each.stream_id, each.response_type, None)
            for key, each in self._commands.items()
        }

    def rows(self, table: str) -> list[Mapping[str, object]]:
        """The read-model rows of a table, in the order of their creation."""
        return list(self._tables.get(table, {}).values())

    def _repeat(self, aggregate: Aggregate[S], answered: Answered, respond: Callable[[S], R]) -> R:
        response = stored_response(answered)
        if response is not None:
            return cast("R", response)
        state = self._loaded(aggregate, answered.stream_id).state
        if state is None:
            raise AssertionError(f"the command wrote to {answered.stream_id}, which has no events")
        return respond(state)

    def _loaded(self, aggregate: Aggregate[S], stream_id: str) -> Loaded[S]:
        stream = self._streams.get(stream_id)
        if stream is None:
            return Loaded()
        if stream.aggregate != aggregate.name:
            raise TypeError(f"{stream_id} is a stream of {stream.aggregate}, not of {aggregate.name}")
        return Loaded(aggregate.state.FromString(stream.state), stream.version, stream.hlc)

    def _append(self, aggregate: Aggregate[S], stream_id: str, draft: Draft[S, R]) -> None:
        changes = last_of_each(draft.rows)
        encode_rows([{**row.key, **(row.values or {})} for row in changes])  # what PostgreSQL refuses is refused here
        stream = self._streams.setdefault(stream_id, _Stream(aggregate.name, b"", 0, 0))
        stream.state, stream.version, stream.hlc = draft.state.SerializeToString(), draft.version, draft.hlc
        for event in draft.events:
            stored = self._stored(stream_id, event)
            stream.events.append(stored)
            self._log.append(self._sequenced(stored))
        for row in changes:
            self._apply(row)

    def _stored(self, stream_id: str, event: NewEvent) -> StoredEvent:
        return StoredEvent(
            local_id=len(self._log) + 1,
            event_id=event.event_id,
            stream_id=stream_id,
            version=event.version,
            type=event.type,
            occurred_at=event.occurred_at,
            recorded_at=self._now(),
            hlc=event.hlc,
            meta=event.meta,
            data=event.data,
            message=self.types.decode(event.type, event.data),
        )

    def _sequenced(self, event: StoredEvent) -> LogEntry:
        position = len(self._log) + 1
        at = self._now()
        if self._log:
            at = max(at, self._log[-1].sequenced_at + timedelta(microseconds=1))
        leaf = leaf_bytes(
            source=self.source,
            position=position,
            event_id=event.event_id,
            stream_id=event.stream_id,
            version=event.version,
            type=event.type,
            occurred_at=event.occurred_at,
            recorded_at=event.recorded_at,
            sequenced_at=at,
            hlc=event.hlc,
            meta=event.meta,
            data=event.data,
        )
        return LogEntry(self.source, position, at, leaf_hash(leaf), event)

    def _apply(self, row: Row) -> None:
        table = self._tables.setdefault(row.table, {})
        key = tuple(value for _, value in sorted(row.key.items()))
        if row.values is None:
            table.pop(key, None)
        else:
            table[key] = {**table.get(key, {}), **row.key, **row.values}

    async def load(self, aggregate: Aggregate[S], stream_id: str) -> tuple[S, int] | None:
        """As ``EventStore.load``."""
        loaded = self._loaded(aggregate, stream_id)
        return None if loaded.state is None else (loaded.state, loaded.version)

    async def read_stream(self, stream_id: str, from_version: int = 1) -> list[StoredEvent]:
        """As ``EventStore.read_stream``."""
        stream = self._streams.get(stream_id)
        return [] if stream is None else stream.events[max(from_version, 1) - 1 :]

    async def find_event(self, event_id: UUID) -> StoredEvent | None:
        """As ``EventStore.find_event``."""
        return next((entry.event for entry in self._log if entry.event.event_id == event_id), None)

    async def read_log(self, from_position: int, limit: int) -> list[LogEntry]:
        """As ``EventStore.read_log``."""
        start = max(from_position, 1) - 1
        return self._log[start : start + limit]

    async def read_log_backwards(self, from_position: int, limit: int) -> list[LogEntry]:
        """As ``EventStore.read_log_backwards``."""
        return self._log[: max(from_position, 0)][::-1][:limit]

    async def effects_of(self, causes: Sequence[UUID], *, after: int = 0, limit: int = 100) -> list[StoredEvent]:
        """As ``EventStore.effects_of``."""
        events = (entry.event for entry in self._log[after:])
        return [event for event in events if event.origin.causation_id in causes][:limit]

    async def head(self) -> int:
        """As ``EventStore.head``."""
        return len(self._log)

    async def position_of(self, stream_id: str, version: int) -> int | None:
        """As ``EventStore.position_of``."""
        places = (
            each.position for each in self._log if (each.event.stream_id, each.event.version) == (stream_id, version)
        )
        return next(places, None)

    async def wait_for_position(self, position: int, *, timeout_s: float) -> None:
        """As ``EventStore.wait_for_position``."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while len(self._log) < position:
            if loop.time() >= deadline:
                raise DeadlineExceeded(f"the log did not reach position {position} within {timeout_s} s")
            await asyncio.sleep(0.005)


def _copy(message: R) -> R:
    copied = type(message)()
    copied.CopyFrom(message)
    return copied
