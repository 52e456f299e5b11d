"""What metric points come to: summaries that merge in any grouping to the same result."""

import hashlib
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.tracking.v1.resources_pb2 import MetricSummary

_POINT = struct.Struct("<qqd")


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a metric: ``time_us`` is microseconds since 1970 UTC."""

    key: str
    step: int
    time_us: int
    value: float


def digest(points: Iterable[Point]) -> bytes:
    """SHA-256 over points in order, as ``MetricsRecorded.sha256`` defines it."""
    return hashlib.sha256(encoded(points)).digest()


def encoded(points: Iterable[Point]) -> bytes:
    """The bytes of points that their digest is made of."""
    keys: dict[str, bytes] = {}
    parts: list[bytes] = []
    for point in points:
        key = keys.get(point.key)
        if key is None:
            text = point.key.encode()
            key = keys[point.key] = len(text).to_bytes(4, "little") + text
        parts += (key, _POINT.pack(point.step, point.time_us, point.value))
    return b"".join(parts)


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

    def add(self, batch: int, points: Sequence[Point], summaries: Mapping[str, MetricSummary]) -> None:
        """One more batch, which comes after those before."""
        self.last = batch
        self.batches += 1
        self.count += len(points)
        self._hash.update(encoded(points))
        for key, summary in summaries.items():
            merge(self.summaries.setdefault(key, MetricSummary()), summary)

    @property
    def sha256(self) -> bytes:
        """Digest of the points in order."""
        return self._hash.digest()


def summarise(points: Iterable[Point]) -> dict[str, MetricSummary]:
    """The summary of each key."""
    found: dict[str, _Sum] = {}
    for point in points:
        summed = found.get(point.key)
        if summed is None:
            found[point.key] = _Sum(point)
        else:
            summed.add(point)
    return {key: summed.message() for key, summed in found.items()}


class _Sum:
    """A summary under way: plain numbers, since there may be a hundred thousand points."""

    __slots__ = ("count", "last", "max", "min")

    def __init__(self, point: Point) -> None:
        self.last, self.count, self.min, self.max = point, 0, math.inf, -math.inf
        self.add(point)

    def add(self, point: Point) -> None:
        value = point.value
        self.count += 1
        self.min, self.max = min(self.min, value), max(self.max, value)  # in this order NaN changes neither
        if (point.step, point.time_us) >= (self.last.step, self.last.time_us):
            self.last = point

    def message(self) -> MetricSummary:
        time = Timestamp()
        time.FromMicroseconds(self.last.time_us)
        return MetricSummary(
            last=self.last.value,
            min=self.min,
            max=self.max,
            count=self.count,
            last_step=self.last.step,
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
