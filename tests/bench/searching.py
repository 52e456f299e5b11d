"""Searches among 20,000 runs: ``python -m tests.bench.searching``; with ``--explain`` it prints the plans, too."""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, cast
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.tracking.v1 import events_pb2 as events
from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.eventstore.rows import writes_to
from headrace_kit.eventtypes import EventTypes
from headrace_kit.objects import ObjectStore
from headrace_kit.postgres import Database, connected, create_pool, migrate
from headrace_local.testing import FreshDatabase, Infrastructure, run_infrastructure
from headrace_tracking.census import Census
from headrace_tracking.claims import Claims
from headrace_tracking.columns import Columns
from headrace_tracking.events import EVENT_TYPES
from headrace_tracking.filters import parse_filter, parse_order
from headrace_tracking.metrics import MetricWriter
from headrace_tracking.outputs import OutputStore
from headrace_tracking.pointstore import Inserted, PointStore, copy_points
from headrace_tracking.purging import Purger
from headrace_tracking.rpc import TrackingServicer
from headrace_tracking.sealing import Sealer
from headrace_tracking.store import RUN, RunStore, run_rows, search_statement
from headrace_tracking.tracedeleting import TraceDeleter
from headrace_tracking.tracestore import TraceStore
from tests.bench.figures import Figure

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
METRICS: Final = ("rmse", "loss", "accuracy", "val/rmse", "val/loss", "val/accuracy", "lr", "epoch_s", "f1", "auc")
STEPS: Final = (0, 50, 100)
PACKAGES: Final = 150


@dataclass(frozen=True, slots=True)
class Search:
    """One search: how it is called, what it asks, and what it may take (p50 and p95, in milliseconds)."""

    what: str
    filter: str
    order_by: str = ""
    page_size: int = 100
    aim: str = ""


SEARCHES: Final = (
    Search("one metric threshold, sorted, 100 back", "metric.rmse < 30", "metric.rmse", aim="15/40 ms"),
    Search("the same, largest first", "metric.rmse > 30", "metric.rmse desc", aim="15/40 ms"),
    Search("newest 100, no filter", "", aim="15/40 ms"),
    Search("two metrics and a parameter", 'metric.rmse < 30 and metric.auc > 0.9 and param.model = "tree"'),
    Search("a metric at a step", "metric.loss.at.100 < 0.05", "metric.loss"),
    Search("a tag and a commit", 'tag.team = "ops" and code.commit like "3f%"'),
    Search("one metric threshold, 1,000 back", "metric.rmse < 60", "metric.rmse", 1000, "under 150 ms"),
)


def made(number: int, chance: random.Random) -> resources.Run:
    """A run as training leaves it, with its packages."""
    name = f"projects/default/runs/{UUID(int=chance.getrandbits(128))}"
    run = resources.Run(
        name=name,
        experiment=f"projects/default/experiments/e{number % 20}",
        display_name=f"run-{name[-8:]}",
        status=resources.RUN_STATUS_FINISHED,
        actor="persons/operator",
        params={f"param-{index}": str(chance.random()) for index in range(11)}
        | {"model": chance.choice(("tree", "forest", "net"))},
        tags={"team": chance.choice(("ops", "research", "ads")), "kind": "bench", "seed": str(number)},
        code=resources.CodeVersion(
            commit=f"{chance.getrandbits(160):040x}", branch="main", dirty=chance.random() < 0.3, entrypoint="train.py"
        ),
        environment=resources.Environment(python="3.11.7", platform="Linux-6.1-x86_64", cpu="a processor"),
        revision=5,
    )
    for index in range(PACKAGES):
        run.environment.packages.add(name=f"some-package-{index}", version=f"{index}.{index % 7}.1")
    run.start_time.FromDatetime(START + timedelta(minutes=7 * number))
    run.end_time.FromDatetime(START + timedelta(minutes=7 * number + chance.randint(1, 90)))
    for key in METRICS:
        scale = 100.0 if "rmse" in key else 1.0
        last = chance.random() * scale
        summary = resources.MetricSummary(last=last, min=last * 0.9, max=last * 3, count=len(STEPS), last_step=100)
        summary.last_time.CopyFrom(_seconds(run.end_time.seconds))
        run.metrics[key].CopyFrom(summary)
    return run


async def seed(fresh: FreshDatabase, count: int) -> None:
    """Migrates, and writes so many runs straight into the tables."""
    await migrate(fresh.migration_dsn, ["headrace_tracking"], service_dsn=fresh.service_dsn)
    chance = random.Random(1)
    async with connected(fresh.migration_dsn) as connection:
        for first in range(0, count, 1000):
            found = [made(number, chance) for number in range(first, min(first + 1000, count))]
            changes = [
                events.RunStarted(),
                events.MetricsRecorded(summaries={key: found[0].metrics[key] for key in METRICS}),
            ]
            rows = [row for run in found for row in run_rows(run.name, run, changes)]
            for statement, text in writes_to("public", rows):
                await connection.execute(statement, text)
            streams = [
                (run.name, "run", 5, 1, RUN.revision, run.SerializeToString(deterministic=True)) for run in found
            ]
            await connection.copy_rows(
                "streams", ("stream_id", "aggregate", "version", "hlc", "revision", "state"), streams
            )
            points = [
                Inserted(
                    run.name,
                    1,
                    [
                        Columns(
                            "loss",
                            list(range(len(STEPS))),
                            list(STEPS),
                            [step * 1_000_000 for step in STEPS],
                            [chance.random() for _ in STEPS],
                        )
                    ],
                    {},
                )
                for run in found
            ]
            await copy_points(connection, points)
        await connection.execute("VACUUM ANALYZE")


async def _measure(infrastructure: Infrastructure, count: int, times: int, *, explain: bool) -> list[Figure]:

    with infrastructure.database() as fresh:
        await seed(fresh, count)
        database = await create_pool(fresh.service_dsn)
        try:
            found = [await _timed(database, each, count, times) for each in SEARCHES]
            if explain:
                for each in SEARCHES:
                    print(await _plan(database, each), flush=True)
        finally:
            await database.close()
    return found


async def search_once(database: Database, search: Search) -> int:
    """How many runs come back."""
    request = service.SearchRunsRequest(
        parent="projects/default", filter=search.filter, order_by=search.order_by, page_size=search.page_size
    )
    answer = await _servicer(database).SearchRuns(request, None)  # type: ignore[arg-type] # it asks no context
    answer.SerializeToString()
    return len(answer.runs)


async def _timed(database: Database, search: Search, count: int, times: int) -> Figure:
    taken: list[float] = []
    rows = 0
    for _ in range(times):
        began = time.perf_counter()
        rows = await search_once(database, search)
        taken.append((time.perf_counter() - began) * 1000)
    late = statistics.quantiles(taken, n=20)[18]
    return Figure(
        f"search of {count:,} runs: {search.what} ({rows})",
        f"p50 {statistics.median(taken):.1f} ms, p95 {late:.1f} ms",
        search.aim,
        "Python's messages of the runs that come back" if rows == 1000 else "",
    )


def _servicer(database: Database) -> TrackingServicer:
    store = PostgresEventStore(database, "headrace/tracking", EventTypes(*EVENT_TYPES))
    points = PointStore(database)
    writer = MetricWriter(points, Sealer(store, points))
    return TrackingServicer(
        store,
        RunStore(database),
        points,
        census=Census(database),
        outputs=OutputStore(database),
        writer=writer,
        purger=Purger(store, cast("ObjectStore", None), Claims(database, {})),
        traces=TraceStore(database),
        deleter=TraceDeleter(store, None),
        objects=cast("ObjectStore", None),
    )


def measure(*, quick: bool) -> Iterator[Figure]:
    """On infrastructure of its own."""
    with run_infrastructure() as running:
        yield from asyncio.run(
            _measure(running, 2000 if quick else 20_000, 20 if quick else 40, explain="--explain" in sys.argv)
        )


async def _plan(database: Database, search: Search) -> str:
    query = search_statement(
        "default", condition=parse_filter(search.filter), orders=parse_order(search.order_by), limit=search.page_size
    )
    lines = await database.fetch(f"EXPLAIN (ANALYZE, BUFFERS) {query.sql}", *query.parameters)
    return "\n".join((search.what, *(str(line[0]) for line in lines)))


def _seconds(seconds: int) -> Timestamp:
    return Timestamp(seconds=seconds)


if __name__ == "__main__":
    for each in measure(quick="--quick" in sys.argv):
        print(f"{each.what}: {each.value}", flush=True)
