"""Histories of metrics: all points of one, in order, with those of the runs it goes on with."""

from collections.abc import Sequence
from typing import Final

from headrace_kit.postgres import Database
from headrace_tracking.columns import Columns
from headrace_tracking.forks import line_of
from headrace_tracking.thinning import Series

_CHUNKS: Final = f"""
WITH RECURSIVE {line_of("SELECT * FROM unnest($1::text[])")}
SELECT l.root, l.up_to, c.last_step, c.places, c.steps, c.times_us, c.values
FROM line l JOIN metric_chunks c ON c.run = l.run AND c.key = $2 AND c.first_step <= l.up_to
ORDER BY l.root, c.first_place
"""  # noqa: S608 - text of this package


async def read_series(database: Database, runs: Sequence[str], key: str) -> dict[str, Series]:
    """All points of a metric of each run that has it, with those of the history it goes on with."""
    found: dict[str, Columns] = {}
    for root, up_to, last_step, *columns in await database.fetch(_CHUNKS, runs, key):
        chunk = Columns(key, *columns)
        if last_step > up_to:
            chunk = chunk.chosen([index for index, step in enumerate(chunk.steps) if step <= up_to])
        found.setdefault(root, Columns(key)).extend(chunk)
    return {run: in_order(points) for run, points in found.items()}


def in_order(points: Columns) -> Series:
    """Points by step, time and place."""
    series = Series(points.steps, points.times_us, points.values)
    if len(set(points.steps)) == len(points) and points.steps == sorted(points.steps):
        return series  # as it is nearly always, and soon seen
    return series.chosen(
        sorted(
            range(len(points)), key=lambda index: (points.steps[index], points.times_us[index], points.places[index])
        )
    )
