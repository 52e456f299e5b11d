"""What searching and plotting cost from a thousand runs to a million: ``make bench-scaling`` (``RUNS=1000000``).

The first thousand runs are those of :mod:`tests.bench.searching`; the others are copies of them with names, times and
values of their own, each with a hundred points. The curve goes to docs/scaling.md.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

from headrace_kit.postgres import Connection, Database, connected, create_pool
from headrace_local.testing import run_infrastructure
from headrace_tracking.census import Asked, Census
from headrace_tracking.history import read_series
from tests.bench.figures import conditions
from tests.bench.searching import SEARCHES, search_once, seed

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "scaling.md"
FIRST: Final = 1000
POINTS: Final = 100
WRITTEN_FROM: Final = 100_000
"""Runs from which on the page is written."""
PLOTTED: Final = 100
"""Runs of one chart."""
COPIES_AT_ONCE: Final = 50

# A copy has its original's name but for the last twelve digits of the id, in the tables and in the messages.
_NAME: Final = "left({0}, -12) || lpad(to_hex(n), 12, '0')"
_MESSAGE: Final = (
    "overlay({0} PLACING convert_to(" + _NAME.format("{1}") + ", 'UTF8') FROM position(convert_to({1}, 'UTF8') in {0}))"
)
_CHANGED: Final = {
    "runs": {
        "name": _NAME.format("t.name"),
        "start_time": "t.start_time + n * interval '31 seconds'",
        "end_time": "t.end_time + n * interval '31 seconds'",
    },
    "run_views": {"name": _NAME.format("t.name"), "shown": _MESSAGE.format("t.shown", "t.name")},
    "run_metrics": {
        "run": _NAME.format("t.run"),
        "last": "t.last * (0.9 + random() / 10)",
    },
    "streams": {"stream_id": _NAME.format("t.stream_id"), "state": _MESSAGE.format("t.state", "t.stream_id")},
    "metric_chunks": {"run": _NAME.format("t.run")},
}
_POINTS: Final = f"""
INSERT INTO metric_chunks
SELECT name, 'loss', 1, {POINTS}, {POINTS}, 1, {POINTS}, array(SELECT generate_series(1, {POINTS})),
    array(SELECT generate_series(1, {POINTS})), array(SELECT generate_series(1, {POINTS}) * 1000000::bigint),
    array(SELECT random() + length(name) * 0 FROM generate_series(1, {POINTS}))
FROM runs
"""


async def measure(most: int) -> list[tuple[int, dict[str, float]]]:
    """Sizes from a thousand to ``most``, and of each the medians in milliseconds."""
    found: list[tuple[int, dict[str, float]]] = []
    with run_infrastructure() as infrastructure, infrastructure.database() as fresh:
        await seed(fresh, FIRST)
        database = await create_pool(fresh.service_dsn)
        async with connected(fresh.migration_dsn) as connection:
            await connection.execute("DELETE FROM metric_chunks")
            await connection.execute(_POINTS)
            await connection.execute("CREATE TABLE first_runs AS SELECT name FROM runs")
            count = FIRST
            while count <= most:
                await connection.execute("VACUUM ANALYZE")
                found.append((count, await _timed(database, count)))
                print(count, found[-1][1], flush=True)
                if count >= WRITTEN_FROM:
                    PAGE.write_text(page(found), encoding="utf-8")
                if count < most:
                    await _copy(connection, count // FIRST, count * 10 // FIRST)
                count *= 10
        await database.close()
    return found


async def _copy(connection: Connection, first: int, end: int) -> None:
    for table, changed in _CHANGED.items():
        rows = await connection.fetch(
            "SELECT column_name::text FROM information_schema.columns"
            " WHERE table_schema = 'public' AND table_name = $1 ORDER BY ordinal_position",
            table,
        )
        columns = [row[0] for row in rows]
        values = ", ".join(changed.get(column, f"t.{column}") for column in columns)
        name = next(iter(changed))
        for begin in range(first, end, COPIES_AT_ONCE):
            # Names of this module's and of the catalogue's; every number is one of ours.
            await connection.execute(
                f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values}"
                f" FROM first_runs f JOIN {table} t ON t.{name} = f.name,"
                f" generate_series({begin}, {min(begin + COPIES_AT_ONCE, end) - 1}) n"
            )


async def _timed(database: Database, count: int) -> dict[str, float]:
    times = 20 if count <= 100_000 else 5
    taken: dict[str, float] = {}
    for search in SEARCHES:
        taken[search.what] = await _median_ms(partial(search_once, database, search), times)
    names = [row[0] for row in await database.fetch("SELECT name FROM runs ORDER BY name LIMIT $1", PLOTTED)]

    async def plot() -> None:
        census = Census(database)
        found = [each async for each in census.histories(names, "loss", max_points=POINTS)]
        assert len(found) == PLOTTED

    async def history() -> None:
        assert len((await read_series(database, names[:1], "loss"))[names[0]].steps) == POINTS

    async def groups() -> None:
        await Census(database).keys(Asked("default", [], None))

    taken[f"chart of {PLOTTED} runs"] = await _median_ms(plot, times)
    taken["history of one run"] = await _median_ms(history, times)
    taken["keys of all runs"] = await _median_ms(groups, min(times, 3))
    return taken


async def _median_ms(work: Callable[[], Awaitable[object]], times: int) -> float:
    await work()
    taken: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        await work()
        taken.append((time.perf_counter() - began) * 1000)
    return median(taken)


def page(found: list[tuple[int, dict[str, float]]]) -> str:
    """The page."""
    head = "".join(f" {count:,} runs |" for count, _ in found)
    rows = "\n".join(f"| {what} |" + "".join(f" {taken[what]:,.1f} |" for _, taken in found) for what in found[0][1])
    return f"""# Cost against size

Written by `make bench-scaling`; medians in milliseconds; {POINTS} points a run, so that the last column has
{found[-1][0] * POINTS:,}. {conditions()}

| what |{head}
|---|{"---|" * len(found)}
{rows}
"""


if __name__ == "__main__":
    most_runs = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    print(page(asyncio.run(measure(most_runs))))
