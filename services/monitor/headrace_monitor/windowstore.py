"""Stage 2's tables: closing freezes slots; decisions read what is frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from headrace_kit.postgres import Connection, Database
from headrace_monitor.countstore import CONSUMER, counts_of
from headrace_monitor.slots import SlotCounts, encode_cells
from headrace_monitor.watermark import ShardProgress

_CLOSE_AT_ONCE = 500
NEVER_US = -(2**63)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an endpoint is closed and decided, microseconds of event time; slots that start before are."""

    closed_until_us: int
    decided_until_us: int


class FrozenSlot(NamedTuple):
    """A closed slot: counts by version."""

    start_us: int
    versions: dict[str, SlotCounts]


class WindowStore:
    """Reads and writes stage 2's tables."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def endpoint_id(self, project: str, endpoint: str) -> int | None:
        """Short id of an endpoint, when telemetry of it was seen."""
        found: int | None = await self._database.fetchval(
            "SELECT id FROM watched_endpoints WHERE project = $1 AND endpoint = $2", project, endpoint
        )
        return found

    async def shard_progress(self, endpoint_id: int) -> tuple[list[ShardProgress], datetime]:
        """Progress of an endpoint's shards, and the database's clock."""
        rows = await self._database.fetch(
            "SELECT kind, shard, max_time_us, updated_at FROM shard_progress WHERE endpoint_id = $1", endpoint_id
        )
        now: datetime = await self._database.fetchval("SELECT clock_timestamp()")
        return [ShardProgress(r["kind"], r["shard"], r["max_time_us"], r["updated_at"]) for r in rows], now

    async def caught_up(self) -> dict[tuple[str, int], datetime]:
        """When each partition was last read to its end."""
        rows = await self._database.fetch("SELECT topic, partition, caught_up_at FROM partition_progress")
        return {(r["topic"], r["partition"]): r["caught_up_at"] for r in rows}

    async def progress(self, endpoint_id: int) -> Progress:
        """How far an endpoint is closed and decided."""
        row = await self._database.fetchrow(
            "SELECT closed_until_us, decided_until_us FROM monitor_progress WHERE endpoint_id = $1", endpoint_id
        )
        return Progress(NEVER_US, NEVER_US) if row is None else Progress(row[0], row[1])

    async def close(self, endpoint_id: int, *, until_us: int) -> bool:
        """Freezes the slots that start before a time, in order, some at a time; True when more are left to close.

        Merging and freezing is one repeatable-read transaction with the offsets it is true for.
        """
        async with self._database.transaction() as connection:
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            closed = await connection.fetchval(
                "SELECT closed_until_us FROM monitor_progress WHERE endpoint_id = $1 FOR UPDATE", endpoint_id
            )
            after = NEVER_US if closed is None else int(closed)
            if until_us <= after:
                return False
            starts = await connection.fetch(
                "SELECT DISTINCT start_us FROM slots WHERE endpoint_id = $1 AND start_us >= $2 AND start_us < $3"
                " ORDER BY start_us LIMIT $4",
                endpoint_id,
                after,
                until_us,
                _CLOSE_AT_ONCE,
            )
            more = len(starts) == _CLOSE_AT_ONCE
            end = int(starts[-1][0]) + 1 if more else until_us
            if starts:
                await _freeze(connection, endpoint_id, from_us=after, until_us=end)
            await connection.execute(
                "INSERT INTO monitor_progress (endpoint_id, closed_until_us, decided_until_us) VALUES ($1, $2, $3)"
                " ON CONFLICT (endpoint_id) DO UPDATE SET closed_until_us = excluded.closed_until_us",
                endpoint_id,
                end,
                NEVER_US,
            )
            return more

    async def frozen(self, endpoint_id: int, *, from_us: int, limit: int) -> list[FrozenSlot]:
        """Closed slots from a start on, in order."""
        rows = await self._database.fetch(
            "WITH starts AS (SELECT DISTINCT start_us FROM windows WHERE endpoint_id = $1 AND start_us >= $2"
            " ORDER BY start_us LIMIT $3) SELECT w.*, v.name FROM windows w JOIN starts USING (start_us)"
            " JOIN watched_versions v ON v.id = w.version_id WHERE w.endpoint_id = $1 ORDER BY w.start_us, v.name",
            endpoint_id,
            from_us,
            limit,
        )
        slots: list[FrozenSlot] = []
        for row in rows:
            if not slots or slots[-1].start_us != row["start_us"]:
                slots.append(FrozenSlot(row["start_us"], {}))
            slots[-1].versions[row["name"]] = counts_of(row)
        return slots

    async def layout(self, endpoint_id: int, version: str) -> bytes:
        """Profile by which a version is counted; empty without one."""
        found: bytes | None = await self._database.fetchval(
            "SELECT l.profile FROM layouts l JOIN watched_versions v ON v.id = l.version_id"
            " WHERE l.endpoint_id = $1 AND v.name = $2",
            endpoint_id,
            version,
        )
        return found or b""

    async def decided(self, endpoint_id: int, *, until_us: int) -> None:
        """Slots that start before a time are decided."""
        await self._database.execute(
            "UPDATE monitor_progress SET decided_until_us = greatest(decided_until_us, $2) WHERE endpoint_id = $1",
            endpoint_id,
            until_us,
        )

    async def alias_revision(self, model: str, alias: str) -> int:
        """Revision of an alias as last seen; -1 when it was never seen."""
        found: int | None = await self._database.fetchval(
            "SELECT revision FROM aliases WHERE model = $1 AND alias = $2", model, alias
        )
        return -1 if found is None else found


async def _freeze(connection: Connection, endpoint_id: int, *, from_us: int, until_us: int) -> None:
    rows = await connection.fetch(
        "SELECT * FROM slots WHERE endpoint_id = $1 AND start_us >= $2 AND start_us < $3 ORDER BY start_us, version_id",
        endpoint_id,
        from_us,
        until_us,
    )
    merged: dict[tuple[int, int], SlotCounts] = {}
    shards: dict[tuple[int, int], list[int]] = {}
    for row in rows:
        key = (row["start_us"], row["version_id"])
        if key in merged:
            merged[key].add(counts_of(row))
        else:
            merged[key] = counts_of(row)
        shards.setdefault(key, []).append(row["shard"])
    offsets = await connection.fetch(
        "SELECT topic, partition, next_offset FROM consumer_offsets WHERE consumer = $1 ORDER BY topic, partition",
        CONSUMER,
    )
    read_to = {f"{row['topic']}/{row['partition']}": row["next_offset"] for row in offsets}
    await connection.executemany(
        "INSERT INTO windows (endpoint_id, start_us, version_id, rows, labels, correct, error_sum, error_square, cells,"
        " closed_with) VALUES ($1, $2, $3, $4, $5, $6, $7::text::numeric, $8::text::numeric, $9, $10)",
        [_row(endpoint_id, key, counts, {"shards": shards[key], "offsets": read_to}) for key, counts in merged.items()],
    )


def _row(endpoint_id: int, key: tuple[int, int], counts: SlotCounts, closed_with: object) -> Sequence[object]:
    return (
        endpoint_id,
        *key,
        counts.rows,
        counts.labels,
        counts.correct,
        str(counts.error_sum),
        str(counts.error_square),
        encode_cells(counts.cells),
        closed_with,
    )


__all__ = ["NEVER_US", "FrozenSlot", "Progress", "WindowStore"]
