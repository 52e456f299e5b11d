"""Stage 1: records in, exact counts in PostgreSQL. Knows no Faust; whoever reads the topics calls ``count``."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import structlog
from google.protobuf.message import DecodeError

from headrace.api.common.v1.telemetry_pb2 import LabelBatch, PredictionBatch
from headrace.kafka import (
    InvalidBatch,
    Labels,
    Predictions,
    decode_labels,
    decode_predictions,
    partition_of,
)
from headrace.kafka.ledger import Kind
from headrace_kit.errors import DeadlineExceeded, Unavailable
from headrace_monitor.countstore import Changes, CountStore, Partition, Position, ProducerKey
from headrace_monitor.joining import Join, JoinCounts, Key, keys_of
from headrace_monitor.slots import SlotCounts, SlotShard, count_errors, count_predictions, predicted_values, slot_starts
from headrace_monitor.watching import Watch, Watching

_log = structlog.get_logger(__name__)
_CACHED_SLOTS = 20_000
_AHEAD_US = 5_000_000
_RETRY_S = 0.2


class Record(NamedTuple):
    """A record of a telemetry topic."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    """When the broker appended it."""
    value: bytes


@dataclass(frozen=True, slots=True)
class Misplaced:
    """A batch on a partition that its shard does not belong to."""

    kind: Kind
    shard: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Poison:
    """A record that cannot be read, and why."""

    record: Record
    reason: str
    field: str


@dataclass(frozen=True, slots=True)
class Effects:
    """What leaves stage 1 beside its tables; each may come twice when a worker dies."""

    forward: Callable[[Misplaced], Awaitable[None]]
    quarantine: Callable[[Poison], Awaitable[None]]


@dataclass(slots=True, eq=False)
class _Batch:
    """A decoded batch on its way."""

    kind: Kind
    head: PredictionBatch | LabelBatch
    body: Predictions | Labels
    broker_us: int
    endpoint_id: int = 0
    version_id: int = 0
    watch: Watch | None = None


class Counter:
    """Counts records of the partitions it was assigned. Belongs to one task.

    Every call of :meth:`count` is one transaction. When its outcome is unknown, what the database says is taken, and
    the rest of the records is counted again; so each record counts once.

    Args:
        store: Stage 1's tables.
        watching: Who is watched, and how.
        effects: Forwarding and quarantine.
        topics: Name of the topic of each kind.
        partitions: How many partitions each topic has.
    """

    def __init__(
        self,
        store: CountStore,
        watching: Watching,
        effects: Effects,
        *,
        topics: Mapping[Kind, str],
        partitions: int,
    ) -> None:
        self._store = store
        self._watching = watching
        self._effects = effects
        self._kinds = {topic: kind for kind, topic in topics.items()}
        self._topics = topics
        self._partitions = partitions
        self._positions: dict[Partition, Position] = {}
        self._warm = False
        self._slots: OrderedDict[SlotShard, SlotCounts] = OrderedDict()
        self._seqs: dict[ProducerKey, int] = {}
        self._label_keys: set[Key] = set()
        self.rows_counted = 0

    @property
    def positions(self) -> Mapping[Partition, Position]:
        """Where each assigned partition stands."""
        return self._positions

    async def assign(self, earliest: Mapping[Partition, int]) -> Mapping[Partition, Position]:
        """Takes over all partitions assigned now, in place of those before; returns where to read on."""
        self._positions = await self._store.claim(earliest) if earliest else {}
        self._forget()
        return self._positions

    async def count(self, records: Sequence[Record]) -> None:
        """Counts records in the order of their partitions; those counted before are passed over.

        Waits while the database is away.

        Raises:
            Fenced: a partition was taken over by another worker.
        """
        while True:
            try:
                await self._attempt(records)
            except (Unavailable, DeadlineExceeded) as error:
                _log.warning("counting_delayed", reason=error.message)
                self._forget()
                await asyncio.sleep(_RETRY_S)
            except BaseException:
                self._forget()
                raise
            else:
                return

    def _forget(self) -> None:
        self._warm = False
        self._slots.clear()
        self._seqs.clear()
        self._label_keys.clear()

    async def _warm_up(self) -> None:
        if self._warm:
            return
        self._positions = await self._store.held(self._positions)
        held = {each.partition for each in self._positions}
        shards = [shard for shard in range(24) if partition_of(shard, self._partitions) in held]
        self._seqs = await self._store.last_seqs(shards)
        self._label_keys = await self._store.label_keys(shards)
        self._warm = True

    async def _attempt(self, records: Sequence[Record]) -> None:
        await self._warm_up()
        await self._watching.refresh()
        changes = Changes()
        batches = await self._read(records, changes)
        if not changes.moved:
            return
        fresh = [batch for batch in batches if self._is_fresh(batch, changes)]
        await self._resolve_layouts(fresh)
        join = await self._begin_join(fresh)
        touched: dict[SlotShard, SlotCounts] = {}
        for batch in fresh:
            await self._apply(batch, join, changes, touched)
        await self._count_met(join, touched)
        changes.slots = await self._merged(touched)
        changes.created, changes.updated = join.created, join.updated
        changes.labels_added = [
            (key, row, shard, value) for (key, row), (shard, value) in sorted(join.labels_added.items())
        ]
        changes.labels_met = sorted(join.labels_met)
        await self._store.commit(changes)
        self._after_commit(changes, join)

    async def _read(self, records: Sequence[Record], changes: Changes) -> list[_Batch]:
        batches: list[_Batch] = []
        for record in records:
            partition = Partition(record.topic, record.partition)
            position = self._positions.get(partition)
            if position is None:
                continue
            before, after = changes.moved.get(partition, (position, position.next_offset))
            if record.offset < after:
                continue
            changes.moved[partition] = (before, record.offset + 1)
            batch = await self._decode(record, changes)
            if batch is not None:
                batches.append(batch)
        return batches

    async def _decode(self, record: Record, changes: Changes) -> _Batch | None:
        kind = self._kinds[record.topic]
        head: PredictionBatch | LabelBatch | None = None
        try:
            if kind is Kind.PREDICTIONS:
                head = PredictionBatch.FromString(record.value)
                body: Predictions | Labels = decode_predictions(head)
            else:
                head = LabelBatch.FromString(record.value)
                body = decode_labels(head)
        except (InvalidBatch, DecodeError, ValueError) as error:
            field = error.field if isinstance(error, InvalidBatch) else ""
            await self._effects.quarantine(Poison(record, str(error), field))
            known = head is not None and head.project and head.endpoint
            endpoint_id = await self._watching.endpoint_id(head.project, head.endpoint) if head and known else 0
            _add(changes, endpoint_id, record.partition, quarantined=1)
            return None
        batch = _Batch(kind, head, body, record.timestamp_ms * 1000)
        batch.endpoint_id = await self._watching.endpoint_id(head.project, head.endpoint)
        if partition_of(head.shard, self._partitions) != record.partition:
            await self._effects.forward(Misplaced(kind, head.shard, record.value))
            _add(changes, batch.endpoint_id, head.shard, batches_forwarded=1)
            return None
        batch.watch = self._watching.watch(batch.endpoint_id)
        return batch

    def _is_fresh(self, batch: _Batch, changes: Changes) -> bool:
        """Drops repeats and counts holes, by the producer's numbers."""
        head = batch.head
        key = ProducerKey(batch.kind, head.shard, head.producer_id, head.epoch)
        last = changes.producers.get(key, self._seqs.get(key, 0))
        if head.seq <= last:
            _add(changes, batch.endpoint_id, head.shard, batches_repeated=1)
            return False
        changes.producers[key] = head.seq
        if head.seq > last + 1:
            _add(changes, batch.endpoint_id, head.shard, batches_lost=head.seq - last - 1)
        return True

    async def _resolve_layouts(self, batches: Sequence[_Batch]) -> None:
        for batch in batches:
            if isinstance(batch.body, Predictions) and batch.watch is not None and len(batch.body.ids):
                batch.version_id = await self._watching.version_id(batch.body.model_version)

    async def _begin_join(self, batches: Sequence[_Batch]) -> Join:
        named: set[Key] = set()
        early: set[Key] = set()
        for batch in batches:
            if batch.watch is None:
                continue
            if isinstance(batch.body, Labels):
                named.update(keys_of(batch.body.ids, batch.endpoint_id))
            elif self._label_keys:
                early.update(self._label_keys.intersection(keys_of(batch.body.ids, batch.endpoint_id)))
        early |= named & self._label_keys
        predictions = await self._store.waiting_predictions(sorted(named)) if named else {}
        labels = await self._store.waiting_labels(sorted(early)) if early else {}
        return Join(predictions, labels)

    async def _apply(self, batch: _Batch, join: Join, changes: Changes, touched: dict[SlotShard, SlotCounts]) -> None:
        if isinstance(batch.body, Predictions):
            await self._apply_predictions(batch, batch.body, join, changes, touched)
        else:
            self._apply_labels(batch, batch.body, join, changes)

    async def _apply_predictions(
        self, batch: _Batch, body: Predictions, join: Join, changes: Changes, touched: dict[SlotShard, SlotCounts]
    ) -> None:
        rows = body.rows
        _add(changes, batch.endpoint_id, body.shard, predictions=rows)
        self.rows_counted += rows
        if not len(body.ids):
            return
        _progress(changes, batch, int(body.times_us.max()))
        watch = batch.watch
        if watch is None:
            return
        layout = await self._watching.layout(watch, body.model_version, batch.version_id)
        predicted = predicted_values(body, watch.prediction_column)
        for start, counts in count_predictions(body, predicted, layout, slot_us=watch.slot_us).items():
            _put(touched, SlotShard(batch.endpoint_id, start, batch.version_id, body.shard), counts)
        met = JoinCounts()
        join.add_predictions(
            body,
            predicted,
            endpoint_id=batch.endpoint_id,
            version_id=batch.version_id,
            starts=slot_starts(body.times_us, watch.slot_us),
            counts=met,
        )
        _add_joined(changes, batch, met)

    def _apply_labels(self, batch: _Batch, body: Labels, join: Join, changes: Changes) -> None:
        if not len(body.rows):
            return
        _progress(changes, batch, int(body.times_us.max()))
        if batch.watch is None:
            _add(changes, batch.endpoint_id, body.shard, labels_unwatched=len(body.rows))
            return
        if body.values.dictionary is None:
            values = body.values.values.astype(np.float64, copy=False)
        else:
            values = np.full(len(body.rows), np.nan)
        counts = JoinCounts()
        join.add_labels(body, values, endpoint_id=batch.endpoint_id, counts=counts)
        _add_joined(changes, batch, counts)

    async def _count_met(self, join: Join, touched: dict[SlotShard, SlotCounts]) -> None:
        """Errors of the labels that met their predictions, into the slots of the predictions."""
        for key, met in join.met.items():
            watch = self._watching.watch(key.endpoint_id)
            if watch is None:
                continue
            layout = await self._watching.layout_by_id(watch, key.version_id)
            counts = count_errors(np.array(met.predicted), np.array(met.values), layout, task=watch.task)
            _put(touched, SlotShard(key.endpoint_id, key.start_us, key.version_id, key.shard), counts)

    async def _merged(self, touched: Mapping[SlotShard, SlotCounts]) -> dict[SlotShard, SlotCounts]:
        """What is stored of the slots, and what was counted now."""
        unknown = [key for key in touched if key not in self._slots]
        stored = await self._store.slots(unknown) if unknown else {}
        whole: dict[SlotShard, SlotCounts] = {}
        for key, counts in touched.items():
            before = self._slots.get(key) or stored.get(key)
            if before is None:
                whole[key] = counts
            else:
                counts.add(before)
                whole[key] = counts
        return whole

    def _after_commit(self, changes: Changes, join: Join) -> None:
        for partition, (before, after) in changes.moved.items():
            self._positions[partition] = Position(after, before.generation)
        self._seqs.update(changes.producers)
        self._label_keys.difference_update(join.labels_met)
        self._label_keys.update(key for key, _, _, _ in changes.labels_added)
        for key, counts in changes.slots.items():
            self._slots[key] = counts
            self._slots.move_to_end(key)
        while len(self._slots) > _CACHED_SLOTS:
            self._slots.popitem(last=False)


def _put(touched: dict[SlotShard, SlotCounts], key: SlotShard, counts: SlotCounts) -> None:
    before = touched.get(key)
    if before is None:
        touched[key] = counts
    else:
        before.add(counts)


def _add(changes: Changes, endpoint_id: int, shard: int, **added: int) -> None:
    counts = changes.counts.setdefault((endpoint_id, shard), {})
    for name, number in added.items():
        counts[name] = counts.get(name, 0) + number


def _add_joined(changes: Changes, batch: _Batch, counts: JoinCounts) -> None:
    _add(
        changes,
        batch.endpoint_id,
        batch.head.shard,
        labels_joined=counts.joined,
        labels_waiting=counts.waiting,
        labels_repeated=counts.repeated,
        labels_refused=counts.refused,
    )


def _progress(changes: Changes, batch: _Batch, time_us: int) -> None:
    """One record from the future does not close every slot: times count up to a little after the broker's."""
    key = (batch.endpoint_id, int(batch.kind), batch.head.shard)
    seen = min(time_us, batch.broker_us + _AHEAD_US)
    changes.progress[key] = max(seen, changes.progress.get(key, seen))
