"""Where a consumer stands: offsets that move by compare-and-set, positions and versions it has seen."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from headrace_kit.cloudevents import ReceivedEvent
from headrace_kit.errors import Aborted
from headrace_kit.log import TopicPartition
from headrace_kit.postgres import Connection, Database

_CLAIM = """
INSERT INTO consumer_offsets AS o (consumer, topic, partition, next_offset, generation) VALUES ($1, $2, $3, NULL, 1)
ON CONFLICT (consumer, topic, partition) DO UPDATE SET generation = o.generation + 1
RETURNING next_offset, generation
"""
_POSITION = "SELECT position FROM consumer_positions WHERE consumer = $1 AND source = $2 AND partition = $3"
_STREAMS = """
SELECT stream_id, version, position FROM consumer_streams
WHERE consumer = $1 AND source = $2 AND stream_id = ANY($3::text[])
"""
_ADVANCE = """
WITH moved AS (
    UPDATE consumer_offsets SET next_offset = $6
    WHERE consumer = $1 AND topic = $2 AND partition = $3 AND generation = $4 AND next_offset IS NOT DISTINCT FROM $5
    RETURNING 1
), positions AS (
    INSERT INTO consumer_positions AS p (consumer, source, partition, position)
    SELECT $1, $7, $3, $8 FROM moved
    ON CONFLICT (consumer, source, partition) DO UPDATE SET position = greatest(p.position, EXCLUDED.position)
), streams AS (
    INSERT INTO consumer_streams (consumer, source, stream_id, version, position)
    SELECT $1, $7, n.stream_id, n.version, n.position
    FROM moved, unnest($9::text[], $10::bigint[], $11::bigint[]) AS n (stream_id, version, position)
    ON CONFLICT (consumer, source, stream_id) DO UPDATE SET version = EXCLUDED.version, position = EXCLUDED.position
)
SELECT count(*) FROM moved
"""


class PartitionLost(Aborted):
    """Another member claimed the partition, or moved its offset: nothing was written, and it is given up."""

    default_reason = "PARTITION_LOST"


@dataclass(frozen=True, slots=True)
class Seen:
    """The last event seen of a stream."""

    version: int
    position: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """One event on its way in.

    Attributes:
        event: The event.
        next_offset: The offset after it, None when it was read from the owner's log.
    """

    event: ReceivedEvent
    next_offset: int | None


@dataclass
class Progress:
    """How far a partition was taken; ``streams`` holds only what changed since the last advance, in a copy."""

    next_offset: int | None
    position: int
    streams: dict[str, Seen] = field(default_factory=dict[str, Seen])

    def take(self, arrival: Arrival) -> None:
        """The arrival is dealt with."""
        self.skip(arrival)
        event = arrival.event
        self.position = max(self.position, event.position)
        self.streams[event.subject] = Seen(event.sequence, event.position)

    def skip(self, arrival: Arrival) -> None:
        """The arrival was seen before; only the offset moves."""
        if arrival.next_offset is not None:
            self.next_offset = arrival.next_offset


@dataclass
class Claim:
    """A partition this member holds, until someone else claims it."""

    partition: TopicPartition
    source: str
    generation: int
    next_offset: int | None
    position: int
    streams: dict[str, Seen] = field(default_factory=dict[str, Seen])

    def progress(self) -> Progress:
        """A fresh start from here."""
        return Progress(self.next_offset, self.position)


class Offsets:
    """The offsets, positions and versions of one consumer."""

    def __init__(self, database: Database, consumer: str) -> None:
        self._database = database
        self._consumer = consumer

    async def claim(self, partition: TopicPartition, source: str) -> Claim:
        """Takes a partition over: whoever held it loses it with its next advance."""
        row = await self._database.fetchrow(_CLAIM, self._consumer, *partition)
        if row is None:
            raise AssertionError("an upsert returns its row")
        position = await self._database.fetchval(_POSITION, self._consumer, source, partition.partition)
        return Claim(partition, source, row["generation"], row["next_offset"], position or 0)

    async def know(self, claim: Claim, streams: Collection[str]) -> None:
        """Loads what was seen of some streams into the claim."""
        unknown = [each for each in set(streams) if each not in claim.streams]
        if unknown:
            for row in await self._database.fetch(_STREAMS, self._consumer, claim.source, unknown):
                claim.streams[row["stream_id"]] = Seen(row["version"], row["position"])
            for each in unknown:
                claim.streams.setdefault(each, Seen(0, 0))

    async def advance(self, connection: Connection, claim: Claim, progress: Progress) -> None:
        """Moves the offset inside the caller's transaction; call ``settle`` once that is committed.

        Raises:
            PartitionLost: the offset or the generation is not what this member left.
        """
        streams = progress.streams
        moved = await connection.fetchval(
            _ADVANCE,
            self._consumer,
            *claim.partition,
            claim.generation,
            claim.next_offset,
            progress.next_offset,
            claim.source,
            progress.position,
            list(streams),
            [each.version for each in streams.values()],
            [each.position for each in streams.values()],
        )
        if not moved:
            raise PartitionLost(f"{claim.partition} of {self._consumer} went to another member")

    async def next_offsets(self) -> dict[TopicPartition, int]:
        """Where the members of this consumer stand, by partition; begun partitions only."""
        rows = await self._database.fetch(
            "SELECT topic, partition, next_offset FROM consumer_offsets "
            "WHERE consumer = $1 AND next_offset IS NOT NULL",
            self._consumer,
        )
        return {TopicPartition(row["topic"], row["partition"]): row["next_offset"] for row in rows}


def settle(claim: Claim, progress: Progress) -> None:
    """The transaction of an advance was committed."""
    claim.next_offset, claim.position = progress.next_offset, progress.position
    claim.streams.update(progress.streams)
