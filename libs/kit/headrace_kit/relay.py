"""The relay: publishes the log to Kafka, in order, at least once.

It sends what follows its mark, waits for every acknowledgement, and marks. A relay that dies in between publishes the
same contiguous suffix again, in order; consumers drop what is not above their high-water mark. No batch of a
partition is sent before the one ahead of it is acknowledged, so a failure never leaves a hole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import structlog

from headrace.api.audit.v1.resources_pb2 import EventMeta
from headrace_kit import metrics
from headrace_kit.cloudevents import stored_headers
from headrace_kit.dataref import MAX_INLINE_BYTES, DataRefs
from headrace_kit.errors import Deposed, FailedPrecondition
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.lease import Fence, check_fence
from headrace_kit.log import Log, LogProducer, LogUnavailable, OutgoingRecord, events_topic, partition_of
from headrace_kit.postgres import Record
from headrace_kit.wakeup import WakeUp

_log = structlog.get_logger(__name__)

BATCH = 1000
IDLE_POLL_S = 0.2
MAX_BACKOFF_S = 5.0

_MARK = "UPDATE relay_state SET position = $2 WHERE name = 'kafka' AND position = $1"
_MARKED = "SELECT position FROM relay_state WHERE name = 'kafka'"


class Relay:
    """Publishes one service's log to ``headrace.<service>.events.v1``, keyed by stream.

    Args:
        store: Whose log.
        log: Where to; a new client is opened after each failure.
        data_refs: Where events over 256 KiB go.
        wake: Rung by the sequencer.

    Attributes:
        position: Last position known to be published.
        backlog: Sequenced events not yet published, as of the last look.
        failures: How often the broker failed it.
    """

    def __init__(
        self,
        store: PostgresEventStore,
        log: Log,
        *,
        data_refs: DataRefs | None = None,
        wake: WakeUp | None = None,
        batch: int = BATCH,
    ) -> None:
        self.position = 0
        self.backlog = 0
        self.failures = 0
        self.topic = events_topic(store.source)
        self._store = store
        self._log = log
        self._data_refs = data_refs
        self._wake = wake or WakeUp()
        self._batch = batch

    async def run(self, fence: Fence) -> None:
        """Publishes until cancelled; while the broker is away it tries again, with a pause of up to 5 s.

        Raises:
            Deposed: the epoch is over.
            ConnectionLost: the database is away.
        """
        backoff = 0.1
        while True:
            try:
                producer = await self._log.open_producer()
                try:
                    backoff = 0.1
                    await self._pump(producer, fence)
                finally:
                    with suppress(LogUnavailable):
                        await producer.close()
            except LogUnavailable as error:
                self.failures += 1
                _log.warning("relay_waits", topic=self.topic, backlog=await self._measure(), cause=str(error))
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, MAX_BACKOFF_S)

    async def _pump(self, producer: LogProducer, fence: Fence) -> None:
        while True:
            if not await self.step(producer, fence):
                await self._wake.wait(IDLE_POLL_S)

    async def step(self, producer: LogProducer, fence: Fence) -> int:
        """Publishes one batch and marks it; returns how far the mark moved.

        Raises:
            LogUnavailable: the broker failed; the mark stays.
            Deposed: the epoch is over; the mark stays.
            FailedPrecondition: an event is over 256 KiB and there is no place for it.
        """
        before = int(await self._store.database.fetchval(_MARKED))
        entries = await self._store.read_log_rows(before + 1, self._batch)
        if not entries:
            self.position, self.backlog = before, 0
            return 0
        acknowledged = await self._publish(producer, entries)
        if acknowledged > before:
            await self._mark(fence, before, acknowledged)
        self.backlog = entries[-1]["position"] - acknowledged
        if len(entries) == self._batch:
            await self._measure()
        return acknowledged - before

    async def _publish(self, producer: LogProducer, entries: Sequence[Record]) -> int:
        """Sends entries; returns the position up to which all of them are acknowledged."""
        partitions = await producer.partitions(self.topic)
        lanes: dict[int, list[tuple[int, OutgoingRecord]]] = {}
        for entry in entries:
            key = entry["stream_id"].encode()
            lane = lanes.setdefault(partition_of(key, partitions), [])
            record = self._record(key, entry) or await self._referring(key, entry)
            lane.append((entry["position"], record))
        taken = await producer.append(self.topic, {lane: [each for _, each in lanes[lane]] for lane in lanes})
        left = [lanes[lane][taken[lane]][0] for lane in lanes if taken[lane] < len(lanes[lane])]
        return min(left) - 1 if left else int(entries[-1]["position"])

    def _record(self, key: bytes, entry: Record) -> OutgoingRecord | None:
        """The record of an entry, or None when its value is too large to lie in it."""
        if entry["type"] not in self._store.types:
            metrics.EVENTS_UNKNOWN.labels(self._store.source, "type").inc()
        data = entry["data"]
        if len(data) > MAX_INLINE_BYTES:
            return None
        return OutgoingRecord(key, data, self._headers(entry, EventMeta.FromString(entry["meta"])))

    async def _referring(self, key: bytes, entry: Record) -> OutgoingRecord:
        meta, data = EventMeta.FromString(entry["meta"]), entry["data"]
        if self._data_refs is None:
            raise FailedPrecondition(
                f"event {entry['event_id']} has {len(data)} bytes, and the relay has no place for large values",
                reason="NO_DATA_REFS",
            )
        reference = await self._data_refs.put(meta.project, data)
        return OutgoingRecord(key, b"", self._headers(entry, meta, dataref=reference))

    def _headers(self, entry: Record, meta: EventMeta, *, dataref: str = "") -> list[tuple[str, bytes]]:
        return stored_headers(
            event_id=entry["event_id"],
            type=entry["type"],
            source=self._store.source,
            stream_id=entry["stream_id"],
            occurred_at=entry["occurred_at"],
            version=entry["version"],
            position=entry["position"],
            hlc=entry["hlc"],
            meta=meta,
            dataref=dataref,
        )

    async def _mark(self, fence: Fence, before: int, after: int) -> None:
        async with self._store.database.transaction() as connection:
            await check_fence(connection, fence)
            if not await connection.execute(_MARK, before, after):
                raise Deposed(f"the mark of {self.topic} was moved by another process")
        self.position = after

    async def _measure(self) -> int:
        self.backlog = await self._store.head() - int(await self._store.database.fetchval(_MARKED))
        return self.backlog
