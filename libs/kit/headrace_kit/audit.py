"""Every service's log, served by ``headrace.api.audit.v1`` and read by that from elsewhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import grpc
import structlog

from headrace.api.audit.v1 import resources_pb2 as resources
from headrace.api.audit.v1 import service_pb2 as service
from headrace.api.audit.v1.service_pb2_grpc import AuditServiceStub
from headrace_kit.causes import filling
from headrace_kit.cloudevents import ReceivedEvent
from headrace_kit.consumer import Consumer, ParkedKey, ProjectionConsumer, list_consumers, list_parked
from headrace_kit.errors import FailedPrecondition, InvalidArgument, KitError, NotFound, Unavailable
from headrace_kit.eventstore import LogEntry, PostgresEventStore, StoredEvent
from headrace_kit.evidence_rpc import EvidenceServicer
from headrace_kit.history import History
from headrace_kit.logkeeper import LogKeeper
from headrace_kit.logmessages import consumer_message, entry_message, event_message, received_event, received_message
from headrace_kit.logtime import position_at
from headrace_kit.names import require_text
from headrace_kit.paging import page_of
from headrace_kit.rpc import command_context, parse_uuid
from headrace_kit.validate import require_range, require_size, require_time

_log = structlog.get_logger(__name__)
MAX_PAGE: Final = 1000
DEFAULT_PAGE: Final = 100
FOLLOW_POLL_S: Final = 0.05
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
"""An answer ends after the entry that fills it so far; the next call goes on there."""
_SCAN: Final = 500
_MAX_SCANS: Final = 40
"""Pages that one call looks through for what its filter accepts; then it answers with what it has."""
MAX_CAUSES: Final = 100
"""Events whose effects one call asks for."""
_PLACES: Final = "SELECT local_id, position, sequenced_at, leaf FROM log_entries WHERE local_id = ANY($1::bigint[])"

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # Any: the messages of whichever method


class AuditServicer(EvidenceServicer):
    """Serves the log of one service.

    Args:
        store: Whose log.
        keeper: Its sequencer and relay.
        consumers: The service's consumers by name.
        history: The past of the log; without it, no kind of stream has a state.
    """

    def __init__(
        self,
        store: PostgresEventStore,
        keeper: LogKeeper,
        consumers: Mapping[str, Consumer | ProjectionConsumer],
        history: History | None = None,
    ) -> None:
        super().__init__(store)
        self._store, self._keeper, self._consumers = store, keeper, consumers
        self._history = history or History(store, ())

    async def ReadLog(self, request: service.ReadLogRequest, context: Context) -> service.ReadLogResponse:
        """A page of the log; what the filter leaves out is passed over."""
        page = _Page(_page_size(request.page_size), _filter(request.stream_prefix, request.types))
        if request.backwards:
            return await self._read_backwards(request, page)
        position = max(_position(request.from_position, least=0), await self._since(request), 1)
        scan = _scan(request, page)
        for _ in range(_MAX_SCANS):
            entries = await self._store.read_log(position, scan)
            position = page.take(entries) + 1 if entries else position
            if page.full or len(entries) < scan:
                break
        end = position > await self._store.head()
        return service.ReadLogResponse(entries=page.entries, next_position=position, end_of_log=end)

    async def _read_backwards(self, request: service.ReadLogRequest, page: _Page) -> service.ReadLogResponse:
        """A page of the log from a position down."""
        head, since = await self._store.head(), max(await self._since(request), 1)
        position = min(_position(request.from_position, least=0) or head, head)
        scan = _scan(request, page)
        for _ in range(_MAX_SCANS):
            if position < since or page.full:
                break
            entries = await self._store.read_log_backwards(position, min(scan, position - since + 1))
            position = page.take(entries) - 1 if entries else 0
        end = position < since
        return service.ReadLogResponse(entries=page.entries, next_position=0 if end else position, end_of_log=end)

    async def FollowLog(
        self, request: service.FollowLogRequest, context: Context
    ) -> AsyncIterator[service.FollowLogResponse]:
        """The log from a position on, for ever."""
        accept = _filter(request.stream_prefix, request.types)
        position = _position(request.from_position, least=-1)
        position = await self._store.head() + 1 if position < 0 else max(position, await self._since(request), 1)
        while True:
            entries = await self._store.read_log(position, DEFAULT_PAGE)
            if not entries:
                await asyncio.sleep(FOLLOW_POLL_S)
                continue
            page = _Page(DEFAULT_PAGE, accept)
            position = page.take(entries) + 1
            if page.entries:
                yield service.FollowLogResponse(entries=page.entries)

    async def ReadStream(self, request: service.ReadStreamRequest, context: Context) -> service.ReadStreamResponse:
        """Events of one stream."""
        require_text(request.stream_id, field="stream_id", most=500)
        limit = _page_size(request.page_size)
        require_range(request.from_version, field="from_version", least=0, most=1 << 60)
        events = await self._store.read_stream(request.stream_id, max(request.from_version, 1))
        if not events and request.from_version <= 1:
            raise NotFound("stream", request.stream_id, field="stream_id")
        count = _fitting([len(event.data) for event in events], limit)
        entries = await self._entries(events[:count])
        following = events[count].version if len(events) > count else 0
        return service.ReadStreamResponse(entries=entries, next_version=following)

    async def GetEvent(self, request: service.GetEventRequest, context: Context) -> service.GetEventResponse:
        """One event."""
        event = await self._store.find_event(parse_uuid(request.event_id, field="event_id"))
        if event is None:
            raise NotFound("event", request.event_id, field="event_id")
        [entry] = await self._entries([event])
        return service.GetEventResponse(entry=entry)

    async def ListEffects(self, request: service.ListEffectsRequest, context: Context) -> service.ListEffectsResponse:
        """What some events caused directly."""
        require_size(request.event_ids, field="event_ids", least=1, most=MAX_CAUSES)
        causes = [parse_uuid(each, field=f"event_ids[{index}]") for index, each in enumerate(request.event_ids)]
        page = page_of(request, default=DEFAULT_PAGE, most=MAX_PAGE)
        waiting = await self._filling()
        events = await self._store.effects_of(causes, after=int(page.after or 0), limit=page.limit)
        count = _fitting([len(event.data) for event in events], page.limit)
        # The column is an index outside the leaf: what an event says itself decides.
        told = [event for event in events[:count] if event.origin.causation_id in causes]
        more = count < len(events) or count == page.limit
        token = page.token(str(events[count - 1].local_id), count=page.limit) if more else ""
        return service.ListEffectsResponse(entries=await self._entries(told), next_page_token=token, filling=waiting)

    async def GetLogStatus(
        self, request: service.GetLogStatusRequest, context: Context
    ) -> service.GetLogStatusResponse:
        """How far the log has come."""
        relayed = await self._store.database.fetchval("SELECT position FROM relay_state WHERE name = 'kafka'")
        return service.GetLogStatusResponse(
            last_position=await self._store.head(),
            relayed_position=relayed,
            unsequenced_age_s=self._keeper.sequencer.tail_age_s,
            source=self._store.source,
        )

    async def ListConsumers(
        self, request: service.ListConsumersRequest, context: Context
    ) -> service.ListConsumersResponse:
        """Where each consumer of this service stands."""
        found = await list_consumers(self._store.database, self._keeper.log, list(self._consumers))
        return service.ListConsumersResponse(consumers=[consumer_message(each) for each in found])

    async def ListParked(self, request: service.ListParkedRequest, context: Context) -> service.ListParkedResponse:
        """Parked events of this service's consumers."""
        page = page_of(request)
        after: ParkedKey = tuple(json.loads(page.after)) if page.after else ("", "", "", 0)
        parked = await list_parked(self._store.database, page.limit, after=after)
        last = json.dumps(parked[-1].key) if parked else ""
        messages = [
            service.ParkedEvent(
                consumer=each.consumer,
                stream_id=each.event.subject,
                entry=received_message(each.event),
                cause=each.cause,
                attempts=each.attempts,
            )
            for each in parked
        ]
        return service.ListParkedResponse(parked=messages, next_page_token=page.token(last, count=len(parked)))

    async def RedriveParked(
        self, request: service.RedriveParkedRequest, context: Context
    ) -> service.RedriveParkedResponse:
        """Hands a parked stream over again."""
        command_context(request.command_id)
        require_text(request.stream_id, field="stream_id", most=500)
        consumer = self._consumers.get(request.consumer)
        if consumer is None:
            raise NotFound("consumer", request.consumer, field="consumer")
        try:
            done = await consumer.redrive(request.stream_id)
        except Exception as error:
            if isinstance(error, KitError) and error.retryable:
                raise
            _log.warning("redrive_stopped", consumer=request.consumer, stream_id=request.stream_id, exc_info=error)
            raise FailedPrecondition(
                f"an event of {request.stream_id} failed again and stays parked: ListParked says why",
                field="stream_id",
                reason="REDRIVE_STOPPED",
            ) from error
        return service.RedriveParkedResponse(handled=done.handled, still_parked=done.still_parked)

    async def _since(self, request: service.ReadLogRequest | service.FollowLogRequest) -> int:
        """The position where the time begins that a request asks for; 0 when it asks for none."""
        if not request.HasField("from_time"):
            return 0
        return await position_at(self._store, require_time(request.from_time, field="from_time"))

    async def StateAt(self, request: service.StateAtRequest, context: Context) -> service.StateAtResponse:
        """The state of an entity at a moment."""
        require_text(request.stream_id, field="stream_id", most=500)
        position: int | None = None
        if request.HasField("position"):
            require_range(request.position, field="position", least=1, most=1 << 60)
            position = request.position
        elif request.HasField("time"):
            position = await self._history.position_at(require_time(request.time, field="time"))
        found = await self._history.state_at(request.stream_id, position)
        response = service.StateAtResponse(entry=entry_message(found.entry), position=found.position)
        response.state.Pack(found.state, deterministic=True)
        return response

    async def ListStates(self, request: service.ListStatesRequest, context: Context) -> service.ListStatesResponse:
        """The states of an entity after each of some events."""
        require_text(request.stream_id, field="stream_id", most=500)
        require_range(request.from_version, field="from_version", least=0, most=1 << 60)
        require_range(request.to_version, field="to_version", least=0, most=1 << 60)
        limit = _page_size(request.page_size)
        found = await self._history.states(
            request.stream_id, max(request.from_version, 1), request.to_version or None, limit=limit + 1
        )
        response, size = service.ListStatesResponse(), 0
        for each in found:
            if len(response.states) == limit or size >= MAX_ANSWER_BYTES:
                response.next_version = each.entry.event.version
                break
            state = response.states.add(entry=entry_message(each.entry))
            state.state.Pack(each.state, deterministic=True)
            size += state.ByteSize()
        return response

    async def PositionAt(self, request: service.PositionAtRequest, context: Context) -> service.PositionAtResponse:
        """The last position at a time."""
        if not request.HasField("time"):
            raise InvalidArgument("give a time", field="time")
        position = await self._history.position_at(require_time(request.time, field="time"))
        return service.PositionAtResponse(position=position)

    async def _filling(self) -> bool:
        return await filling(self._store.database)

    async def _entries(self, events: Sequence[StoredEvent]) -> list[resources.LogEntry]:
        """Events with their places, where they have any yet."""
        rows = await self._store.database.fetch(_PLACES, [event.local_id for event in events])
        places = {row["local_id"]: row for row in rows}
        messages = [event_message(event, self._store.source) for event in events]
        for event, message in zip(events, messages, strict=True):
            place = places.get(event.local_id)
            if place is not None:
                message.position, message.leaf = place["position"], place["leaf"]
                message.sequenced_at.FromDatetime(place["sequenced_at"])
        return messages


class _Page:
    """Gathers what a filter accepts, up to a number of entries and of bytes."""

    def __init__(self, limit: int, accept: Callable[[LogEntry], bool]) -> None:
        self.limit, self._accept = limit, accept
        self.entries: list[resources.LogEntry] = []
        self._bytes = 0

    @property
    def full(self) -> bool:
        return len(self.entries) >= self.limit or self._bytes >= MAX_ANSWER_BYTES

    def take(self, entries: Sequence[LogEntry]) -> int:
        """Takes entries in order until full; returns the position of the last one looked at, 0 for none."""
        last = 0
        for entry in entries:
            if self.full:
                break
            last = entry.position
            if self._accept(entry):
                self.entries.append(entry_message(entry))
                self._bytes += len(entry.event.data)
        return last


class RemoteLogReader:
    """The log of another service, read over gRPC: where a new or late consumer begins."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = AuditServiceStub(channel)  # Any: one stub class is typed for blocking and awaited calls

    async def read(self, from_position: int, limit: int) -> Sequence[ReceivedEvent]:
        """At most ``limit`` events from a position on. Raises Unavailable."""
        request = service.ReadLogRequest(from_position=from_position, page_size=min(limit, MAX_PAGE))
        try:
            page: service.ReadLogResponse = await self._stub.ReadLog(request)
        except grpc.aio.AioRpcError as error:
            raise Unavailable(f"the owner's log can not be read: {error.code().name}") from error
        return [received_event(entry) for entry in page.entries]


def _filter(prefix: str, types: Sequence[str]) -> Callable[[LogEntry], bool]:
    require_text(prefix, field="stream_prefix", least=0, most=500)
    require_size(types, field="types", most=100)
    wanted = frozenset(types)
    return lambda entry: entry.event.stream_id.startswith(prefix) and (not wanted or entry.event.type in wanted)


def _scan(request: service.ReadLogRequest, page: _Page) -> int:
    """Entries to look at at once: more than are wanted where a filter leaves some out."""
    return _SCAN if request.stream_prefix or request.types else min(_SCAN, page.limit)


def _fitting(sizes: Sequence[int], limit: int) -> int:
    """How many of these, from the first, make an answer."""
    total = 0
    for index, size in enumerate(sizes[:limit]):
        if total >= MAX_ANSWER_BYTES:
            return index
        total += size
    return min(len(sizes), limit)


def _page_size(asked: int) -> int:
    require_range(asked, field="page_size", least=0, most=MAX_PAGE)
    return asked or DEFAULT_PAGE


def _position(asked: int, *, least: int) -> int:
    require_range(asked, field="from_position", least=least, most=1 << 60)
    return asked
