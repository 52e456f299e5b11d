"""Archives telemetry: closed ranges of offsets become files in the object store and one event in the log.

The order makes it survive a kill anywhere: the range is chosen and noted; its records are read and written as files
named by their digests; then the event that names them is appended, to a stream of the range's own. Begun again, the
noted range gives the same files and the same command. What Kafka holds is dropped only after that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import structlog

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.monitor.v1.events_pb2 import TelemetryArchived
from headrace.api.monitor.v1.resources_pb2 import ArchivedRange
from headrace.archive.files import verified_records
from headrace.archive.manifest import JSON_TYPE, PARQUET_TYPE, RECORDS, ROWS, Manifest, ManifestFile
from headrace.archive.record import Record, leaf_of
from headrace.kafka.reading import Bounds, TopicReader, delete_records_before
from headrace.merkle import root_over
from headrace_kit import metrics
from headrace_kit.context import CommandContext
from headrace_kit.errors import AlreadyExists
from headrace_kit.eventstore import EventStore
from headrace_kit.lease import Fence
from headrace_kit.log import KafkaSettings
from headrace_kit.objects import ObjectStore
from headrace_monitor.archived import PROJECT, archive_command_id, decide_archived, range_name
from headrace_monitor.archivestore import ARCHIVED_RANGE, ArchiveStore, Plan
from headrace_monitor.sealing import ACTOR

if TYPE_CHECKING:
    from headrace.archive.parquet import Encoded

_log = structlog.get_logger(__name__)
LEASE: Final = "archive"
_READ_BYTES: Final = 8 * 1024 * 1024

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class ArchivePolicy:
    """When a range is closed, and when Kafka may forget.

    Attributes:
        close_after: A range is closed when its first record is as old.
        max_bytes: Values of records in a range, and so what is in memory at once; the record that fills it is the last.
        keep: Archived records stay in Kafka for this long.
    """

    close_after: timedelta
    max_bytes: int
    keep: timedelta


class Archiver:
    """Archives the partitions of the telemetry topics, one range after the other.

    Args:
        store: The monitor's streams.
        archives: Its tables.
        objects: Where files go.
        kafka: How to reach the brokers.
        policy: When.
        clock: This process's clock, timezone-aware.
    """

    def __init__(
        self,
        store: EventStore,
        archives: ArchiveStore,
        objects: ObjectStore,
        *,
        kafka: KafkaSettings,
        policy: ArchivePolicy,
        clock: Clock = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._archives = archives
        self._objects = objects
        self._kafka = kafka
        self._policy = policy
        self._clock = clock
        self._first_times: dict[tuple[str, int], tuple[int, datetime]] = {}

    async def step(self, topic: str, fence: Fence, *, everything: bool = False) -> int:
        """Archives what is due of a topic, and drops what Kafka need not keep; returns how many ranges.

        With ``everything``, what Kafka holds now is due.
        """
        async with TopicReader(self._kafka.bootstrap, topic, options=self._kafka.security_arguments()) as reader:
            bounds = await reader.bounds()
            reached = await self._archives.next_offsets(topic)
            archived = 0
            for partition, bound in bounds.items():
                at = reached.get(partition, bound.first)
                if at > bound.end:
                    _log.error("archive_ahead_of_topic", topic=topic, partition=partition, archived=at, end=bound.end)
                    continue
                while (
                    at < bound.end
                    and bound.first < bound.end
                    and (everything or await self._is_due(reader, partition, at, bound))
                ):
                    at = await self._archive(reader, partition, at, bound, fence)
                    archived += 1
                self._measure(topic, partition, at, bound)
            await self._drop(topic, bounds, fence)
        return archived

    async def _is_due(self, reader: TopicReader, partition: int, at: int, bound: Bounds) -> bool:
        """Whether the first record of a range is old enough for the range to be closed."""
        key = reader.topic, partition
        known = self._first_times.get(key)
        if known is None or known[0] != at:
            start = max(at, bound.first)
            found = await reader.read(partition, offset=start, end=bound.end, max_bytes=1) if start < bound.end else []
            taken = found[0].timestamp_ms / 1000 if found else 0.0
            known = self._first_times[key] = (at, datetime.fromtimestamp(taken, UTC))
        return self._clock() - known[1] >= self._policy.close_after

    async def _archive(self, reader: TopicReader, partition: int, at: int, bound: Bounds, fence: Fence) -> int:
        """Archives the range that begins at an offset; returns the first offset after it."""
        topic = reader.topic
        plan = await self._archives.plan(topic, partition, first_offset=at)
        start = max(at, bound.first)
        if plan is not None and start <= plan.last_offset < bound.end:
            records = await _read_whole(reader, partition, offset=start, end=plan.last_offset + 1)
        else:
            records = await reader.read(partition, offset=start, end=bound.end, max_bytes=self._policy.max_bytes)
            plan = Plan(at, records[-1].offset)
            await self._archives.keep_plan(topic, partition, plan, fence=fence)
        await self._write(topic, partition, plan, records, lost_offsets=start - at)
        return plan.last_offset + 1

    async def _write(
        self, topic: str, partition: int, plan: Plan, records: Sequence[Record], *, lost_offsets: int
    ) -> None:
        began = time.monotonic()
        if lost_offsets:
            _log.error("telemetry_lost", topic=topic, partition=partition, offsets=lost_offsets)
        manifest = await store_range(
            self._objects,
            records,
            Manifest(
                topic=topic,
                partition=partition,
                first_offset=plan.first_offset,
                last_offset=plan.last_offset,
                lost_offsets=lost_offsets,
                records=len(records),
                rows=0,
                root="",
                files=(),
            ),
        )
        reference = await self._objects.put(PROJECT, manifest.encode(), JSON_TYPE)
        event = TelemetryArchived(
            range=range_name(topic, partition, plan.first_offset),
            topic=topic,
            partition=partition,
            first_offset=plan.first_offset,
            last_offset=plan.last_offset,
            lost_offsets=lost_offsets,
            records=manifest.records,
            rows=manifest.rows,
            size_bytes=manifest.size_bytes,
            manifest=reference,
            root=bytes.fromhex(manifest.root),
        )
        event.first_time.FromMilliseconds(records[0].timestamp_ms)
        event.last_time.FromMilliseconds(max(record.timestamp_ms for record in records))
        command_id = archive_command_id(topic, partition, first_offset=plan.first_offset, last_offset=plan.last_offset)
        context = CommandContext(command_id=command_id, actor=ACTOR, now=self._clock())
        try:
            await self._store.execute(
                ARCHIVED_RANGE,
                event.range,
                context=context,
                request=event,
                decide=lambda state: decide_archived(state, event, context),
                respond=lambda state: state,
            )
        except AlreadyExists:
            # Another process, of another version of pyarrow, was first: its files stand.
            _log.info("archived_before", topic=topic, partition=partition, first_offset=plan.first_offset)
            return
        metrics.ARCHIVE_BYTES.labels(topic).inc(manifest.size_bytes)
        _log.info(
            "archived",
            topic=topic,
            partition=partition,
            first_offset=plan.first_offset,
            last_offset=plan.last_offset,
            rows=manifest.rows,
            bytes=manifest.size_bytes,
            seconds=round(time.monotonic() - began, 3),
        )

    async def _drop(self, topic: str, bounds: Mapping[int, Bounds], fence: Fence) -> None:
        """Drops what is archived, counted, and old enough."""
        old = await self._archives.old_enough(topic, before=self._clock() - self._policy.keep)
        counted = await self._archives.counted_offsets(topic)
        wanted = droppable(old, counted, bounds)
        if wanted:
            await self._archives.require(fence)
            await delete_records_before(self._kafka.bootstrap, topic, wanted, options=self._kafka.security_arguments())
            _log.info("dropped", topic=topic, offsets={str(each): offset for each, offset in wanted.items()})

    def _measure(self, topic: str, partition: int, at: int, bound: Bounds) -> None:
        metrics.ARCHIVE_OFFSET.labels(topic, str(partition)).set(at)
        metrics.ARCHIVE_LAG.labels(topic, str(partition)).set(max(bound.end - at, 0))


def droppable(old: Mapping[int, int], counted: Mapping[int, int], bounds: Mapping[int, Bounds]) -> dict[int, int]:
    """Offset below which Kafka may forget, by partition: archived, old, and committed by stage 1."""
    wanted = {each: min(offset, counted.get(each, 0)) for each, offset in old.items() if each in bounds}
    return {each: offset for each, offset in wanted.items() if bounds[each].first < offset <= bounds[each].end}


async def manifest_of(objects: ObjectStore, archived: ArchivedRange) -> Manifest:
    """The manifest of a range as it is now."""
    return Manifest.decode(await objects.get(archived.manifest))


async def records_of(objects: ObjectStore, archived: ArchivedRange, manifest: Manifest) -> list[Record]:
    """The records of a range, verified by its root."""
    data = await objects.get(reference_of(manifest.files[0]))
    return await asyncio.to_thread(verified_records, data, archived)


def reference_of(file: ManifestFile) -> ObjectRef:
    """The reference to a file of a manifest."""
    return ObjectRef(uri=file.uri, sha256=file.sha256, size_bytes=file.size_bytes, media_type=PARQUET_TYPE)


async def store_range(objects: ObjectStore, records: Sequence[Record], manifest: Manifest) -> Manifest:
    """Writes the files of records; returns the manifest with files, rows and root."""
    encoded, root = await asyncio.to_thread(_encode, records)
    files: list[ManifestFile] = []
    for kind, content, about in (
        (RECORDS, encoded.records, None),
        *((ROWS, each.content, each) for each in encoded.rows),
    ):
        reference = await objects.put(PROJECT, content, PARQUET_TYPE)
        files.append(
            ManifestFile(
                kind=kind,
                project=about.project if about else "",
                endpoint=about.endpoint if about else "",
                schema_digest=about.schema_digest if about else "",
                rows=about.rows if about else len(records),
                uri=reference.uri,
                sha256=reference.sha256,
                size_bytes=reference.size_bytes,
            )
        )
    return Manifest(
        topic=manifest.topic,
        partition=manifest.partition,
        first_offset=manifest.first_offset,
        last_offset=manifest.last_offset,
        lost_offsets=manifest.lost_offsets,
        records=len(records),
        rows=encoded.count,
        root=root.hex(),
        files=tuple(files),
    )


async def _read_whole(reader: TopicReader, partition: int, *, offset: int, end: int) -> list[Record]:
    records: list[Record] = []
    while offset < end:
        records += await reader.read(partition, offset=offset, end=end, max_bytes=_READ_BYTES)
        offset = records[-1].offset + 1
    return records


def _encode(records: Sequence[Record]) -> tuple[Encoded, bytes]:
    from headrace.archive.parquet import encode  # noqa: PLC0415 - 30 MiB that an idle service does without

    return encode(records), root_over(map(leaf_of, records))
