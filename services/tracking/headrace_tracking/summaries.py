"""What metric points come to: summaries that merge in any grouping to the same result."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.tracking.v1.resources_pb2 import MetricSummary
from headrace_tracking.columns import Columns, encoded, size_of


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


@dataclass(slots=True)
class Gathered:
    """Points of one run that came in several batches, without the points.

    Attributes:
        first: The first batch.
        last: The last one.
        batches: How many.
        count: Points in them.
        summaries: What they come to, by key.
    """

    first: int
    last: int = 0
    batches: int = 0
    count: int = 0
    summaries: dict[str, MetricSummary] = field(default_factory=dict[str, MetricSummary])
    _hash: _Hash = field(default_factory=hashlib.sha256)

    def add(self, batch: int, points: Sequence[Columns], summaries: Mapping[str, MetricSummary]) -> None:
        """One more batch, which comes after those before."""
        self.last = batch
        self.batches += 1
        self.count += size_of(points)
        self._hash.update(encoded(points))
        for key, summary in summaries.items():
            merge(self.summaries.setdefault(key, MetricSummary()), summary)

    @property
    def sha256(self) -> bytes:
        """Digest of the points in order."""
        return self._hash.digest()


def summarise(points: Iterable[Columns]) -> dict[str, MetricSummary]:
    """The summary of each key; of points with one step and time the last is the one that came last."""
    return {each.key: _summary(each) for each in points}


def _summary(points: Columns) -> MetricSummary:
    last = max(range(len(points)), key=lambda index: (points.steps[index], points.times_us[index], index))
    numbers = [value for value in points.values if value == value]  # noqa: PLR0124 - NaN is not itself
    time = Timestamp()
    time.FromMicroseconds(points.times_us[last])
    return MetricSummary(
        last=points.values[last],
        min=min(numbers, default=math.inf),
        max=max(numbers, default=-math.inf),
        count=len(points),
        last_step=points.steps[last],
        last_time=time,
    )


def merge(into: MetricSummary, other: MetricSummary) -> None:
    """Adds ``other`` to ``into``; an empty summary (count 0) takes the other's values."""
    if into.count == 0:
        into.CopyFrom(other)
        return
    count = into.count + other.count
    low, high = min(into.min, other.min), max(into.max, other.max)
    if _order(other) >= _order(into):
        into.CopyFrom(other)
    into.count, into.min, into.max = count, low, high


def _order(summary: MetricSummary) -> tuple[int, int]:
    return summary.last_step, summary.last_time.ToMicroseconds()
