"""What metric points come to: summaries that merge in any grouping to the same result."""

import hashlib
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass

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
    hashed = hashlib.sha256()
    for point in points:
        key = point.key.encode()
        hashed.update(len(key).to_bytes(4, "little") + key + _POINT.pack(point.step, point.time_us, point.value))
    return hashed.digest()


def summarise(points: Iterable[Point]) -> dict[str, MetricSummary]:
    """The summary of each key."""
    result: dict[str, MetricSummary] = {}
    for point in points:
        time = Timestamp()
        time.FromMicroseconds(point.time_us)
        number = not math.isnan(point.value)
        one = MetricSummary(
            last=point.value,
            min=point.value if number else math.inf,
            max=point.value if number else -math.inf,
            count=1,
            last_step=point.step,
            last_time=time,
        )
        merge(result.setdefault(point.key, MetricSummary()), one)
    return result


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
