"""How far the consumers of a service have come, for those who operate them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import structlog

from headrace_kit.log import Log, LogUnavailable, TopicPartition, events_topic, source_of
from headrace_kit.postgres import Database

_log = structlog.get_logger(__name__)
_OFFSETS = """
SELECT o.consumer, o.topic, o.partition, o.next_offset FROM consumer_offsets o ORDER BY o.consumer, o.topic, o.partition
"""
_POSITIONS = "SELECT consumer, source, partition, position FROM consumer_positions"
_PARKED = """
SELECT consumer, count(DISTINCT (source, stream_id)) AS streams, count(*) AS events FROM parked_events GROUP BY consumer
"""


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """Where a consumer stands in a partition.

    Attributes:
        partition: Topic and partition.
        next_offset: Offset of the next record it takes; None while the partition was not begun.
        end_offset: Offset after the last record; None while the log does not answer.
        source: The log that the topic carries (``headrace/registry``); empty for telemetry.
        position: Last position of that log taken from here; 0 before the first.
    """

    partition: TopicPartition
    next_offset: int | None
    end_offset: int | None
    source: str
    position: int


@dataclass(slots=True)
class ConsumerStatus:
    """How far a consumer has come; ``parked_events`` counts those that wait behind a failed one too."""

    name: str
    partitions: list[PartitionStatus] = field(default_factory=list[PartitionStatus])
    parked_streams: int = 0
    parked_events: int = 0


async def list_consumers(database: Database, log: Log, names: Collection[str] = ()) -> Sequence[ConsumerStatus]:
    """Every consumer that keeps its offsets in a database, by name.

    Args:
        database: The service's own.
        log: For the ends of the partitions; while it is away they are not told.
        names: Consumers to be listed even before they have begun.
    """
    offsets = await database.fetch(_OFFSETS)
    positions = {
        (row["consumer"], row["source"], row["partition"]): row["position"] for row in await database.fetch(_POSITIONS)
    }
    found = {name: ConsumerStatus(name) for name in sorted({*names, *(row["consumer"] for row in offsets)})}
    ends = await _ends(log, {TopicPartition(row["topic"], row["partition"]) for row in offsets})
    for row in offsets:
        partition = TopicPartition(row["topic"], row["partition"])
        source = source_of(partition.topic)
        source = source if events_topic(source) == partition.topic else ""
        position = positions.get((row["consumer"], source, partition.partition), 0)
        place = PartitionStatus(partition, row["next_offset"], ends.get(partition), source, position)
        found[row["consumer"]].partitions.append(place)
    for row in await database.fetch(_PARKED):
        status = found.setdefault(row["consumer"], ConsumerStatus(row["consumer"]))
        status.parked_streams, status.parked_events = row["streams"], row["events"]
    return [found[name] for name in sorted(found)]


async def _ends(log: Log, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
    try:
        return dict(await log.end_offsets(partitions)) if partitions else {}
    except LogUnavailable as error:
        _log.info("ends_not_known", cause=error.message)
        return {}
