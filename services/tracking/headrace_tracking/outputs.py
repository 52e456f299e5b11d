"""What runs wrote to their standard streams, in a table beside the log.

Of each run the first and the last 8 MiB are kept: the beginning tells what was started, the end why it stopped.
What is dropped in between is counted on the chunk behind it. A chunk is known by its run and its time, so a repeat adds
nothing.
"""

from collections.abc import Sequence
from typing import Final

from headrace.api.tracking.v1.resources_pb2 import OutputChunk
from headrace_kit.postgres import Connection, Database, Record

BEGINNING_BYTES: Final = 8 * 1024 * 1024
END_BYTES: Final = 8 * 1024 * 1024
SLACK_BYTES: Final = 1024 * 1024
"""The end may be so much longer, so that it is cut now and then and not at each chunk."""
READ_BYTES: Final = 1024 * 1024

_INSERT: Final = """
WITH given AS (
    SELECT * FROM unnest($2::bigint[], $3::smallint[], $4::bigint[], $5::bytea[]) g(time_us, stream, left_out, content)
), inserted AS (
    INSERT INTO run_output (run, time_us, stream, left_out_bytes, is_beginning, content)
    SELECT $1, time_us, stream, left_out, $6, content FROM given
    ON CONFLICT DO NOTHING RETURNING octet_length(content) AS size
)
SELECT count(*), coalesce(sum(size), 0)::bigint FROM inserted
"""
_TRIM: Final = """
WITH aged AS (
    SELECT time_us, octet_length(content) AS size, left_out_bytes,
        sum(octet_length(content)) OVER (ORDER BY time_us DESC) AS size_from_here
    FROM run_output WHERE run = $1 AND NOT is_beginning
), gone AS (
    DELETE FROM run_output o USING aged a
    WHERE o.run = $1 AND o.time_us = a.time_us AND a.size_from_here > $2
    RETURNING a.size, a.left_out_bytes
), counted AS (
    UPDATE run_output SET left_out_bytes = left_out_bytes + (SELECT sum(size + left_out_bytes) FROM gone)
    WHERE run = $1 AND time_us = (SELECT min(time_us) FROM aged WHERE size_from_here <= $2)
)
UPDATE run_output_sizes SET size_bytes = size_bytes - (SELECT coalesce(sum(size), 0) FROM gone) WHERE run = $1
"""
_READ: Final = """
SELECT time_us, stream, left_out_bytes, content FROM (
    SELECT *, sum(octet_length(content)) OVER (ORDER BY time_us {order}) - octet_length(content) AS size_before
    FROM run_output WHERE run = $1 AND time_us > $2 ORDER BY time_us {order} LIMIT 10000
) o WHERE size_before < $3 ORDER BY time_us
"""


class OutputStore:
    """Reads and writes what runs wrote.

    Args:
        database: Tracking's.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, run: str, chunks: Sequence[OutputChunk]) -> int | None:
        """Keeps chunks, those that are there already left out; how many were new, None when the run is not in use."""
        async with self._database.transaction() as connection:
            # The row's lock keeps two calls for one run from counting at once.
            size = await connection.fetchval(
                "INSERT INTO run_output_sizes AS s (run, size_bytes)"
                " SELECT name, 0 FROM runs WHERE name = $1 AND delete_time IS NULL"
                " ON CONFLICT (run) DO UPDATE SET size_bytes = s.size_bytes RETURNING size_bytes",
                run,
            )
            if size is None:
                return None
            return await _insert(connection, run, chunks, size)

    async def read(self, run: str, *, after_us: int = 0, most_bytes: int = READ_BYTES) -> list[OutputChunk]:
        """Chunks after a moment, in order, together of about ``most_bytes``; empty when there are none."""
        return _chunks(await self._database.fetch(_READ.format(order="ASC"), run, after_us, most_bytes))

    async def last(self, run: str, *, after_us: int = 0, most_bytes: int) -> list[OutputChunk]:
        """As ``read``, from the end."""
        return _chunks(await self._database.fetch(_READ.format(order="DESC"), run, after_us, most_bytes))


def _chunks(rows: Sequence[Record]) -> list[OutputChunk]:
    return [OutputChunk(time_us=row[0], stream=row[1], left_out_bytes=row[2], content=row[3]) for row in rows]


async def _insert(connection: Connection, run: str, chunks: Sequence[OutputChunk], size: int) -> int:
    is_beginning = size < BEGINNING_BYTES
    row = await connection.fetchrow(
        _INSERT,
        run,
        [each.time_us for each in chunks],
        [int(each.stream) for each in chunks],
        [each.left_out_bytes for each in chunks],
        [each.content for each in chunks],
        is_beginning,
    )
    count, added = row if row is not None else (0, 0)
    await connection.execute("UPDATE run_output_sizes SET size_bytes = size_bytes + $2 WHERE run = $1", run, added)
    if size + added > BEGINNING_BYTES + END_BYTES + SLACK_BYTES:
        await connection.execute(_TRIM, run, END_BYTES)
    return int(count)
