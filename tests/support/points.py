"""Metric points one by one, as tests give and compare them, and what their digest should be."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable

from headrace_tracking.columns import Columns

Point = tuple[str, int, int, float]
"""Key, step, microseconds since 1970 UTC, value."""


def columns_of(points: Iterable[Point]) -> list[Columns]:
    """Points of a call, in their order."""
    found: dict[str, Columns] = {}
    for place, (key, step, time_us, value) in enumerate(points):
        found.setdefault(key, Columns(key)).extend(Columns(key, [place], [step], [time_us], [value]))
    return list(found.values())


def points_of(columns: Iterable[Columns]) -> list[Point]:
    """Points by place."""
    found = [
        (place, (each.key, step, time_us, value))
        for each in columns
        for place, step, time_us, value in zip(each.places, each.steps, each.times_us, each.values, strict=True)
    ]
    return [point for _, point in sorted(found, key=lambda each: each[0])]


def digest_of(points: Iterable[Point]) -> bytes:
    """SHA-256 over points in order, by the words of ``MetricsRecorded.sha256``."""
    hashed = hashlib.sha256()
    for key, step, time_us, value in points:
        text = key.encode()
        hashed.update(struct.pack("<I", len(text)) + text + struct.pack("<qqd", step, time_us, value))
    return hashed.digest()
