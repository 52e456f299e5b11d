"""Leaf bytes, many at once, as columns: decision 0003 says what they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from headrace.errors import InternalError

Numbers: TypeAlias = NDArray[np.int64]
_FIELDS: Final = 12
_FIXED: Final = {1: 8, 2: 16, 4: 8, 6: 8, 7: 8, 8: 8, 9: 8}
"""Fields of fixed length, by their place, in bytes."""
_VERSION: Final = 1


class LeafColumns(NamedTuple):
    """Each field of n entries.

    Attributes:
        source: UTF-8.
        position: (n,).
        event_id: (n, 16) bytes.
        stream_id: UTF-8.
        version: (n,).
        type: UTF-8.
        occurred_at: (n,), microseconds since the epoch.
        recorded_at: Likewise.
        sequenced_at: Likewise.
        hlc: (n,).
        meta: Encoded ``EventMeta``.
        data: The event's bytes.
    """

    source: Sequence[bytes]
    position: Numbers
    event_id: NDArray[np.uint8]
    stream_id: Sequence[bytes]
    version: Numbers
    type: Sequence[bytes]
    occurred_at: Numbers
    recorded_at: Numbers
    sequenced_at: Numbers
    hlc: Numbers
    meta: Sequence[bytes]
    data: Sequence[bytes]


def columns_of(leaves: Sequence[bytes]) -> LeafColumns:
    """The fields of these leaf bytes.

    Raises:
        InternalError: one of them is not of version 1, or has not its fields.
    """
    blob = b"".join(leaves)
    raw = np.frombuffer(blob, np.uint8)
    lengths = np.array([len(each) for each in leaves], np.int64)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    _require(bool(lengths.all()) and bool((raw[starts] == _VERSION).all()))
    at = starts + 1
    bounds: list[tuple[Numbers, Numbers]] = []
    for number in range(_FIELDS):
        _require(bool((at + 4 <= ends).all()))
        first = at + 4
        at = first + _gathered(raw, at, 4).view(">u4").ravel().astype(np.int64)
        _require(bool((at <= ends).all()))
        _require(number not in _FIXED or bool((at - first == _FIXED[number]).all()))
        bounds.append((first, at))
    _require(bool((at == ends).all()))

    def text(number: int) -> list[bytes]:
        first, last = bounds[number]
        return [blob[low:high] for low, high in zip(first.tolist(), last.tolist(), strict=True)]

    def value(number: int) -> Numbers:
        return _gathered(raw, bounds[number][0], 8).view(">i8").ravel().astype(np.int64)

    return LeafColumns(
        source=text(0),
        position=value(1),
        event_id=_gathered(raw, bounds[2][0], 16),
        stream_id=text(3),
        version=value(4),
        type=text(5),
        occurred_at=value(6),
        recorded_at=value(7),
        sequenced_at=value(8),
        hlc=value(9),
        meta=text(10),
        data=text(11),
    )


def _gathered(raw: NDArray[np.uint8], starts: Numbers, width: int) -> NDArray[np.uint8]:
    """(n, width): the bytes from each start on."""
    found: NDArray[np.uint8] = raw[starts[:, np.newaxis] + np.arange(width)]
    return found


def _require(condition: bool) -> None:  # noqa: FBT001 - what must hold
    if not condition:
        raise InternalError("the log gave leaf bytes that have not the fields of an entry", reason="LEAF_BYTES")
