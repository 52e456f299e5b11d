"""Up to which event time everything has been counted: the least over shards that still have something to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from headrace.kafka import partition_of


@dataclass(frozen=True, slots=True)
class ShardProgress:
    """How far a shard of an endpoint came in one of the topics."""

    kind: int
    shard: int
    max_time_us: int
    updated_at: datetime


def watermark(
    shards: Sequence[ShardProgress],
    caught_up: Mapping[tuple[int, int], datetime],
    *,
    partitions: int,
    now: datetime,
    idle_s: float,
) -> int | None:
    """Event time in microseconds, or None while it cannot be told.

    A shard whose partition was read to its end, again and again, for ``idle_s`` after the shard's last news is idle and
    left out; so it is wall time that lets go of a shard, and never while there is something unread. Faster than real
    time, event time is the only clock. When all are idle, the furthest counts.

    Args:
        shards: Progress of one endpoint.
        caught_up: When each (kind, partition) was last known to be read to its end.
        partitions: Partitions of each topic.
        now: Wall time, by the same clock as the other wall times.
        idle_s: See above.
    """
    kinds = sorted({each.kind for each in shards} | {kind for kind, _ in caught_up})
    if not any(each.kind == 0 for each in shards):
        return None
    active: list[int] = []
    for kind in kinds:
        for partition in range(partitions):
            here = [each for each in shards if each.kind == kind and partition_of(each.shard, partitions) == partition]
            read_at = caught_up.get((kind, partition))
            is_read = read_at is not None and (now - read_at).total_seconds() <= idle_s
            if not here and not is_read:
                return None  # what lies unread there may be older than anything seen
            for each in here:
                quiet_s = (read_at - each.updated_at).total_seconds() if read_at is not None else 0.0
                if not (is_read and quiet_s > idle_s):
                    active.append(each.max_time_us)
    return min(active) if active else max(each.max_time_us for each in shards if each.kind == 0)
