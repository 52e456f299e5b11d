"""The last requests of a version are the newest, whatever lies between them and wherever."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.api.common.v1.telemetry_pb2 import PredictionBatch
from headrace.api.monitor.v1.resources_pb2 import ArchivedRange
from headrace.archive.record import Record
from headrace.kafka.batches import Predictions, encode_predictions
from headrace.kafka.columns import ColumnData
from headrace.kafka.reading import Bounds, TopicReader
from headrace.kafka.shards import new_id
from headrace_serving.logged import digest_of, last_requests

ENDPOINT, VERSION = "projects/p/endpoints/e", "projects/p/models/m/versions/1"


class Partitions(TopicReader):
    """Partitions in memory; the first records of each may be in the archive alone."""

    def __init__(self, records: Sequence[Sequence[Record]], archived: int) -> None:
        super().__init__("nowhere", "t")
        self.records, self.archived, self.read_records = records, archived, 0

    def split(self, partition: int) -> int:
        return min(self.archived, len(self.records[partition]))

    async def bounds(self) -> dict[int, Bounds]:
        return {each: Bounds(self.split(each), len(lane)) for each, lane in enumerate(self.records)}

    async def read(self, partition: int, *, offset: int, end: int, max_bytes: int) -> list[Record]:
        assert offset >= self.split(partition)
        self.read_records += end - offset
        return list(self.records[partition][offset:end])

    async def ranges(self, topic: str, partition: int, *, from_offset: int) -> Sequence[ArchivedRange]:
        end = self.split(partition)
        return (
            [ArchivedRange(name=str(partition), partition=partition, last_offset=end - 1)] if from_offset < end else []
        )

    async def archive(self, archived: ArchivedRange) -> list[Record]:
        return list(self.records[archived.partition][: archived.last_offset + 1])


class Archived:
    """Its archive."""

    def __init__(self, of: Partitions) -> None:
        self.ranges, self.records = of.ranges, of.archive


def record(partition: int, offset: int, time_ms: int, ids: Sequence[str], *, ours: bool = True) -> Record:
    batch = Predictions(
        project="p",
        endpoint="e",
        model_version=VERSION if ours else "projects/p/models/m/versions/2",
        shard=0,
        ids=ids,
        row_counts=np.ones(len(ids), np.uint32),
        times_us=np.zeros(len(ids), np.int64),
        columns=[ColumnData.of("x", np.arange(len(ids), dtype=np.float64))],
    )
    value = encode_predictions(batch, producer_id="a", epoch=1, seq=offset + 1).SerializeToString()
    return Record("t", partition, offset, time_ms, None, value)


@st.composite
def lanes(draw: st.DrawFn) -> list[list[Record]]:
    """Partitions whose times never fall, with requests of others between ours, and repeats."""
    found: list[list[Record]] = []
    for partition in range(draw(st.integers(1, 4))):
        time_ms, lane = 0, list[Record]()
        for offset in range(draw(st.integers(0, 40))):
            time_ms += draw(st.integers(0, 5))
            ids = [new_id(0) for _ in range(draw(st.integers(1, 3)))]
            lane.append(record(partition, offset, time_ms, ids, ours=draw(st.booleans())))
        found.append(lane)
    return found


@given(lanes=lanes(), most=st.integers(1, 60), archived=st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_the_newest_are_found(lanes: list[list[Record]], most: int, archived: int) -> None:
    reader = Partitions(lanes, archived)
    found = asyncio.run(last_requests(Archived(reader), reader, endpoint=ENDPOINT, version=VERSION, most=most))

    times = {(each.partition, each.offset): each.timestamp_ms for lane in lanes for each in lane}
    batches = [(each.timestamp_ms, PredictionBatch.FromString(each.value or b"")) for lane in lanes for each in lane]
    ours = [time_ms for time_ms, batch in batches if batch.model_version == VERSION for _ in batch.ids]
    newest = sorted(ours, reverse=True)[:most]
    assert sorted((times[each.partition, each.offset] for each in found for _ in each.ids), reverse=True) == newest
    assert len({each for batch in found for each in batch.ids}) == len(newest)


def test_no_more_is_read_than_is_needed_and_a_repeat_counts_once() -> None:
    same = new_id(0)
    lanes = [
        [record(lane, offset, offset, [same if offset > 4998 else new_id(0)]) for offset in range(5000)]
        for lane in range(2)
    ]
    reader = Partitions(lanes, 0)
    found = asyncio.run(last_requests(Archived(reader), reader, endpoint=ENDPOINT, version=VERSION, most=10))

    assert reader.read_records < 2000
    assert sum(len(each.ids) for each in found) == 10
    assert [each for batch in found for each in batch.ids].count(same) == 1
    assert digest_of(found) != digest_of(found[1:])
