"""Stage 1's process: a thin Faust shell over ``counting``.

``python -m headrace_monitor.streams``; the monitor's main process starts it and starts it again. Faust gives topology,
assignment and lifetime; where to start, what was counted and what was lost stand in PostgreSQL. It is a process of its
own so that counting never holds up the monitor's gRPC, sequencer and relay, and so that the watchdog may end it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple

import structlog
from faust.types import TP

from headrace.kafka.client import KafkaSender, first_offset_from, partitions_of
from headrace.kafka.ledger import Kind
from headrace.kafka.shards import LABELS_TOPIC, PREDICTIONS_TOPIC
from headrace_kit.errors import DeadlineExceeded, Unavailable
from headrace_kit.garbage import collect_seldom
from headrace_kit.log import QUARANTINE
from headrace_kit.logs import configure_logs
from headrace_kit.postgres import create_pool
from headrace_kit.service import open_objects
from headrace_kit.settings import load
from headrace_monitor.config import StreamSettings
from headrace_monitor.counting import Counter, Effects, Misplaced, Poison, Record
from headrace_monitor.countstore import CountStore, Fenced, Partition
from headrace_monitor.faustapp import TelemetryApp, telemetry_app
from headrace_monitor.parent import die_with_parent
from headrace_monitor.quarantine import quarantine_notice
from headrace_monitor.retention import Retention
from headrace_monitor.watching import Watching

_log = structlog.get_logger(__name__)

TOPICS: Mapping[Kind, str] = {Kind.PREDICTIONS: PREDICTIONS_TOPIC, Kind.LABELS: LABELS_TOPIC}
CHUNK_RECORDS = 256
CHUNK_BYTES = 16 * 1024 * 1024
GATHER_S = 0.02
LOOK_S = 0.5
STALL_S = 30.0
GIVE_UP_EVERY_S = 3600.0
GIVE_UP_PAUSE_S = 0.2
"""Rest between two chunks of what is given up, in which counting goes on."""


class _Item(NamedTuple):
    """A record and the group generation it was read under."""

    generation: int
    record: Record


class Intake:
    """Records between Faust's agents and the counter: bounded by number and bytes."""

    def __init__(self, *, max_records: int = 2 * CHUNK_RECORDS, max_bytes: int = 2 * CHUNK_BYTES) -> None:
        self._items: deque[_Item] = deque()
        self._bytes = 0
        self._limits = (max_records, max_bytes)
        self._changed = asyncio.Condition()

    def __len__(self) -> int:
        return len(self._items)

    async def put(self, item: _Item) -> None:
        """Waits for room."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._items) < self._limits[0] and self._bytes < self._limits[1])
            self._items.append(item)
            self._bytes += len(item.record.value)
            self._changed.notify_all()

    async def take(self, generation: int) -> list[Record]:
        """A chunk of at least one record; those of other generations of the group are dropped."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._items) > 0)
        if len(self._items) < CHUNK_RECORDS:
            await asyncio.sleep(GATHER_S)  # a fuller chunk costs one transaction all the same
        chunk: list[Record] = []
        size = 0
        async with self._changed:
            while self._items and len(chunk) < CHUNK_RECORDS and size < CHUNK_BYTES:
                item = self._items.popleft()
                self._bytes -= len(item.record.value)
                if item.generation == generation:
                    chunk.append(item.record)
                    size += len(item.record.value)
            self._changed.notify_all()
        return chunk


class Shell:
    """Connects Faust's app with the counter."""

    def __init__(self, settings: StreamSettings, counter: Counter, store: CountStore, retention: Retention) -> None:
        self._settings = settings
        self._counter = counter
        self._store = store
        self._retention = retention
        self._lock = asyncio.Lock()
        self._generation = -1
        self._progress_at = time.monotonic()
        self._lag_seen = 0
        self.intake = Intake()
        self.app: TelemetryApp | None = None

    async def claim(self, earliest: Mapping[Partition, int]) -> Mapping[Partition, int]:
        """Takes over what is assigned now; see ``faustapp.Claim``."""
        async with self._lock:
            self._generation = self.app.consumer_generation_id if self.app else -1
            positions = await self._counter.assign(earliest)
        _log.info("assigned", partitions=len(positions), generation=self._generation)
        return {partition: position.next_offset for partition, position in positions.items()}

    async def take_events(self, stream: Any) -> None:  # noqa: ANN401 - Faust's streams have no usable type
        """An agent: hands each event on."""
        async for event in stream.events():
            message = event.message
            record = Record(
                message.topic, message.partition, message.offset, int(message.timestamp * 1000), message.value or b""
            )
            await self.intake.put(_Item(message.generation_id, record))

    async def count_for_ever(self) -> None:
        """Counts chunk by chunk."""
        while True:
            records = await self.intake.take(self._generation)
            async with self._lock:
                await self._require_no_gap(records)
                try:
                    await self._counter.count(records)
                except Fenced:
                    # A rebalance is under way: what was read is read again by whoever has the partition.
                    _log.warning("fenced")
                    await self._counter.assign({})
            self._progress_at = time.monotonic()

    async def watch_for_ever(self) -> None:
        """Notes which partitions are read to their end; ends the process when there is lag and no progress."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                lag = await self._look()
            except (Unavailable, DeadlineExceeded, TimeoutError) as error:
                _log.warning("looking_delayed", reason=str(error))
                continue
            if lag == 0:
                self._progress_at = time.monotonic()
            elif time.monotonic() - self._progress_at > STALL_S and lag >= self._lag_seen:
                raise RuntimeError(f"no progress for {STALL_S:.0f} s with {lag} records to read")
            self._lag_seen = lag

    async def give_up_for_ever(self) -> None:
        """Gives up on what waited too long, hourly, chunk by chunk between chunks that are counted."""
        while True:
            try:
                async with self._lock:
                    given_up = await self._retention.step()
            except (Unavailable, DeadlineExceeded) as error:
                _log.warning("giving_up_delayed", reason=str(error))
                await asyncio.sleep(LOOK_S)
                continue
            if given_up.predictions or given_up.labels:
                _log.info("given_up", predictions=given_up.predictions, labels=given_up.labels)
            await asyncio.sleep(GIVE_UP_PAUSE_S if given_up.more else GIVE_UP_EVERY_S)

    async def _look(self) -> int:
        positions = dict(self._counter.positions)
        if not positions or self.app is None:
            return 0
        async with asyncio.timeout(STALL_S):
            ends = await self.app.consumer.highwaters(*(TP(*each) for each in positions))
        lags = {
            partition: max((ends.get(TP(*partition)) or 0) - position.next_offset, 0)
            for partition, position in positions.items()
        }
        async with asyncio.timeout(STALL_S):
            await self._store.caught_up(partition for partition, lag in lags.items() if lag == 0)
        return sum(lags.values())

    async def _require_no_gap(self, records: list[Record]) -> None:
        """Offsets may have holes (aborted transactions); a hole where Kafka has a record means Faust lost it."""
        expected = {partition: position.next_offset for partition, position in self._counter.positions.items()}
        for record in records:
            partition = Partition(record.topic, record.partition)
            at = expected.get(partition)
            if at is None:
                continue
            if record.offset > at:
                first = await first_offset_from(
                    self._settings.kafka_bootstrap, record.topic, record.partition, offset=at
                )
                if first < record.offset:
                    raise RuntimeError(f"records {at} to {record.offset - 1} of {partition} were passed over")
            expected[partition] = max(at, record.offset + 1)


async def run(settings: StreamSettings) -> None:
    """Counts until told to stop."""
    database = await create_pool(settings.postgres_dsn.get_secret_value(), max_size=4, application="headrace-streams")
    store = CountStore(database)
    partitions = await partitions_of(settings.kafka_bootstrap, PREDICTIONS_TOPIC)
    if partitions == 0 or partitions != await partitions_of(settings.kafka_bootstrap, LABELS_TOPIC):
        raise RuntimeError("the telemetry topics do not exist, or differ in their partitions")
    sender = KafkaSender(settings.kafka_bootstrap, timeout_s=10.0)
    counter = Counter(
        store,
        Watching(store, open_objects(settings).get),
        Effects(forward=_forwarder(sender), quarantine=_quarantiner(sender)),
        topics=TOPICS,
        partitions=partitions,
    )
    retention = Retention(database, wait=timedelta(days=settings.label_wait_days))
    shell = Shell(settings, counter, store, retention)
    app = telemetry_app(
        "headrace.monitor.telemetry",
        settings.kafka_bootstrap,
        claim=shell.claim,
        instance=settings.stream_instance,
        datadir=str(settings.data / "faust"),
    )
    shell.app = app
    for kind, topic in TOPICS.items():
        source = app.topic(topic, value_type=bytes, value_serializer="raw", key_type=bytes, key_serializer="raw")
        app.agent(source, name=kind.name.lower())(shell.take_events)
    await _run_until_told(app, shell)
    await sender.close()
    await database.close()


async def _run_until_told(app: TelemetryApp, shell: Shell) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await app.start()
    tasks = [
        asyncio.create_task(shell.count_for_ever(), name="count"),
        asyncio.create_task(shell.watch_for_ever(), name="watch"),
        asyncio.create_task(shell.give_up_for_ever(), name="give-up"),
        asyncio.create_task(app.wait_until_stopped(), name="faust"),
    ]
    stopping = asyncio.create_task(stop.wait(), name="stop")
    collect_seldom()
    _log.info("started")
    try:
        done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        if stopping not in done:
            raise RuntimeError("a part of the stream ended")
    finally:
        for task in [stopping, *tasks]:
            task.cancel()
        await asyncio.gather(stopping, *tasks, return_exceptions=True)
        async with asyncio.timeout(10):
            await app.stop()


def _forwarder(sender: KafkaSender) -> Any:  # noqa: ANN401 - Effects says it
    async def forward(batch: Misplaced) -> None:
        await sender.send(TOPICS[batch.kind], shard=batch.shard, value=batch.value)

    return forward


def _quarantiner(sender: KafkaSender) -> Any:  # noqa: ANN401 - Effects says it
    async def quarantine(poison: Poison) -> None:
        _log.warning("quarantined", topic=poison.record.topic, offset=poison.record.offset, reason=poison.reason)
        await sender.send(QUARANTINE, shard=poison.record.partition, value=quarantine_notice(poison))

    return quarantine


def main() -> None:
    """Runs the process to its end; any fault ends it, and its parent starts it again."""
    die_with_parent()
    settings = load(StreamSettings)
    configure_logs("monitor-streams", settings.log_level)
    try:
        asyncio.run(run(settings))
    except Exception:  # noqa: BLE001 - whatever it is ends the process
        _log.exception("failed")
        sys.stderr.flush()
        os._exit(1)  # Faust's threads would hold the process


if __name__ == "__main__":
    main()
