"""A record of a telemetry topic, and its leaf in the Merkle tree over a range of them: see ``headrace.merkle``."""

from __future__ import annotations

import hashlib
import struct
from typing import Final, NamedTuple

_LEAF_VERSION: Final = b"\x01"
_ABSENT: Final = 0xFFFFFFFF


class Record(NamedTuple):
    """A record as it lies in its partition."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    """When the broker appended it, milliseconds since 1970 UTC."""
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


def leaf_of(record: Record) -> bytes:
    """SHA-256 over 0x00, the version 1, and the record: 32 bytes.

    The record's bytes are its topic, partition (4 bytes), offset (8), timestamp (8), key, value, number of headers (4),
    and name and value of each header. Texts are UTF-8; texts and values stand behind their length (4 bytes, ffffffff
    for none). Numbers are little-endian.
    """
    parts = [
        _sized(record.topic.encode()),
        struct.pack("<Iqq", record.partition, record.offset, record.timestamp_ms),
        _sized(record.key),
        _sized(record.value),
        struct.pack("<I", len(record.headers)),
    ]
    for name, value in record.headers:
        parts += (_sized(name.encode()), _sized(value))
    return hashlib.sha256(b"".join((b"\x00", _LEAF_VERSION, *parts))).digest()


def _sized(data: bytes | None) -> bytes:
    return struct.pack("<I", _ABSENT) if data is None else struct.pack("<I", len(data)) + data
