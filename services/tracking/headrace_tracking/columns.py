"""Metric points in columns: those of one metric of a run together, each with its place among all of the run's."""

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

ORDINAL_BITS = 17
"""A batch holds fewer than 2^17 points of a run."""
_POINT = struct.Struct("<qqd")


@dataclass(slots=True)
class Columns:
    """Points of one metric, by place.

    Attributes:
        key: The metric.
        places: Where each stands among the points of its run, or of its call; rising.
        steps: Steps.
        times_us: Microseconds since 1970 UTC.
        values: Values.
    """

    key: str
    places: list[int] = field(default_factory=list[int])
    steps: list[int] = field(default_factory=list[int])
    times_us: list[int] = field(default_factory=list[int])
    values: list[float] = field(default_factory=list[float])

    def extend(self, other: "Columns", *, by: int = 0) -> None:
        """Adds points that come after these, their places moved on ``by`` so many."""
        self.places += [by + place for place in other.places] if by else other.places
        self.steps += other.steps
        self.times_us += other.times_us
        self.values += other.values

    def chosen(self, indexes: Sequence[int]) -> "Columns":
        """Some of the points."""
        places, steps, times_us = (
            [column[index] for index in indexes] for column in (self.places, self.steps, self.times_us)
        )
        return Columns(self.key, places, steps, times_us, [self.values[index] for index in indexes])

    def between(self, first: int, last: int) -> "Columns":
        """Those with places from ``first`` to ``last``."""
        return self.chosen([index for index, place in enumerate(self.places) if first <= place <= last])

    def __len__(self) -> int:
        return len(self.places)


def place_of(batch: int, ordinal: int = 0) -> int:
    """The place of a batch's point."""
    return (batch << ORDINAL_BITS) | ordinal


def size_of(points: Iterable[Columns]) -> int:
    """How many points there are."""
    return sum(map(len, points))


def joined(calls: Iterable[Sequence[Columns]]) -> list[Columns]:
    """The points of several calls as those of one, the calls one after the other."""
    found: dict[str, Columns] = {}
    before = 0
    for points in calls:
        for each in points:
            found.setdefault(each.key, Columns(each.key)).extend(each, by=before)
        before += size_of(points)
    return list(found.values())


def digest(points: Sequence[Columns]) -> bytes:
    """SHA-256 over points in the order of their places, as ``MetricsRecorded.sha256`` defines it."""
    return hashlib.sha256(encoded(points)).digest()


def encoded(points: Sequence[Columns]) -> bytes:
    """The bytes of points that their digest is made of."""
    if len(points) == 1:
        return b"".join(_encoded(points[0]))
    parts = list(chain.from_iterable(map(_encoded, points)))
    places = list(chain.from_iterable(each.places for each in points))
    return b"".join([parts[index] for index in sorted(range(len(places)), key=places.__getitem__)])


def _encoded(points: Columns) -> Iterator[bytes]:
    text = points.key.encode()
    head = len(text).to_bytes(4, "little") + text
    for numbers in zip(points.steps, points.times_us, points.values, strict=True):
        yield head + _POINT.pack(*numbers)
