"""The consumer: joins a group, claims partitions, and keeps going whatever its client does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import structlog
from google.protobuf.message import Message

from headrace_kit.cloudevents import MalformedEvent, ReceivedEvent, from_headers, to_headers
from headrace_kit.consumer.delivery import Delivery, Handler, HandlerDelivery, ProjectionDelivery, ProjectionHandler
from headrace_kit.consumer.lane import Counters, Lane, TryLater, cause_of
from headrace_kit.consumer.offsets import Arrival, Offsets, PartitionLost
from headrace_kit.consumer.parking import Parking
from headrace_kit.consumer.reading import LogReader
from headrace_kit.consumer.redriving import Redriven, redrive
from headrace_kit.consumer.watchdog import Watchdog
from headrace_kit.dataref import MAX_INLINE_BYTES, DataRefs
from headrace_kit.errors import KitError
from headrace_kit.log import (
    QUARANTINE,
    Log,
    LogConsumer,
    LogRecord,
    LogUnavailable,
    OutgoingRecord,
    TopicPartition,
    partition_of,
    source_of,
)
from headrace_kit.postgres import Database
from headrace_kit.upcasting import PLATFORM, Upcasters

_log = structlog.get_logger(__name__)

POLL_S = 0.25
POLL_DEADLINE_S = 30.0
MAX_RECORDS = 200
PAGE = 500
MAX_HEADER_BYTES = 4096
"""A longer header of a record is left out of the notice of its quarantine."""


class _BaseConsumer:
    """What ``Consumer`` and ``ProjectionConsumer`` share.

    Args:
        name: The group, and the identity under which offsets are kept; stable for ever.
        topics: ``headrace.<service>.events.v1`` topics.
        database: Where offsets, marks and parked streams lie: the consuming service's own.
        log: The cluster.
        readers: Log source (``headrace/registry``) -> its owner's log. A source without one is begun at what Kafka
            still keeps, and a stream with a hole in it is parked.
        data_refs: Where values over 256 KiB lie.
        stall_s: Without progress for this long while there is something to read, the client is made anew.

    Attributes:
        counters: What was done so far.
    """

    def __init__(
        self,
        name: str,
        topics: Collection[str],
        delivery: Delivery,
        database: Database,
        log: Log,
        *,
        readers: Mapping[str, LogReader] | None = None,
        data_refs: DataRefs | None = None,
        stall_s: float = 15.0,
    ) -> None:
        self.name = name
        self.topics = tuple(topics)
        self.counters = Counters()
        self._delivery = delivery
        self._database = database
        self._log = log
        self._readers = readers or {}
        self._data_refs = data_refs
        self._offsets = Offsets(database, name)
        self._parking = Parking(database, name)
        self._watchdog = Watchdog(self._offsets, stall_s)
        self._lanes: dict[TopicPartition, Lane] = {}
        self._waiting: dict[TopicPartition, float] = {}
        self._rebalances = -1

    @property
    def lag(self) -> int:
        """Records not yet dealt with on this member's partitions, as of the watchdog's last look."""
        return self._watchdog.lag

    async def run(self) -> None:
        """Consumes until cancelled, through outages of broker and database."""
        backoff = 0.1
        while True:
            try:
                client = await self._log.open_consumer(self.topics, group=self.name)
                try:
                    self._rebalances = -1
                    while not await self._watchdog.stalled(client, self.topics, self._waiting):
                        await self.step(client)
                        backoff = 0.1
                    self.counters.recreated += 1
                    _log.error("consumer_stalled", consumer=self.name)
                finally:
                    with suppress(LogUnavailable):
                        await client.close()
            except KitError as error:
                if not error.retryable:
                    raise
                _log.warning("consumer_waits", consumer=self.name, cause=cause_of(error))
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, 5.0)

    async def step(self, client: LogConsumer, *, timeout_s: float = POLL_S) -> int:
        """Claims what was assigned, polls once and deals with what came; returns how many records came.

        Raises:
            LogUnavailable: the client is broken.
            ConnectionLost: the database went away.
        """
        await self._claim(client)
        try:
            async with asyncio.timeout(POLL_DEADLINE_S):
                found = await client.poll(list(self._lanes), timeout_s=timeout_s, max_records=MAX_RECORDS)
        except TimeoutError as error:
            raise LogUnavailable(f"a poll took more than {POLL_DEADLINE_S} s") from error
        for partition, records in found.items():
            if partition in self._lanes:
                await self._guard(partition, self._take(client, partition, records))
        if found or self._waiting:
            self._watchdog.progress()
        return sum(len(records) for records in found.values())

    async def redrive(self, stream_id: str) -> Redriven:
        """Hands a parked stream to its handlers again, in order, and lets it flow when all went well.

        Raises:
            Exception: what the handler raised; that event and those after it stay parked.
        """
        return await redrive(self._parking, self._delivery, stream_id)

    async def _claim(self, client: LogConsumer) -> None:
        if client.rebalances != self._rebalances:
            self._rebalances = client.rebalances
            self._lanes.clear()
        now = asyncio.get_running_loop().time()
        assigned = client.assignment
        self._waiting = {key: until for key, until in self._waiting.items() if until > now and key in assigned}
        for partition in sorted(assigned):
            if partition not in self._lanes and partition not in self._waiting:
                await self._guard(partition, self._begin(client, partition))

    async def _guard(self, partition: TopicPartition, work: Awaitable[None]) -> None:
        """Awaits work on a partition; what stops it there lets the others go on."""
        delay: float
        try:
            await work
            return
        except TryLater as later:
            delay = later.delay_s
        except PartitionLost as lost:
            _log.warning("partition_lost", consumer=self.name, partition=partition, cause=str(lost))
            delay = 0.5
        self._lanes.pop(partition, None)
        self._waiting[partition] = asyncio.get_running_loop().time() + delay

    async def _begin(self, client: LogConsumer, partition: TopicPartition) -> None:
        """Claims a partition and goes to where it was left; a new or late one first reads the owner's log."""
        source = source_of(partition.topic)
        claim = await self._offsets.claim(partition, source)
        reader = self._readers.get(source)
        lane = Lane(
            claim,
            parked=await self._parking.streams(source),
            database=self._database,
            offsets=self._offsets,
            parking=self._parking,
            delivery=self._delivery,
            reader=reader,
            counters=self.counters,
            notice=self._notify,
        )
        first, end = (await client.bounds([partition]))[partition]
        if claim.next_offset is None or claim.next_offset < first:
            if reader is None:
                await lane.move(first)
            else:
                await self._catch_up(lane, reader, await client.partitions(partition.topic))
                await lane.move(max(first, end))
        client.seek(partition, lane.claim.next_offset or 0)
        self._lanes[partition] = lane

    async def _catch_up(self, lane: Lane, reader: LogReader, partitions: int) -> None:
        """Takes this partition's events from the owner's log.

        Everything published before the bounds were asked for lies in that log by now, so Kafka continues from there.
        """
        position = lane.claim.position + 1
        while True:
            try:
                page = await reader.read(position, PAGE)
            except KitError as error:
                raise TryLater(cause_of(error), 1.0) from error
            if not page:
                return
            position = page[-1].position + 1
            mine = lane.claim.partition.partition
            ours = [each for each in page if partition_of(each.subject.encode(), partitions) == mine]
            await lane.take(Arrival(each, None) for each in ours)
            self._watchdog.progress()

    async def _take(self, client: LogConsumer, partition: TopicPartition, records: Sequence[LogRecord]) -> None:
        lane = self._lanes[partition]
        expected = lane.claim.next_offset or 0
        if records[0].offset > expected and (await client.bounds([partition]))[partition][0] > expected:
            _log.warning("offset_gap", consumer=self.name, partition=partition, expected=expected)
            raise TryLater("records expired before they were read", 0.0)
        arrivals = [each async for each in self._arrivals(partition, records)]
        await lane.take(arrivals)
        last = records[-1].offset + 1
        if (lane.claim.next_offset or 0) < last:
            await lane.move(last)

    async def _arrivals(self, partition: TopicPartition, records: Iterable[LogRecord]) -> AsyncIterator[Arrival]:
        for record in records:
            try:
                yield Arrival(await self._event(partition, record), record.offset + 1)
            except MalformedEvent as error:
                self.counters.malformed += 1
                _log.error("record_malformed", partition=partition, offset=record.offset, cause=cause_of(error))
                await self._quarantine(record.key, record.value, record.headers, cause_of(error))

    async def _event(self, partition: TopicPartition, record: LogRecord) -> ReceivedEvent:
        event, reference = from_headers(record.headers, record.value)
        if event.source != source_of(partition.topic):
            raise MalformedEvent(f"{event.source} does not own {partition.topic}", field="ce_source")
        if not reference:
            return event
        if self._data_refs is None:
            raise TryLater(f"event {event.id} lies in the object store, which this consumer does not know", 5.0)
        try:
            return replace(event, data=await self._data_refs.get(reference))
        except KitError as error:
            raise TryLater(cause_of(error), 1.0) from error

    async def _notify(self, event: ReceivedEvent, cause: str) -> None:
        await self._quarantine(event.subject.encode(), event.data, tuple(to_headers(event)), cause)

    async def _quarantine(
        self, key: bytes | None, value: bytes, headers: Iterable[tuple[str, bytes]], cause: str
    ) -> None:
        """Tells the quarantine topic: a notice for people, so a broker that is away only costs the notice.

        What is too long for a notice is cut, and its size told; the whole lies in the topic it came from.
        """
        notice = (
            *(each for each in headers if len(each[1]) <= MAX_HEADER_BYTES),
            ("headrace-consumer", self.name.encode()),
            ("headrace-cause", cause.encode()),
            ("headrace-size", str(len(value)).encode()),
        )
        try:
            producer = await self._log.open_producer()
            try:
                lane = partition_of(key or b"", await producer.partitions(QUARANTINE))
                await producer.append(QUARANTINE, {lane: [OutgoingRecord(key, value[:MAX_INLINE_BYTES], notice)]})
            finally:
                await producer.close()
        except LogUnavailable as error:
            _log.warning("quarantine_notice_lost", consumer=self.name, cause=cause_of(error))


class Consumer(_BaseConsumer):
    """Answers events of other services' logs by handlers, each at least once, in order of stream.

    Handlers run one at a time; a handler's effects are commands of ``CommandContext.caused_by``, so that a redelivery
    has none. A handler that raises a retryable error holds its partition until it goes through; any other KitError
    parks the stream at once, any other exception after three attempts.
    """

    def __init__(
        self,
        name: str,
        topics: Collection[str],
        handlers: Mapping[type[Message], Handler],
        database: Database,
        log: Log,
        *,
        readers: Mapping[str, LogReader] | None = None,
        data_refs: DataRefs | None = None,
        stall_s: float = 15.0,
        upcasters: Upcasters = PLATFORM,
    ) -> None:
        delivery = HandlerDelivery(handlers, database, upcasters=upcasters)
        super().__init__(name, topics, delivery, database, log, readers=readers, data_refs=data_refs, stall_s=stall_s)


class ProjectionConsumer(_BaseConsumer):
    """Folds events of other services' logs into this database, each exactly once.

    Handlers take ``(event, connection)`` and write by that connection alone: its transaction moves the offset.
    """

    def __init__(
        self,
        name: str,
        topics: Collection[str],
        handlers: Mapping[type[Message], ProjectionHandler],
        database: Database,
        log: Log,
        *,
        readers: Mapping[str, LogReader] | None = None,
        data_refs: DataRefs | None = None,
        stall_s: float = 15.0,
        upcasters: Upcasters = PLATFORM,
    ) -> None:
        delivery = ProjectionDelivery(handlers, database, upcasters=upcasters)
        super().__init__(name, topics, delivery, database, log, readers=readers, data_refs=data_refs, stall_s=stall_s)
