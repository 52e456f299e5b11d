"""The tables of the archive, and the aggregate of an archived range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from google.protobuf.message import Message

from headrace.api.monitor.v1.resources_pb2 import ArchivedRange, PartitionArchive
from headrace_kit.eventstore import Aggregate, Row
from headrace_kit.lease import Fence, check_fence
from headrace_kit.postgres import Database, Record
from headrace_monitor.archived import evolve
from headrace_monitor.countstore import CONSUMER


def range_rows(stream_id: str, state: ArchivedRange, changes: Sequence[Message]) -> Sequence[Row]:
    """The row of a range."""
    del changes
    return [
        Row(
            "archived_ranges",
            {"name": stream_id},
            {
                "topic": state.topic,
                "partition": state.partition,
                "first_offset": state.first_offset,
                "last_offset": state.last_offset,
                "records": state.records,
                "rows": state.rows,
                "size_bytes": state.size_bytes,
                "last_time": state.last_time.ToDatetime(tzinfo=UTC),
            },
        )
    ]


ARCHIVED_RANGE = Aggregate(
    name="archive", state=ArchivedRange, evolve=evolve, rows=range_rows, tables=("archived_ranges",)
)
"""Stream: ``projects/headrace/archives/{archive}/ranges/{range}``."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A range to be archived: offsets, both included."""

    first_offset: int
    last_offset: int


class ArchiveStore:
    """Reads and writes the tables of the archive. Methods raise what ``headrace_kit.postgres`` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def next_offsets(self, topic: str) -> dict[int, int]:
        """First offset that is not archived, by partition; those without any range are left out."""
        rows = await self._database.fetch(
            "SELECT partition, max(last_offset) + 1 FROM archived_ranges WHERE topic = $1 GROUP BY partition", topic
        )
        return {row[0]: row[1] for row in rows}

    async def counted_offsets(self, topic: str) -> dict[int, int]:
        """First offset that stage 1 has not committed, by partition."""
        rows = await self._database.fetch(
            "SELECT partition, next_offset FROM consumer_offsets"
            " WHERE consumer = $1 AND topic = $2 AND next_offset IS NOT NULL",
            CONSUMER,
            topic,
        )
        return {row[0]: row[1] for row in rows}

    async def plan(self, topic: str, partition: int, *, first_offset: int) -> Plan | None:
        """The plan of the range that begins at an offset."""
        row = await self._database.fetchrow(
            "SELECT first_offset, last_offset FROM archive_plans"
            " WHERE topic = $1 AND partition = $2 AND first_offset = $3",
            topic,
            partition,
            first_offset,
        )
        return None if row is None else Plan(row[0], row[1])

    async def keep_plan(self, topic: str, partition: int, plan: Plan, *, fence: Fence) -> None:
        """Notes what is about to be archived.

        Raises:
            Deposed: another process archives.
        """
        async with self._database.transaction() as connection:
            await check_fence(connection, fence)
            await connection.execute(
                "INSERT INTO archive_plans (topic, partition, first_offset, last_offset) VALUES ($1, $2, $3, $4)"
                " ON CONFLICT (topic, partition) DO UPDATE SET first_offset = excluded.first_offset,"
                " last_offset = excluded.last_offset",
                topic,
                partition,
                plan.first_offset,
                plan.last_offset,
            )

    async def require(self, fence: Fence) -> None:
        """Raises Deposed when another process archives."""
        async with self._database.transaction() as connection:
            await check_fence(connection, fence)

    async def old_enough(self, topic: str, *, before: datetime) -> dict[int, int]:
        """Offset below which all is archived and was taken by Kafka before a time, by partition.

        Ranges follow each other and times do not fall, so one range whose end is old says it of all before it.
        """
        rows = await self._database.fetch(
            "SELECT partition, max(last_offset) + 1 FROM archived_ranges WHERE topic = $1 AND last_time < $2"
            " GROUP BY partition",
            topic,
            before,
        )
        return {row[0]: row[1] for row in rows}

    async def status(self) -> list[PartitionArchive]:
        """How far each partition is archived and counted, by topic and partition."""
        rows = await self._database.fetch(
            "WITH archived AS (SELECT topic, partition, max(last_offset) + 1 AS next_offset, count(*) AS ranges,"
            " sum(records)::bigint AS records, sum(rows)::bigint AS rows, sum(size_bytes)::bigint AS size_bytes,"
            " max(last_time) AS last_time FROM archived_ranges GROUP BY topic, partition), counted AS ("
            "SELECT topic, partition, next_offset AS counted_offset FROM consumer_offsets WHERE consumer = $1)"
            " SELECT topic, partition, coalesce(next_offset, -1) AS next_offset,"
            " coalesce(counted_offset, -1) AS counted_offset, coalesce(ranges, 0) AS ranges,"
            " coalesce(records, 0) AS records, coalesce(rows, 0) AS rows, coalesce(size_bytes, 0) AS size_bytes,"
            " last_time"
            " FROM archived FULL JOIN counted USING (topic, partition) ORDER BY topic, partition",
            CONSUMER,
        )
        return [_status(row) for row in rows]

    async def ranges(
        self, topic: str, partition: int, *, from_offset: int, after_offset: int, limit: int
    ) -> list[ArchivedRange]:
        """Ranges by offset that end at ``from_offset`` or later and begin after ``after_offset``."""
        rows = await self._database.fetch(
            "SELECT s.state FROM archived_ranges a JOIN streams s ON s.stream_id = a.name WHERE a.topic = $1"
            " AND a.partition = $2 AND a.last_offset >= $3 AND a.first_offset > $4 ORDER BY a.first_offset LIMIT $5",
            topic,
            partition,
            from_offset,
            after_offset,
            limit,
        )
        return [ArchivedRange.FromString(row[0]) for row in rows]


def _status(row: Record) -> PartitionArchive:
    names = ("topic", "partition", "next_offset", "counted_offset", "ranges", "records", "rows", "size_bytes")
    found = PartitionArchive(**{name: row[name] for name in names})
    if row["last_time"] is not None:
        found.last_time.FromDatetime(row["last_time"])
    return found


__all__ = ["ARCHIVED_RANGE", "ArchiveStore", "Plan"]
