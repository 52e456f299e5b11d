"""Leaf bytes, version 1: what the Merkle tree of a log commits to.

A leaf hash is ``SHA-256(0x00 || leaf bytes)`` (RFC 6962). The leaf bytes are the version byte ``0x01`` and then,
in this order, each field as a 4-byte big-endian length and its bytes::

    source  position  event_id  stream_id  version  type  occurred_at  recorded_at  sequenced_at  hlc  meta  data

Text is UTF-8; numbers are 8-byte big-endian two's complement; times are such numbers of microseconds since the Unix
epoch; the id is its 16 bytes; ``meta`` and ``data`` are the bytes as stored. These bytes never change: another
encoding is another version byte.
"""

from __future__ import annotations

import hashlib
import struct
from datetime import UTC, datetime, timedelta
from uuid import UUID

VERSION = 1

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _number(value: int) -> bytes:
    return struct.pack(">q", value)


def _time(value: datetime) -> bytes:
    return _number((value - _EPOCH) // _MICROSECOND)


def leaf_bytes(
    *,
    source: str,
    position: int,
    event_id: UUID,
    stream_id: str,
    version: int,
    type: str,
    occurred_at: datetime,
    recorded_at: datetime,
    sequenced_at: datetime,
    hlc: int,
    meta: bytes,
    data: bytes,
) -> bytes:
    """The canonical bytes of one log entry; all times timezone-aware."""
    fields = (
        source.encode(),
        _number(position),
        event_id.bytes,
        stream_id.encode(),
        _number(version),
        type.encode(),
        _time(occurred_at),
        _time(recorded_at),
        _time(sequenced_at),
        _number(hlc),
        meta,
        data,
    )
    return bytes([VERSION]) + b"".join(struct.pack(">I", len(each)) + each for each in fields)


def leaf_hash(leaf: bytes) -> bytes:
    """The 32-byte hash of leaf bytes."""
    return hashlib.sha256(b"\x00" + leaf).digest()
