"""The tables of metric points: chunks of points, the summaries kept with them, and what no event speaks of yet."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.tracking.v1.resources_pb2 import MetricSummary, Run
from headrace_kit.context import CommandContext
from headrace_kit.postgres import Connection, Database
from headrace_tracking.columns import ORDINAL_BITS, Columns, joined, place_of, size_of
from headrace_tracking.summaries import summarise

BLOCK = 1 << 20
"""Batch numbers of one block: a process takes a block at a time, so that no two give the same number."""
COPIED = 500
"""From so many points on they are copied; fewer go with the rest, in one statement and one round trip."""

FULL = 1024
"""Points of a chunk that is not put together with others any more."""

_CHUNK_COLUMNS = (
    *("run", "key", "first_place", "last_place", "count", "first_step", "last_step"),
    *("places", "steps", "times_us", "values"),
)
_INSERT = """
WITH commands AS (
    INSERT INTO metric_commands (command_id, request_hash, run, count)
    SELECT * FROM unnest($1::uuid[], $2::bytea[], $3::text[], $4::bigint[])
), tails AS (
    INSERT INTO metric_tails (batch, run, actor, on_behalf_of, causation_id, correlation_id, traceparent, hlc, method)
    SELECT $5::bigint, t.* FROM unnest(
        $6::text[], $7::text[], $8::text[], $9::uuid[], $10::uuid[], $11::text[], $12::bigint[], $13::text[]
    ) t
), summaries AS (
    INSERT INTO run_metrics AS m (run, key, last, min, max, count, last_step, last_time_us)
    SELECT * FROM unnest(
        $14::text[], $15::text[], $16::float8[], $17::float8[], $18::float8[],
        $19::bigint[], $20::bigint[], $21::bigint[]
    )
    ON CONFLICT (run, key) DO UPDATE SET
        min = least(m.min, EXCLUDED.min),
        max = greatest(m.max, EXCLUDED.max),
        count = m.count + EXCLUDED.count,
        last = CASE WHEN {newer} THEN EXCLUDED.last ELSE m.last END,
        last_step = CASE WHEN {newer} THEN EXCLUDED.last_step ELSE m.last_step END,
        last_time_us = CASE WHEN {newer} THEN EXCLUDED.last_time_us ELSE m.last_time_us END
)
INSERT INTO metric_chunks
SELECT run, key, min(place), max(place), count(*), min(step), max(step),
    array_agg(place ORDER BY place), array_agg(step ORDER BY place),
    array_agg(time_us ORDER BY place), array_agg(value ORDER BY place)
FROM unnest(
    $22::text[], $23::text[], $24::bigint[], $25::bigint[], $26::bigint[], $27::float8[]
) p (run, key, place, step, time_us, value)
GROUP BY run, key
""".format(  # noqa: S608 - text of this module alone
    newer="(EXCLUDED.last_step, EXCLUDED.last_time_us) >= (m.last_step, m.last_time_us)"
)


_LATEST = """
WITH behind AS (
    SELECT g.run FROM unnest($1::text[], $2::bigint[]) AS g(run, revision)
    WHERE EXISTS (SELECT FROM metric_tails t WHERE t.run = g.run)
       OR g.revision < (SELECT s.version FROM streams s WHERE s.stream_id = g.run)
)
SELECT m.run, m.key, m.last, m.min, m.max, m.count, m.last_step, m.last_time_us
FROM run_metrics m JOIN behind USING (run)
"""


# Small chunks of a metric become one; a run that is purged meanwhile has none.
_COMPACT = f"""
WITH run AS (
    SELECT name FROM runs WHERE name = $1 FOR SHARE
), many AS (
    SELECT c.key FROM metric_chunks c JOIN run ON c.run = run.name
    WHERE c.count < {FULL} GROUP BY c.key HAVING count(*) >= $2
), small AS (
    DELETE FROM metric_chunks c USING many WHERE c.run = $1 AND c.key = many.key AND c.count < {FULL} RETURNING c.*
), points AS (
    SELECT s.key, p.*, (row_number() OVER (PARTITION BY s.key ORDER BY p.place) - 1) / {FULL} AS chunk
    FROM small s CROSS JOIN LATERAL unnest(s.places, s.steps, s.times_us, s.values) p (place, step, time_us, value)
)
INSERT INTO metric_chunks
SELECT $1, key, min(place), max(place), count(*), min(step), max(step),
    array_agg(place ORDER BY place), array_agg(step ORDER BY place),
    array_agg(time_us ORDER BY place), array_agg(value ORDER BY place)
FROM points GROUP BY key, chunk
"""  # noqa: S608 - a number of this module


@dataclass(frozen=True, slots=True)
class MetricCommand:
    """One call: its points, and what tells a repeat from another request."""

    run: str
    context: CommandContext
    request_hash: bytes
    points: Sequence[Columns]

    def __len__(self) -> int:
        return size_of(self.points)


@dataclass(frozen=True, slots=True)
class Inserted:
    """The points of a run that were committed in a batch."""

    run: str
    batch: int
    points: Sequence[Columns]
    summaries: Mapping[str, MetricSummary]


@dataclass(frozen=True, slots=True)
class Tail:
    """A batch of a run that no event speaks of yet."""

    batch: int
    actor: str
    on_behalf_of: str
    causation_id: UUID | None
    correlation_id: UUID | None
    traceparent: str
    hlc: int
    method: str


class PointStore:
    """Reads and writes metric points.

    Args:
        database: Tracking's.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._next = self._end = 0

    async def next_batch(self) -> int:
        """A number that no other batch has, above those this process had before."""
        if self._next == self._end:
            block = int(await self._database.fetchval("SELECT nextval('metric_blocks')"))
            self._next, self._end = block * BLOCK, (block + 1) * BLOCK
        self._next += 1
        return self._next - 1

    async def insert(self, batch: int, commands: Sequence[MetricCommand]) -> list[Inserted]:
        """Commits points, summaries and ids of commands together, each run's in the order of the commands.

        Returns:
            What was committed, one for each run.

        Raises:
            UniqueViolation: A command was carried out before; nothing was written.
        """
        calls: dict[str, list[Sequence[Columns]]] = {}
        contexts: dict[str, CommandContext] = {}
        for command in commands:
            calls.setdefault(command.run, []).append(command.points)
            contexts.setdefault(command.run, command.context)
        inserted: list[Inserted] = []
        for run, given in calls.items():
            points = given[0] if len(given) == 1 else joined(given)
            inserted.append(Inserted(run, batch, points, summarise(points)))
        head = (*_command_columns(commands), batch, *_tail_columns(contexts), *_summary_columns(inserted))
        if sum(map(len, commands)) < COPIED:
            await self._database.execute(_INSERT, *head, *_point_columns(inserted))
            return inserted
        async with self._database.transaction() as connection:
            await connection.execute(_INSERT, *head, *_point_columns([]))
            await copy_points(connection, inserted)
        return inserted

    async def compact(self, run: str, *, least: int) -> int:
        """Puts the small chunks of each metric that has so many of them together; returns how many came of them.

        Safe beside anything else: what is read and what is written meanwhile are the same points.
        """
        return await self._database.execute(_COMPACT, run, least)

    async def carried_out(self, ids: Sequence[UUID]) -> dict[UUID, bytes]:
        """Which commands were carried out before, with the hash of their requests."""
        rows = await self._database.fetch(
            "SELECT command_id, request_hash FROM metric_commands WHERE command_id = ANY($1::uuid[])", ids
        )
        return {row["command_id"]: row["request_hash"] for row in rows}

    async def keys(self, runs: Sequence[str]) -> dict[str, set[str]]:
        """Of the runs, those that are there and in use, with the keys of their metrics."""
        rows = await self._database.fetch(
            "SELECT r.name, array(SELECT m.key FROM run_metrics m WHERE m.run = r.name) AS keys"
            " FROM runs r WHERE r.name = ANY($1::text[]) AND r.delete_time IS NULL",
            runs,
        )
        return {row["name"]: set(row["keys"]) for row in rows}

    async def unsealed(self) -> dict[str, int]:
        """Every run with points that no event speaks of, and the first batch of them."""
        rows = await self._database.fetch("SELECT run, min(batch) AS first FROM metric_tails GROUP BY run")
        return {row["run"]: row["first"] for row in rows}

    async def tails(self, run: str) -> list[Tail]:
        """What no event speaks of, by batch."""
        rows = await self._database.fetch(
            "SELECT batch, actor, on_behalf_of, causation_id, correlation_id, traceparent, hlc, method"
            " FROM metric_tails WHERE run = $1 ORDER BY batch",
            run,
        )
        return [Tail(*row) for row in rows]

    async def batches(self, run: str, first: int, last: int) -> list[int]:
        """The batches of a run from ``first`` to ``last``, in order."""
        rows = await self._database.fetch(
            f"SELECT DISTINCT p.place >> {ORDINAL_BITS} AS batch"  # noqa: S608 - a number of this package
            " FROM metric_chunks c CROSS JOIN LATERAL unnest(c.places) p (place)"
            " WHERE c.run = $1 AND c.last_place >= $2 AND c.first_place <= $3 AND p.place BETWEEN $2 AND $3"
            " ORDER BY batch",
            run,
            place_of(first),
            place_of(last + 1) - 1,
        )
        return [row["batch"] for row in rows]

    async def points(self, run: str, first: int, last: int) -> list[Columns]:
        """The points of a run in the batches from ``first`` to ``last``."""
        begin, end = place_of(first), place_of(last + 1) - 1
        rows = await self._database.fetch(
            "SELECT key, places, steps, times_us, values FROM metric_chunks"
            " WHERE run = $1 AND last_place >= $2 AND first_place <= $3 ORDER BY key, first_place",
            run,
            begin,
            end,
        )
        found: dict[str, Columns] = {}
        for row in rows:
            columns = Columns(*row).between(begin, end)
            if columns:
                found.setdefault(columns.key, Columns(columns.key)).extend(columns)
        return list(found.values())

    async def with_latest_metrics(self, runs: Sequence[Run]) -> None:
        """Puts the metrics of runs, in place, to what was acknowledged.

        Where events lag behind, and where one came since a run was read: it took the points off the list.
        """
        by_name = {run.name: run for run in runs}
        rows = await self._database.fetch(_LATEST, list(by_name), [run.revision for run in runs])
        for run, key, last, least, most, count, step, time_us in rows:
            time = Timestamp()
            time.FromMicroseconds(time_us)
            summary = MetricSummary(last=last, min=least, max=most, count=count, last_step=step, last_time=time)
            by_name[run].metrics[key].CopyFrom(summary)


async def copy_points(connection: Connection, inserted: Sequence[Inserted]) -> None:
    """Writes points, and nothing beside them."""
    await connection.copy_rows("metric_chunks", _CHUNK_COLUMNS, _chunks(inserted))


async def remove_tails(connection: Connection, run: str, tails: Sequence[Tail]) -> int:
    """Forgets that no event speaks of these; returns of how many none did."""
    batches = [each.batch for each in tails]
    return await connection.execute(
        "DELETE FROM metric_tails WHERE run = $1 AND batch = ANY($2::bigint[])", run, batches
    )


def _columns(rows: Sequence[tuple[object, ...]], width: int) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def _point_columns(inserted: Sequence[Inserted]) -> list[list[object]]:
    rows = [
        (each.run, points.key, place_of(each.batch, place), *numbers)
        for each in inserted
        for points in each.points
        for place, *numbers in zip(points.places, points.steps, points.times_us, points.values, strict=True)
    ]
    return _columns(rows, 6)


def _chunks(inserted: Sequence[Inserted]) -> Iterator[tuple[object, ...]]:
    for each in inserted:
        before = place_of(each.batch)
        for points in each.points:
            places = [before + place for place in points.places]
            head = (each.run, points.key, places[0], places[-1], len(places), min(points.steps), max(points.steps))
            yield (*head, places, points.steps, points.times_us, points.values)


def _command_columns(commands: Sequence[MetricCommand]) -> list[list[object]]:
    rows = [(each.context.command_id, each.request_hash, each.run, len(each)) for each in commands]
    return _columns(rows, 4)


def _tail_columns(contexts: dict[str, CommandContext]) -> list[list[object]]:
    rows = [
        (
            run,
            each.actor,
            each.on_behalf_of,
            each.causation_id,
            each.correlation_id,
            each.traceparent,
            each.hlc,
            each.method,
        )
        for run, each in contexts.items()
    ]
    return _columns(rows, 8)


def _summary_columns(inserted: Sequence[Inserted]) -> list[list[object]]:
    rows = [
        (
            each.run,
            key,
            summary.last,
            summary.min,
            summary.max,
            summary.count,
            summary.last_step,
            summary.last_time.ToMicroseconds(),
        )
        for each in sorted(inserted, key=lambda each: each.run)
        for key, summary in sorted(each.summaries.items())
    ]
    return _columns(rows, 8)
