"""Stage 1's tables: everything a chunk of telemetry changes is one transaction, fenced by offsets and generations."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.monitor.v1.resources_pb2 import Monitor
from headrace_kit.errors import Aborted
from headrace_kit.postgres import Connection, Database, Record, UniqueViolation
from headrace_monitor.joining import Key, Waiting
from headrace_monitor.slots import SlotCounts, SlotShard, decode_cells, encode_cells

CONSUMER = "monitor.telemetry"


class Fenced(Aborted):
    """Another worker took a partition over: nothing was written, what is in memory is worthless."""

    default_reason = "PARTITION_LOST"


class Partition(NamedTuple):
    """One partition of a telemetry topic."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Position:
    """Where a partition stands, and under which generation this worker holds it."""

    next_offset: int
    generation: int


class ProducerKey(NamedTuple):
    """Who numbers batches."""

    kind: int
    shard: int
    producer_id: str
    epoch: int


COUNTERS = (
    "predictions",
    "labels_joined",
    "labels_waiting",
    "labels_repeated",
    "labels_refused",
    "labels_unwatched",
    "batches_repeated",
    "batches_lost",
    "batches_forwarded",
    "quarantined",
    "predictions_unlabelled",
    "labels_unmatched",
)


@dataclass(slots=True)
class Changes:
    """What a chunk changes."""

    moved: dict[Partition, tuple[Position, int]] = field(default_factory=dict)
    """Position before, and offset after."""
    slots: dict[SlotShard, SlotCounts] = field(default_factory=dict)
    """Whole counts."""
    producers: dict[ProducerKey, int] = field(default_factory=dict)
    counts: dict[tuple[int, int], dict[str, int]] = field(default_factory=dict)
    """What to add, by endpoint and shard."""
    progress: dict[tuple[int, int, int], int] = field(default_factory=dict)
    """Greatest time, by endpoint, kind and shard."""
    created: dict[Key, Waiting] = field(default_factory=dict)
    updated: dict[Key, Waiting] = field(default_factory=dict)
    labels_added: list[tuple[Key, int, int, float]] = field(default_factory=list)
    """Key, row, shard, value."""
    labels_met: list[Key] = field(default_factory=list)


class CountStore:
    """Reads and writes stage 1's tables. Methods raise what ``headrace_kit.postgres`` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, earliest: Mapping[Partition, int]) -> dict[Partition, Position]:
        """Takes partitions over: a new generation for each; new ones begin at their earliest offset."""
        rows = await self._database.fetch(
            "INSERT INTO consumer_offsets AS o (consumer, topic, partition, next_offset, generation)"
            " SELECT $1, t, p, n, 1 FROM unnest($2::text[], $3::int[], $4::bigint[]) AS u (t, p, n) ORDER BY t, p"
            " ON CONFLICT (consumer, topic, partition) DO UPDATE SET generation = o.generation + 1,"
            " next_offset = greatest(o.next_offset, excluded.next_offset)"
            " RETURNING topic, partition, next_offset, generation",
            CONSUMER,
            [each.topic for each in earliest],
            [each.partition for each in earliest],
            list(earliest.values()),
        )
        return {Partition(r["topic"], r["partition"]): Position(r["next_offset"], r["generation"]) for r in rows}

    async def held(self, generations: Mapping[Partition, Position]) -> dict[Partition, Position]:
        """Where held partitions stand now.

        Raises:
            Fenced: one of them was taken over.
        """
        rows = await self._database.fetch(
            "SELECT topic, partition, next_offset, generation FROM consumer_offsets WHERE consumer = $1", CONSUMER
        )
        now = {Partition(r["topic"], r["partition"]): Position(r["next_offset"], r["generation"]) for r in rows}
        for partition, position in generations.items():
            if now[partition].generation != position.generation:
                raise Fenced(f"partition {partition.partition} of {partition.topic} was taken over")
        return {partition: now[partition] for partition in generations}

    async def last_seqs(self, shards: Collection[int]) -> dict[ProducerKey, int]:
        """The last number seen of each producer."""
        rows = await self._database.fetch(
            "SELECT kind, shard, producer_id, epoch, last_seq FROM producers WHERE shard = ANY($1::smallint[])",
            list(shards),
        )
        return {ProducerKey(r["kind"], r["shard"], r["producer_id"], r["epoch"]): r["last_seq"] for r in rows}

    async def label_keys(self, shards: Collection[int]) -> set[Key]:
        """Predictions that labels wait for."""
        rows = await self._database.fetch(
            "SELECT DISTINCT endpoint_id, key FROM waiting_labels WHERE shard = ANY($1::smallint[])", list(shards)
        )
        return {(r["endpoint_id"], r["key"]) for r in rows}

    async def monitors(self) -> list[Monitor]:
        """All monitors."""
        rows = await self._database.fetch("SELECT s.state FROM monitors m JOIN streams s ON s.stream_id = m.name")
        return [Monitor.FromString(r["state"]) for r in rows]

    async def monitors_mark(self) -> tuple[int, int]:
        """Changes whenever a monitor is created or configured."""
        row = await self._database.fetchrow(
            "SELECT count(*) AS n, coalesce(sum(config_revision), 0) AS s FROM monitors"
        )
        return (0, 0) if row is None else (row["n"], int(row["s"]))

    async def endpoint_id(self, project: str, endpoint: str) -> int:
        """Short id of an endpoint; made when it is new."""
        return int(
            await self._id_of(
                "SELECT id FROM watched_endpoints WHERE project = $1 AND endpoint = $2",
                "INSERT INTO watched_endpoints (project, endpoint) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                project,
                endpoint,
            )
        )

    async def version_id(self, name: str) -> int:
        """Short id of a version; made when it is new."""
        return int(
            await self._id_of(
                "SELECT id FROM watched_versions WHERE name = $1",
                "INSERT INTO watched_versions (name) VALUES ($1) ON CONFLICT DO NOTHING",
                name,
            )
        )

    async def _id_of(self, select: str, insert: str, *names: str) -> int:
        found = await self._database.fetchval(select, *names)
        if found is None:
            await self._database.execute(insert, *names)
            found = await self._database.fetchval(select, *names)
        return int(found)

    async def layout(self, endpoint_id: int, version_id: int) -> bytes | None:
        """The profile a version is counted by on an endpoint."""
        found: bytes | None = await self._database.fetchval(
            "SELECT profile FROM layouts WHERE endpoint_id = $1 AND version_id = $2", endpoint_id, version_id
        )
        return found

    async def fix_layout(self, endpoint_id: int, version_id: int, profile: bytes) -> None:
        """Fixes the profile, unless another worker was first."""
        await self._database.execute(
            "INSERT INTO layouts (endpoint_id, version_id, profile) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            endpoint_id,
            version_id,
            profile,
        )

    async def version_profile(self, name: str) -> tuple[bool, ObjectRef | None]:
        """Whether the registry told of a version, and its profile."""
        row = await self._database.fetchrow("SELECT reference_profile FROM versions WHERE name = $1", name)
        if row is None:
            return False, None
        data = row["reference_profile"]
        return True, None if data is None else ObjectRef.FromString(data)

    async def slots(self, keys: Sequence[SlotShard]) -> dict[SlotShard, SlotCounts]:
        """The counts of those of the slots that have any."""
        rows = await self._database.fetch(
            "SELECT s.* FROM slots s JOIN unnest($1::int[], $2::bigint[], $3::int[], $4::smallint[])"
            " AS u (e, b, v, h) ON s.endpoint_id = u.e AND s.start_us = u.b AND s.version_id = u.v AND s.shard = u.h",
            *_columns(keys, 4),
        )
        return {SlotShard(r["endpoint_id"], r["start_us"], r["version_id"], r["shard"]): counts_of(r) for r in rows}

    async def waiting_predictions(self, keys: Sequence[Key]) -> dict[Key, Waiting]:
        """Those of the predictions that were counted."""
        rows = await self._database.fetch(
            "SELECT w.* FROM waiting_predictions w JOIN unnest($1::int[], $2::bytea[]) AS u (e, k)"
            " ON w.endpoint_id = u.e AND w.key = u.k",
            *_columns(keys, 2),
        )
        return {
            (r["endpoint_id"], r["key"]): Waiting.stored(
                version_id=r["version_id"], start_us=r["start_us"], predicted=r["predicted"], labelled=r["labelled"]
            )
            for r in rows
        }

    async def waiting_labels(self, keys: Sequence[Key]) -> dict[Key, dict[int, float]]:
        """Labels that wait for the predictions."""
        rows = await self._database.fetch(
            "SELECT w.* FROM waiting_labels w JOIN unnest($1::int[], $2::bytea[]) AS u (e, k)"
            " ON w.endpoint_id = u.e AND w.key = u.k ORDER BY w.endpoint_id, w.key, w.row_number",
            *_columns(keys, 2),
        )
        found: dict[Key, dict[int, float]] = {}
        for r in rows:
            found.setdefault((r["endpoint_id"], r["key"]), {})[r["row_number"]] = r["value"]
        return found

    async def caught_up(self, partitions: Iterable[Partition]) -> None:
        """Nothing is left to read in the partitions."""
        chosen = sorted(partitions)
        await self._database.execute(
            "INSERT INTO partition_progress (topic, partition, caught_up_at)"
            " SELECT t, p, clock_timestamp() FROM unnest($1::text[], $2::int[]) AS u (t, p)"
            " ON CONFLICT (topic, partition) DO UPDATE SET caught_up_at = excluded.caught_up_at",
            *_columns(chosen, 2),
        )

    async def commit(self, changes: Changes) -> None:
        """Writes all of it, or nothing.

        Raises:
            Fenced: a partition moved under another worker.
            ConnectionLost: the outcome is unknown; ``held`` tells it.
        """
        async with self._database.transaction() as connection:
            await _move(connection, changes.moved)
            await _write_slots(connection, changes.slots)
            await _write_producers(connection, changes.producers)
            await _write_counts(connection, changes.counts)
            await _write_progress(connection, changes.progress)
            await _write_waiting(connection, changes)


def counts_of(row: Record) -> SlotCounts:
    """Counts from a row of ``slots`` or ``windows``."""
    return SlotCounts(
        decode_cells(row["cells"]),
        rows=row["rows"],
        labels=row["labels"],
        correct=row["correct"],
        error_sum=int(row["error_sum"]),
        error_square=int(row["error_square"]),
    )


def _columns(rows: Sequence[Sequence[object]], width: int) -> list[list[object]]:
    return [[row[index] for row in rows] for index in range(width)]


async def _move(connection: Connection, moved: Mapping[Partition, tuple[Position, int]]) -> None:
    rows = [(p.topic, p.partition, at.next_offset, after, at.generation) for p, (at, after) in sorted(moved.items())]
    changed = await connection.execute(
        "UPDATE consumer_offsets o SET next_offset = u.after"
        " FROM unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[]) AS u (t, p, before, after, g)"
        " WHERE o.consumer = $1 AND o.topic = u.t AND o.partition = u.p AND o.next_offset = u.before"
        " AND o.generation = u.g",
        CONSUMER,
        *_columns(rows, 5),
    )
    if changed != len(rows):
        raise Fenced("a partition was taken over by another worker")


async def _write_slots(connection: Connection, slots: Mapping[SlotShard, SlotCounts]) -> None:
    if not slots:
        return
    rows = [
        (*key, c.rows, c.labels, c.correct, str(c.error_sum), str(c.error_square), encode_cells(c.cells))
        for key, c in sorted(slots.items(), key=lambda item: item[0])
    ]
    await connection.execute(
        "INSERT INTO slots (endpoint_id, start_us, version_id, shard, rows, labels, correct, error_sum, error_square,"
        " cells) SELECT e, b, v, h, r, l, c, s::numeric, q::numeric, d FROM unnest($1::int[], $2::bigint[], $3::int[],"
        " $4::smallint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[], $9::text[], $10::bytea[])"
        " AS u (e, b, v, h, r, l, c, s, q, d) ON CONFLICT (endpoint_id, start_us, version_id, shard) DO UPDATE SET"
        " rows = excluded.rows, labels = excluded.labels, correct = excluded.correct, error_sum = excluded.error_sum,"
        " error_square = excluded.error_square, cells = excluded.cells",
        *_columns(rows, 10),
    )


async def _write_producers(connection: Connection, producers: Mapping[ProducerKey, int]) -> None:
    if not producers:
        return
    rows = [(*key, seq) for key, seq in sorted(producers.items())]
    await connection.execute(
        "INSERT INTO producers (kind, shard, producer_id, epoch, last_seq) SELECT * FROM unnest($1::smallint[],"
        " $2::smallint[], $3::text[], $4::bigint[], $5::bigint[]) ON CONFLICT (kind, shard, producer_id, epoch)"
        " DO UPDATE SET last_seq = excluded.last_seq, updated_at = excluded.updated_at",
        *_columns(rows, 5),
    )


async def _write_counts(connection: Connection, counts: Mapping[tuple[int, int], Mapping[str, int]]) -> None:
    if not counts:
        return
    rows = [(*key, *(added.get(name, 0) for name in COUNTERS)) for key, added in sorted(counts.items())]
    arrays = ", ".join(f"${index + 3}::bigint[]" for index in range(len(COUNTERS)))
    sums = ", ".join(f"{name} = c.{name} + excluded.{name}" for name in COUNTERS)
    # Only names of this module are SQL here.
    await connection.execute(
        f"INSERT INTO endpoint_counts AS c (endpoint_id, shard, {', '.join(COUNTERS)})"  # noqa: S608
        f" SELECT * FROM unnest($1::int[], $2::smallint[], {arrays})"
        f" ON CONFLICT (endpoint_id, shard) DO UPDATE SET {sums}",
        *_columns(rows, 2 + len(COUNTERS)),
    )


async def _write_progress(connection: Connection, progress: Mapping[tuple[int, int, int], int]) -> None:
    if not progress:
        return
    rows = [(*key, time_us) for key, time_us in sorted(progress.items())]
    await connection.execute(
        "INSERT INTO shard_progress AS p (endpoint_id, kind, shard, max_time_us, updated_at)"
        " SELECT e, k, h, t, clock_timestamp() FROM unnest($1::int[], $2::smallint[], $3::smallint[], $4::bigint[])"
        " AS u (e, k, h, t) ON CONFLICT (endpoint_id, kind, shard) DO UPDATE SET"
        " max_time_us = greatest(p.max_time_us, excluded.max_time_us), updated_at = excluded.updated_at",
        *_columns(rows, 4),
    )


async def _create_waiting(connection: Connection, created: Mapping[Key, Waiting]) -> None:
    """COPY, twice as fast; where an id came before, which is rare, its first prediction is kept."""
    columns = ("endpoint_id", "key", "version_id", "start_us", "predicted", "labelled")
    rows = [
        (*key, each.version_id, each.start_us, each.predicted_bytes, each.labelled_bytes)
        for key, each in created.items()
    ]
    try:
        async with connection.transaction():
            await connection.copy_rows("waiting_predictions", columns, rows)
    except UniqueViolation:
        await connection.execute(
            "INSERT INTO waiting_predictions (endpoint_id, key, version_id, start_us, predicted, labelled)"
            " SELECT * FROM unnest($1::int[], $2::bytea[], $3::int[], $4::bigint[], $5::bytea[], $6::bytea[])"
            " ON CONFLICT (endpoint_id, key) DO NOTHING",
            *_columns(rows, 6),
        )


async def _write_waiting(connection: Connection, changes: Changes) -> None:
    if changes.created:
        await _create_waiting(connection, changes.created)
    if changes.updated:
        rows = [(*key, each.labelled_bytes) for key, each in sorted(changes.updated.items(), key=lambda item: item[0])]
        await connection.execute(
            "UPDATE waiting_predictions w SET labelled = u.l FROM unnest($1::int[], $2::bytea[], $3::bytea[])"
            " AS u (e, k, l) WHERE w.endpoint_id = u.e AND w.key = u.k",
            *_columns(rows, 3),
        )
    if changes.labels_met:
        await connection.execute(
            "DELETE FROM waiting_labels w USING unnest($1::int[], $2::bytea[]) AS u (e, k)"
            " WHERE w.endpoint_id = u.e AND w.key = u.k",
            *_columns(changes.labels_met, 2),
        )
    if changes.labels_added:
        await connection.copy_rows(
            "waiting_labels",
            ("endpoint_id", "key", "row_number", "shard", "value"),
            [(*key, row, shard, value) for key, row, shard, value in changes.labels_added],
        )
