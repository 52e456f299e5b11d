"""The last requests that a version answered on an endpoint, from the telemetry of predictions and its archive."""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from headrace.api.common.v1.telemetry_pb2 import PredictionBatch
from headrace.archive.reading import Archive, read_stream
from headrace.archive.record import Record
from headrace.kafka.batches import Predictions, decode_predictions
from headrace.kafka.columns import ColumnData
from headrace.kafka.reading import TopicReader

WINDOW: Final = 256
"""Records of a partition that are read back at first; each time twice as many, up to ``MOST_WINDOW``."""
MOST_WINDOW: Final = 8192


@dataclass(frozen=True, slots=True, eq=False)
class LoggedBatch:
    """Requests of one record that are to be answered again.

    Attributes:
        partition: Where the record lies.
        offset: Its place there.
        sha256: Of its value, 64 hex digits.
        predictions: All its requests.
        places: Which of them, ascending.
    """

    partition: int
    offset: int
    sha256: str
    predictions: Predictions
    places: Sequence[int]

    @property
    def ids(self) -> list[str]:
        """Their prediction ids."""
        return [self.predictions.ids[each] for each in self.places]

    def columns(self, places: Sequence[int]) -> tuple[list[ColumnData], int]:
        """The columns of some of the requests, in their order, and how many rows these have."""
        counts = self.predictions.row_counts.astype(np.int64)
        ends = np.cumsum(counts)
        rows = np.concatenate([np.arange(ends[each] - counts[each], ends[each]) for each in places])
        return [each.take(rows) for each in self.predictions.columns], len(rows)


@dataclass(slots=True)
class _Lane:
    """How far back a partition was read."""

    partition: int
    at: int
    floor: int
    window: int = WINDOW
    oldest_ms: float = math.inf


@dataclass(slots=True)
class _Found:
    """What was found so far: the times of the newest requests, and every one by its id."""

    most: int
    newest_ms: list[int] = field(default_factory=list[int])
    requests: dict[str, tuple[int, int, int, int]] = field(default_factory=dict[str, tuple[int, int, int, int]])
    records: dict[tuple[int, int], tuple[str, Predictions]] = field(
        default_factory=dict[tuple[int, int], tuple[str, Predictions]]
    )

    def take(self, record: Record, predictions: Predictions) -> None:
        """Keeps the requests of a record; a repeat of one changes nothing."""
        for place, identity in enumerate(predictions.ids):
            if identity not in self.requests:
                self.requests[identity] = (record.timestamp_ms, record.partition, record.offset, place)
                heapq.heappush(self.newest_ms, record.timestamp_ms)
                if len(self.newest_ms) > self.most:
                    heapq.heappop(self.newest_ms)
        sha256 = hashlib.sha256(record.value or b"").hexdigest()
        self.records[record.partition, record.offset] = (sha256, predictions)

    def newer_than(self, time_ms: float) -> bool:
        """Whether as many as are wanted are newer."""
        return len(self.newest_ms) >= self.most and self.newest_ms[0] > time_ms

    def batches(self) -> Iterator[LoggedBatch]:
        """The newest requests, by partition and offset."""
        chosen: dict[tuple[int, int], list[int]] = {}
        for _, partition, offset, place in heapq.nlargest(self.most, self.requests.values()):
            chosen.setdefault((partition, offset), []).append(place)
        for (partition, offset), places in sorted(chosen.items()):
            sha256, predictions = self.records[partition, offset]
            yield LoggedBatch(partition, offset, sha256, predictions, sorted(places))


async def last_requests(
    archive: Archive, reader: TopicReader, *, endpoint: str, version: str, most: int
) -> list[LoggedBatch]:
    """The newest requests of an endpoint that a version answered, by the time that Kafka took them.

    Partitions are read back from their ends, always the one that was read back least, until no unread record can hold a
    newer request than those found. Memory holds the records that were read and have any.

    Args:
        archive: Where archived ranges are.
        reader: Of the topic of predictions, entered already.
        endpoint: Resource name.
        version: Resource name.
        most: Requests wanted; fewer come where the log has no more.

    Raises:
        TelemetryError: Kafka does not answer.
        HeadraceError: The archive does not.
    """
    found, lanes = _Found(most), await _lanes(archive, reader)
    while unread := [each for each in lanes if each.at > each.floor]:
        lane = max(unread, key=lambda each: each.oldest_ms)
        if found.newer_than(lane.oldest_ms):
            break
        start = max(lane.floor, lane.at - lane.window)
        async for records in read_stream(archive, reader, lane.partition, offset=start, end=lane.at):
            for record in records:
                lane.oldest_ms = min(lane.oldest_ms, record.timestamp_ms)
                predictions = _wanted(record, endpoint, version)
                if predictions is not None:
                    found.take(record, predictions)
        lane.at, lane.window = start, min(2 * lane.window, MOST_WINDOW)
    return list(found.batches())


def digest_of(batches: Sequence[LoggedBatch]) -> str:
    """``Replay.digest`` of requests."""
    digest = hashlib.sha256()
    for batch in batches:
        for each in batch.ids:
            digest.update(f"{batch.partition} {batch.offset} {each} {batch.sha256}\n".encode())
    return digest.hexdigest()


async def _lanes(archive: Archive, reader: TopicReader) -> list[_Lane]:
    lanes: list[_Lane] = []
    for partition, bounds in (await reader.bounds()).items():
        ranges = await archive.ranges(reader.topic, partition, from_offset=0)
        floor = min([bounds.first, *(each.first_offset for each in ranges[:1])])
        lanes.append(_Lane(partition, at=bounds.end, floor=floor))
    return lanes


def _wanted(record: Record, endpoint: str, version: str) -> Predictions | None:
    batch = PredictionBatch.FromString(record.value or b"")
    if f"projects/{batch.project}/endpoints/{batch.endpoint}" != endpoint or batch.model_version != version:
        return None
    return decode_predictions(batch)
