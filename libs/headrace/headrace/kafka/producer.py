"""Sends predictions and labels to Kafka: batched by shard, numbered, bounded, and honest about what it dropped.

producer = TelemetryProducer(bootstrap, ledger_path=folder / "telemetry.ledger")
prediction_id = producer.put(prediction)          # never waits; a full queue drops and counts
prediction_id = await producer.send(prediction)   # returns when Kafka has it
await producer.stop()                             # drains
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from aiokafka.errors import KafkaError

from headrace.api.common.v1 import telemetry_pb2
from headrace.kafka.batches import MAX_BATCH_ROWS, Labels, Predictions, encode_labels, encode_predictions
from headrace.kafka.client import KafkaSender, TooLarge
from headrace.kafka.columns import ColumnData
from headrace.kafka.errors import InvalidBatch, TelemetryQueueFull, TelemetryUnsent
from headrace.kafka.ledger import Kind, Ledger
from headrace.kafka.parts import empty_labels, empty_predictions, merge_labels, merge_predictions, size_of
from headrace.kafka.shards import LABELS_TOPIC, PREDICTIONS_TOPIC, SHARDS, new_id, shard_of

Ready = telemetry_pb2.PredictionBatch | telemetry_pb2.LabelBatch

_BACKOFF_S = (0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class ProducerConfig:
    """Limits of a producer."""

    linger_s: float = 0.02
    """Longest time a batch waits to be filled."""
    batch_rows: int = 4096
    """Rows at which a batch is full."""
    batch_bytes: int = 512 * 1024
    """Bytes of values at which a batch is full."""
    queue_rows: int = 400_000
    """Rows not yet acknowledged, above which more are dropped."""
    queue_bytes: int = 128 * 1024 * 1024
    """Bytes not yet acknowledged, above which more are dropped."""
    timeout_s: float = 10.0
    """Time for one attempt to send."""


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The answer to one request: columns of ``(n,)`` rows, inputs and outputs."""

    project: str
    endpoint: str
    model_version: str
    time_us: int
    """Event time, microseconds since 1970 UTC."""
    columns: Sequence[ColumnData]
    id: str = ""
    """The client's own id, unique within (project, endpoint); empty to have one made."""


@dataclass(slots=True)
class ProducerCounts:
    """Rows by what became of them; ``offered`` is the sum of the others and of those on their way."""

    offered: int = 0
    acknowledged: int = 0
    dropped: int = 0
    """Not taken, because the queue was full."""
    failed: int = 0
    """Taken, and not acknowledged before the end; or refused by Kafka."""


@dataclass(slots=True, eq=False)
class _Filling:
    """A batch that is being filled."""

    kind: Kind
    shard: int
    parts: list[Predictions] | list[Labels]
    rows: int = 0
    size_bytes: int = 0
    waiters: list[asyncio.Future[None]] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None


@dataclass(slots=True, eq=False)
class _Outgoing:
    """A batch that waits for its turn: filled here, or made by an application (``ready``)."""

    kind: Kind
    shard: int
    rows: int
    size_bytes: int
    parts: list[Predictions] | list[Labels]
    ready: Ready | None
    waiters: list[asyncio.Future[None]]


class TelemetryProducer:
    """Fills batches and sends them in order, one record in flight per shard.

    Delivery: what :meth:`send` and its kin returned from is in Kafka, acknowledged by all replicas. Repeats after an
    unknown outcome carry the same number, by which consumers drop them. Kafka may be down: the queue fills, then drops
    are counted. Belongs to the event loop it is first used in; not thread-safe.

    Args:
        bootstrap: Kafka's addresses.
        ledger_path: File that keeps the producer's id and numbers over restarts; None for a new producer each time.
        config: Limits.
        client_options: Further settings of aiokafka, such as SASL and TLS.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        ledger_path: Path | None = None,
        config: ProducerConfig | None = None,
        client_options: Mapping[str, Any] | None = None,
        topics: Mapping[Kind, str] | None = None,
    ) -> None:
        self.config = config or ProducerConfig()
        self.counts = ProducerCounts()
        self._ledger = Ledger(ledger_path)
        self._sender = KafkaSender(bootstrap, timeout_s=self.config.timeout_s, options=client_options)
        self._topics = topics or {Kind.PREDICTIONS: PREDICTIONS_TOPIC, Kind.LABELS: LABELS_TOPIC}
        self._filling: dict[tuple[object, ...], _Filling] = {}
        self._next_shard: dict[tuple[object, ...], int] = defaultdict(lambda: hash(self._ledger.producer_id) % SHARDS)
        self._queues: dict[tuple[Kind, int], deque[_Outgoing]] = defaultdict(deque)
        self._workers: dict[tuple[Kind, int], asyncio.Task[None]] = {}
        self._rows = 0
        self._bytes = 0
        self._stopped = False

    @property
    def producer_id(self) -> str:
        """Id under which this producer numbers its batches."""
        return self._ledger.producer_id

    @property
    def pending_rows(self) -> int:
        """Rows taken and not yet acknowledged."""
        return self._rows

    def put(self, prediction: Prediction) -> str:
        """Takes a prediction without waiting and returns its id; when the queue is full it is dropped and counted."""
        part = self._place(prediction)
        if self._has_room(part.rows, size_of(part)):
            self._fill(Kind.PREDICTIONS, part)
        return part.ids[0]

    async def send(self, prediction: Prediction) -> str:
        """Returns the prediction's id when Kafka has it.

        Raises:
            InvalidBatch: the columns differ in length, or are too many rows.
            TelemetryQueueFull: the queue is full.
            TelemetryUnsent: not acknowledged within twice the time-out.
        """
        part = self._place(prediction)
        self._require_room(part.rows, size_of(part))
        await self._acknowledged([self._fill(Kind.PREDICTIONS, part, wait=True)])
        return part.ids[0]

    def put_labels(self, labels: Sequence[Labels]) -> None:
        """Takes labels (of ``group_labels``) without waiting; dropped and counted when the queue is full."""
        for part in labels:
            if self._has_room(len(part.rows), size_of(part)):
                self._fill(Kind.LABELS, part)

    async def send_labels(self, labels: Sequence[Labels]) -> None:
        """Returns when Kafka has the labels.

        Raises:
            TelemetryQueueFull, TelemetryUnsent: as for :meth:`send`.
        """
        self._require_room(sum(len(part.rows) for part in labels), sum(size_of(part) for part in labels))
        await self._acknowledged([self._fill(Kind.LABELS, part, wait=True) for part in labels])

    async def send_batches(self, batches: Sequence[Ready]) -> None:
        """Sends batches that an application made, in order, and returns when Kafka has them all.

        They keep their own (producer, epoch, seq); the caller has decoded, and so checked, them.

        Raises:
            TelemetryQueueFull, TelemetryUnsent: as for :meth:`send`.
        """
        loop = asyncio.get_running_loop()
        outgoing: list[_Outgoing] = []
        for batch in batches:
            kind = Kind.PREDICTIONS if isinstance(batch, telemetry_pb2.PredictionBatch) else Kind.LABELS
            rows = int(np.frombuffer(batch.row_counts, dtype="<u4").sum())
            outgoing.append(_Outgoing(kind, batch.shard, rows, batch.ByteSize(), [], batch, [loop.create_future()]))
        self._require_room(sum(each.rows for each in outgoing), sum(each.size_bytes for each in outgoing))
        for each in outgoing:
            self._rows += each.rows
            self._bytes += each.size_bytes
            self._enqueue(each)
        await self._acknowledged([waiter for each in outgoing for waiter in each.waiters])

    async def flush(self) -> None:
        """Returns when everything taken so far was acknowledged or given up."""
        for key in list(self._filling):
            self._close(key)
        while any(self._queues.values()) or self._workers:
            await asyncio.wait(list(self._workers.values()))

    async def stop(self, *, drain_s: float = 10.0) -> None:
        """Sends what is left, for at most ``drain_s``; what remains then is counted as failed."""
        self._stopped = True
        try:
            async with asyncio.timeout(drain_s):
                await self.flush()
        except TimeoutError:
            await self._abandon()
        finally:
            await self._sender.close()
            self._ledger.close()

    async def _abandon(self) -> None:
        workers = list(self._workers.values())
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        for queue in self._queues.values():
            while queue:
                self._finish(queue.popleft(), TelemetryUnsent("the producer stopped before Kafka answered"))

    def _place(self, prediction: Prediction) -> Predictions:
        rows = len(prediction.columns[0].values) if prediction.columns else 0
        if not 1 <= rows <= MAX_BATCH_ROWS or any(len(each.values) != rows for each in prediction.columns):
            raise InvalidBatch(f"columns have one length, 1 to {MAX_BATCH_ROWS}", field="columns")
        shard = shard_of(prediction.id) if prediction.id else self._next_shard[self._stream_of(prediction)]
        return Predictions(
            project=prediction.project,
            endpoint=prediction.endpoint,
            model_version=prediction.model_version,
            shard=shard,
            ids=[prediction.id or new_id(shard)],
            row_counts=np.array([rows], dtype="<u4"),
            times_us=np.array([prediction.time_us], dtype="<i8"),
            columns=prediction.columns,
        )

    @staticmethod
    def _stream_of(part: Prediction | Predictions | Labels) -> tuple[object, ...]:
        if isinstance(part, Labels):
            return (part.project, part.endpoint, part.values.datatype)
        schema = tuple((each.name, each.role, each.datatype) for each in part.columns)
        return (part.project, part.endpoint, part.model_version, schema)

    def _has_room(self, rows: int, size_bytes: int) -> bool:
        self.counts.offered += rows
        full = self._rows + rows > self.config.queue_rows or self._bytes + size_bytes > self.config.queue_bytes
        if full or self._stopped:
            self.counts.dropped += rows
            return False
        return True

    def _require_room(self, rows: int, size_bytes: int) -> None:
        if not self._has_room(rows, size_bytes):
            raise TelemetryQueueFull("the producer's queue is full")

    def _fill(self, kind: Kind, part: Predictions | Labels, *, wait: bool = False) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        stream = self._stream_of(part)
        key = (kind, stream, part.shard)
        rows, size = part.row_counts.sum(), size_of(part)
        filling = self._filling.get(key)
        if filling is not None and filling.rows + rows > MAX_BATCH_ROWS:
            self._close(key)
            filling = None
        if filling is None:
            filling = self._filling[key] = _Filling(kind, part.shard, [])
            filling.timer = loop.call_later(self.config.linger_s, self._close, key)
        filling.parts.append(part)  # type: ignore[arg-type]  # a filling holds one kind
        filling.rows += int(rows)
        filling.size_bytes += size
        self._rows += int(rows)
        self._bytes += size
        future = loop.create_future()
        if wait:
            filling.waiters.append(future)
        if filling.rows >= self.config.batch_rows or filling.size_bytes >= self.config.batch_bytes:
            self._close(key)
        return future

    def _close(self, key: tuple[object, ...]) -> None:
        filling = self._filling.pop(key, None)
        if filling is None:
            return
        if filling.timer is not None:
            filling.timer.cancel()
        if filling.kind is Kind.PREDICTIONS:
            self._next_shard[self._stream_of(filling.parts[0])] = (filling.shard + 1) % SHARDS
        self._enqueue(
            _Outgoing(
                filling.kind, filling.shard, filling.rows, filling.size_bytes, filling.parts, None, filling.waiters
            )
        )

    def _enqueue(self, outgoing: _Outgoing) -> None:
        key = (outgoing.kind, outgoing.shard)
        self._queues[key].append(outgoing)
        if key not in self._workers:
            self._workers[key] = asyncio.create_task(self._work(key), name=f"telemetry-{key[0].name}-{key[1]}")

    async def _work(self, key: tuple[Kind, int]) -> None:
        queue = self._queues[key]
        try:
            while queue:
                await self._deliver(queue[0])
                queue.popleft()
        finally:
            del self._workers[key]

    async def _deliver(self, outgoing: _Outgoing) -> None:
        kind, shard = outgoing.kind, outgoing.shard
        if outgoing.ready is not None:
            failure = await self._persist(kind, shard, outgoing.ready.SerializeToString)
        else:
            await self._tell_tail(outgoing)
            seq = self._ledger.hand_out(kind, shard)
            failure = await self._persist(kind, shard, lambda: self._encoded(outgoing, seq=seq))
            if failure is None:
                self._ledger.acknowledge(kind, shard, seq)
        self._finish(outgoing, failure)

    async def _tell_tail(self, outgoing: _Outgoing) -> None:
        """Ends an earlier epoch with an empty batch, so that consumers count what never arrived."""
        tail = self._ledger.tail(outgoing.kind, outgoing.shard)
        if tail is None:
            return
        await self._persist(
            outgoing.kind, outgoing.shard, lambda: self._encoded(outgoing, epoch=tail.epoch, seq=tail.seq + 1)
        )
        self._ledger.finish_tail(outgoing.kind, outgoing.shard)

    def _encoded(self, outgoing: _Outgoing, *, seq: int, epoch: int = 0) -> bytes:
        numbers: dict[str, Any] = {"producer_id": self.producer_id, "epoch": epoch or self._ledger.epoch, "seq": seq}
        first = outgoing.parts[0]
        if isinstance(first, Labels):
            labels = [part for part in outgoing.parts if isinstance(part, Labels)]
            return encode_labels(empty_labels(first) if epoch else merge_labels(labels), **numbers).SerializeToString()
        parts = [part for part in outgoing.parts if isinstance(part, Predictions)]
        merged = empty_predictions(first) if epoch else merge_predictions(parts)
        return encode_predictions(merged, **numbers).SerializeToString()

    async def _persist(self, kind: Kind, shard: int, encode: Callable[[], bytes]) -> Exception | None:
        """Sends until acknowledged; None, or why it can never be."""
        try:
            value = encode()
        except ValueError as error:  # text that is no UTF-8
            return error
        attempt = 0
        while True:
            try:
                await self._sender.send(self._topics[kind], shard=shard, value=value)
            except TooLarge as error:
                return error
            except (KafkaError, TimeoutError, OSError):
                await asyncio.sleep(_BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)])
                attempt += 1
            else:
                return None

    def _finish(self, outgoing: _Outgoing, failure: Exception | None) -> None:
        self._rows -= outgoing.rows
        self._bytes -= outgoing.size_bytes
        if failure is None:
            self.counts.acknowledged += outgoing.rows
        else:
            self.counts.failed += outgoing.rows
        for waiter in outgoing.waiters:
            if waiter.done():
                continue
            if failure is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(TelemetryUnsent(str(failure)))

    async def _acknowledged(self, futures: Sequence[asyncio.Future[None]]) -> None:
        if not futures:
            return
        done, waiting = await asyncio.wait(futures, timeout=2 * self.config.timeout_s)
        for future in done:
            future.result()
        if waiting:
            for future in waiting:
                future.cancel()
            raise TelemetryUnsent("Kafka did not acknowledge in time; the batches go on being sent")
