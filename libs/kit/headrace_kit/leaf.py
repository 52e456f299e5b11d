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


# What lies between fields of variable length: each fixed field behind its length, and the length of what follows.
_START = struct.Struct(">BI")
_TO_STREAM = struct.Struct(">IqI16sI")
_TO_TYPE = struct.Struct(">IqI")
_TO_META = struct.Struct(">IqIqIqIqI")
_TO_DATA = struct.Struct(">I")


def _time(value: datetime) -> int:
    return (value - _EPOCH) // _MICROSECOND


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
    owner, stream, kind = source.encode(), stream_id.encode(), type.encode()
    times = _time(occurred_at), _time(recorded_at), _time(sequenced_at)
    return b"".join(
        (
            _START.pack(VERSION, len(owner)),
            owner,
            _TO_STREAM.pack(8, position, 16, event_id.bytes, len(stream)),
            stream,
            _TO_TYPE.pack(8, version, len(kind)),
            kind,
            _TO_META.pack(8, times[0], 8, times[1], 8, times[2], 8, hlc, len(meta)),
            meta,
            _TO_DATA.pack(len(data)),
            data,
        )
    )


def leaf_hash(leaf: bytes) -> bytes:
    """The 32-byte hash of leaf bytes."""
    return hashlib.sha256(b"\x00" + leaf).digest()
