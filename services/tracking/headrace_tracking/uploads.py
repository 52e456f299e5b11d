"""Uploads in parts: how large bytes are divided, and which parts are still to come. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

PART_BYTES: Final = 16 * 1024 * 1024
"""Length of a part, while there are not too many."""
MAX_PARTS: Final = 10_000
"""Most parts that S3 knows."""
_STEP: Final = 1024 * 1024


def part_size(size_bytes: int) -> int:
    """Length of every part but the last: whole MiB, the same for the same length of all bytes."""
    needed = -(-size_bytes // MAX_PARTS)
    return max(PART_BYTES, -(-needed // _STEP) * _STEP)


def lengths(size_bytes: int) -> dict[int, int]:
    """Length of each part, by number."""
    size = part_size(size_bytes)
    count = -(-size_bytes // size)
    return {number: min(size, size_bytes - (number - 1) * size) for number in range(1, count + 1)}


def missing(size_bytes: int, held: Mapping[int, int]) -> list[int]:
    """Numbers of the parts that are not there, or not whole."""
    return [number for number, length in lengths(size_bytes).items() if held.get(number) != length]
