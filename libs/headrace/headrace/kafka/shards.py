"""The shard of a prediction: the unit by which telemetry and the monitor's state are placed.

The number of shards is fixed when a platform is first created; the partition of a shard is ``shard mod partitions``, so
partitions can be added without moving anything between shards.
"""

from __future__ import annotations

import os
import re
import time
import zlib

LABELS_TOPIC = "headrace.telemetry.labels.v1"
PREDICTIONS_TOPIC = "headrace.telemetry.predictions.v1"

SHARDS = 24

_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_IDS_A_SHARD = 256 // SHARDS


def shard_of(prediction_id: str) -> int:
    """Shard of a prediction id, 0 to 23: last byte mod 24 of a UUID in its usual form, crc32 mod 24 of others."""
    if len(prediction_id) == 36 and _UUID.fullmatch(prediction_id):
        return int(prediction_id[34:], 16) % SHARDS
    return zlib.crc32(prediction_id.encode()) % SHARDS


def partition_of(shard: int, partitions: int) -> int:
    """Partition of a shard in a topic with so many partitions."""
    return shard % partitions


def new_id(shard: int) -> str:
    """A new UUIDv7 whose shard is ``shard``. Ids of one millisecond are not ordered among themselves."""
    milliseconds = time.time_ns() // 1_000_000
    noise = bytearray(os.urandom(10))
    noise[0] = 0x70 | (noise[0] & 0x0F)
    noise[2] = 0x80 | (noise[2] & 0x3F)
    noise[9] = shard + SHARDS * (noise[9] % _IDS_A_SHARD)
    digits = f"{milliseconds:012x}{noise.hex()}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
