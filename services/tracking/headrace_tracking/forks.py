"""Runs that go on with the history of another: its points up to a step are read as theirs, and never copied."""

from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.tracking.v1.resources_pb2 import MetricSummary
from headrace_kit.postgres import Database

_LAST_STEP: Final = (1 << 63) - 1
_SUMMARIES: Final = """
WITH RECURSIVE {line},
points AS (
    SELECT p.key, p.value, p.step, p.time_us, p.place
    FROM line l JOIN metric_points p ON p.run = l.run AND p.step <= least(l.up_to, $2)
), latest AS (
    SELECT DISTINCT ON (key) key, value, step, time_us FROM points
    ORDER BY key, step DESC, time_us DESC, place DESC
), summed AS (
    SELECT key, count(*) AS count,
        coalesce(min(value) FILTER (WHERE value <> 'NaN'), 'Infinity') AS min,
        coalesce(max(value) FILTER (WHERE value <> 'NaN'), '-Infinity') AS max
    FROM points GROUP BY key
)
SELECT key, value, min, max, count, step, time_us FROM summed JOIN latest USING (key)
"""


def line_of(roots: str) -> str:
    """A recursive part of a WITH clause: ``line (root, run, up_to)``, each root and the runs it goes on with.

    Of a ``run`` the points up to the step ``up_to`` belong to ``root``.

    Args:
        roots: SQL that gives names of runs, in one column.
    """
    # Only SQL of this package is put in.
    return (
        f"line (root, run, up_to) AS (SELECT o.run, o.run, {_LAST_STEP} FROM ({roots}) o (run) UNION ALL"  # noqa: S608
        " SELECT l.root, r.forked_from, least(l.up_to, r.fork_step) FROM line l JOIN runs r ON r.name = l.run"
        " WHERE r.forked_from <> '')"
    )


async def history_of(database: Database, run: str, *, up_to: int) -> dict[str, MetricSummary]:
    """What the points of a run up to a step come to, by key; of a run that is a fork itself with those before it."""
    rows = await database.fetch(_SUMMARIES.format(line=line_of("SELECT $1::text")), run, up_to)
    found: dict[str, MetricSummary] = {}
    for key, last, least, most, count, step, time_us in rows:
        time = Timestamp()
        time.FromMicroseconds(time_us)
        found[key] = MetricSummary(last=last, min=least, max=most, count=count, last_step=step, last_time=time)
    return found
