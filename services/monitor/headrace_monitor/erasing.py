"""Erases predictions and their labels: from the archive, from what waits in stage 1, and from Kafka.

First all that Kafka holds is archived, so that there is one place to look. Then every range that holds what is meant is
written anew without it, and an ``ArchiveRewritten`` names both roots. Then Kafka drops what the rewritten ranges had,
and the files they had are deleted. Every step may be repeated: a range without what is meant is left alone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import structlog

from headrace.api.monitor.v1.events_pb2 import ArchiveRewritten
from headrace.api.monitor.v1.resources_pb2 import ArchivedRange
from headrace.archive.decoding import is_labels
from headrace.archive.manifest import JSON_TYPE
from headrace.archive.record import Record
from headrace.errors import HeadraceError
from headrace.kafka.errors import TelemetryError
from headrace.kafka.reading import TopicReader, delete_records_before
from headrace_kit.context import CommandContext
from headrace_kit.errors import Deposed, KitError
from headrace_kit.eventstore import EventStore
from headrace_kit.lease import Fence
from headrace_kit.log import KafkaSettings
from headrace_kit.objects import ObjectStore
from headrace_monitor.archived import PROJECT, decide_rewritten, rewrite_command_id
from headrace_monitor.archivestore import ARCHIVED_RANGE, ArchiveStore
from headrace_monitor.archiving import Archiver, manifest_of, records_of, reference_of, store_range
from headrace_monitor.erasurestore import Ends, Erased, ErasureStore, Pending
from headrace_monitor.joining import key_of
from headrace_monitor.sealing import ACTOR
from headrace_monitor.selection import Cut, Selection, cut_labels, cut_predictions

_log = structlog.get_logger(__name__)
REASON: Final = "erasure"
_PAGE: Final = 100
_RETRY_S: Final = 2.0

Clock = Callable[[], datetime]
CutRecords = Callable[[Sequence[Record]], Cut]


async def keep_archive(
    archiver: Archiver, eraser: Eraser, fence: Fence, *, topics: Sequence[str], every_s: float
) -> None:
    """Archives, drops and erases until cancelled, through outages of Kafka and the object store.

    What can not be done, such as an erasure in a range whose file is damaged, is tried again, and the log says why.

    Raises:
        Deposed: another process archives.
    """
    while True:
        began = time.monotonic()
        try:
            for topic in topics:
                await archiver.step(topic, fence)
            await eraser.step(fence)
        except Deposed:
            raise
        except (KitError, HeadraceError, TelemetryError) as error:
            level = logging.WARNING if error.retryable else logging.ERROR
            _log.log(level, "archiving_delayed", reason=error.reason, cause=str(error))
            await asyncio.sleep(_RETRY_S)
        await asyncio.sleep(max(every_s - (time.monotonic() - began), 0.05))


class Eraser:
    """Works on erasures, one after the other; belongs to the process that archives.

    Args:
        store: The monitor's streams.
        archives: The tables of the archive.
        erasures: The tables of erasures.
        objects: Where files are.
        archiver: Archives what Kafka holds.
        kafka: How to reach the brokers.
        topics: The topics of telemetry, that of predictions first.
        clock: This process's clock, timezone-aware.
    """

    def __init__(
        self,
        store: EventStore,
        archives: ArchiveStore,
        erasures: ErasureStore,
        objects: ObjectStore,
        archiver: Archiver,
        *,
        kafka: KafkaSettings,
        topics: Sequence[str],
        clock: Clock = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._archives = archives
        self._erasures = erasures
        self._objects = objects
        self._archiver = archiver
        self._kafka = kafka
        self._topics = topics
        self._clock = clock

    async def step(self, fence: Fence) -> None:
        """Does what can be done of every erasure that is not done.

        Raises:
            Deposed: another process archives.
        """
        for each in await self._erasures.pending():
            await self._erase(each, fence)

    async def _erase(self, erasure: Pending, fence: Fence) -> None:
        ends = await self._ends(erasure)
        if not await self._is_counted(ends):
            return  # the next look goes on
        for topic in self._topics:
            await self._archiver.step(topic, fence, everything=True)
        selection = selection_of(erasure)
        for topic in self._topics:
            keys = await self._erasures.predictions(erasure.id) if is_labels(topic) else frozenset()
            cut: CutRecords = _labels_cut(keys) if is_labels(topic) else _predictions_cut(selection)
            async for archived in self._ranges(topic, ends):
                await self._archives.require(fence)
                await self._rewrite(erasure, archived, cut)
        await self._forget_waiting(erasure)
        touched, erased = await self._result(erasure, ends)
        await self._drop(touched)
        await self._sweep()
        await self._erasures.finish(erasure.id, erased)
        _log.info("erased", erasure=str(erasure.id), ranges=erased.ranges, predictions=erased.predictions)

    async def _ends(self, erasure: Pending) -> Ends:
        if erasure.ends is not None:
            return erasure.ends
        ends: Ends = {}
        for topic in self._topics:
            async with TopicReader(self._kafka.bootstrap, topic, options=self._kafka.security_arguments()) as reader:
                ends[topic] = {each: bound.end for each, bound in (await reader.bounds()).items()}
        await self._erasures.fix_ends(erasure.id, ends)
        return ends

    async def _ranges(self, topic: str, ends: Ends) -> AsyncIterator[ArchivedRange]:
        for partition, end in sorted(ends[topic].items()):
            after = -1
            while found := await self._archives.ranges(
                topic, partition, from_offset=0, after_offset=after, limit=_PAGE
            ):
                for each in found:
                    if each.first_offset < end:
                        yield each
                after = found[-1].first_offset

    async def _rewrite(self, erasure: Pending, archived: ArchivedRange, cut: CutRecords) -> None:
        """Rewrites a range when it holds what is meant."""
        before = await manifest_of(self._objects, archived)
        records = await records_of(self._objects, archived, before)
        found = await asyncio.to_thread(cut, records)
        if not found.changed:
            return
        if found.predictions:
            await self._erasures.keep_predictions(erasure.id, found.predictions)
        await self._erasures.keep_files(archived.name, [archived.manifest, *map(reference_of, before.files)])
        after = await store_range(self._objects, found.records, before)
        event = ArchiveRewritten(
            range=archived.name,
            topic=archived.topic,
            partition=archived.partition,
            first_offset=archived.first_offset,
            last_offset=archived.last_offset,
            old_root=archived.root,
            new_root=bytes.fromhex(after.root),
            reason=REASON,
            person=erasure.person,
            erasure=str(erasure.id),
            records_changed=found.changed,
            rows_erased=found.rows,
            rows=after.rows,
            size_bytes=after.size_bytes,
            manifest=await self._objects.put(PROJECT, after.encode(), JSON_TYPE),
        )
        context = CommandContext(
            command_id=rewrite_command_id(str(erasure.id), archived.name),
            actor=ACTOR,
            now=self._clock(),
            on_behalf_of=erasure.asked_by,
        )
        await self._store.execute(
            ARCHIVED_RANGE,
            archived.name,
            context=context,
            request=event,
            decide=lambda state: decide_rewritten(state, event, context),
            respond=lambda state: state,
        )
        _log.info("rewritten", range=archived.name, records=found.changed, rows=found.rows, erasure=str(erasure.id))

    async def _forget_waiting(self, erasure: Pending) -> None:
        keys = await self._erasures.predictions(erasure.id)
        if keys:
            await self._erasures.forget_waiting([(project, endpoint, key_of(id_)) for project, endpoint, id_ in keys])

    async def _result(self, erasure: Pending, ends: Ends) -> tuple[dict[str, dict[int, int]], Erased]:
        """What was rewritten for an erasure, now or before a restart: ends by topic and partition, and counts."""
        touched: dict[str, dict[int, int]] = {topic: {} for topic in self._topics}
        ranges, rows = 0, dict.fromkeys(self._topics, 0)
        for topic in self._topics:
            async for archived in self._ranges(topic, ends):
                mine = [each for each in archived.rewrites if each.erasure == str(erasure.id)]
                if mine:
                    ranges += 1
                    rows[topic] += sum(each.rows_erased for each in mine)
                    touched[topic][archived.partition] = archived.last_offset + 1
        predictions = sum(count for topic, count in rows.items() if not is_labels(topic))
        return touched, Erased(ranges, predictions, sum(rows.values()) - predictions)

    async def _is_counted(self, ends: Ends) -> bool:
        """Whether stage 1 has read so far: what it has not read is not dropped from Kafka."""
        for topic, offsets in ends.items():
            counted = await self._archives.counted_offsets(topic)
            if any(counted.get(each, 0) < end for each, end in offsets.items()):
                return False
        return True

    async def _drop(self, touched: Mapping[str, Mapping[int, int]]) -> None:
        """Drops from Kafka up to the ends of rewritten ranges."""
        for topic, offsets in touched.items():
            async with TopicReader(self._kafka.bootstrap, topic, options=self._kafka.security_arguments()) as reader:
                bounds = await reader.bounds()
            held = {each: offset for each, offset in offsets.items() if bounds[each].first < offset}
            if held:
                await delete_records_before(
                    self._kafka.bootstrap, topic, held, options=self._kafka.security_arguments()
                )

    async def _sweep(self) -> None:
        """Deletes the files that rewritten ranges had and have no more."""
        named: dict[str, frozenset[str]] = {}
        for range_, reference in await self._erasures.replaced_files():
            if range_ not in named:
                named[range_] = await self._named(range_)
            if reference.uri not in named[range_]:
                await self._objects.delete(reference)
            await self._erasures.forget_file(range_, reference.uri)

    async def _named(self, range_: str) -> frozenset[str]:
        loaded = await self._store.load(ARCHIVED_RANGE, range_)
        if loaded is None:
            return frozenset()
        manifest = await manifest_of(self._objects, loaded[0])
        return frozenset({loaded[0].manifest.uri, *(file.uri for file in manifest.files)})


def selection_of(erasure: Pending) -> Selection:
    """What an erasure means."""
    request = erasure.request
    return Selection(
        person=request.person,
        project=request.project,
        endpoint=request.endpoint,
        where=tuple((each.column, each.value) for each in request.where),
        ids=frozenset(request.prediction_ids),
    )


def _predictions_cut(selection: Selection) -> CutRecords:
    return lambda records: cut_predictions(records, selection)


def _labels_cut(keys: frozenset[tuple[str, str, str]]) -> CutRecords:
    return lambda records: cut_labels(records, keys)
