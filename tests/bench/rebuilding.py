"""A million events: a rebuild of all read models, and states of the past: ``python -m tests.bench.rebuilding``."""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from uuid import UUID, uuid4

import psutil
from google.protobuf.message import Message

from headrace.api.common.v1.resources_pb2 import DatasetVersion
from headrace.api.tracking.v1 import events_pb2 as events
from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace_kit.eventstore import EventMeta, PostgresEventStore
from headrace_kit.eventtypes import EventTypes, type_name
from headrace_kit.history import History
from headrace_kit.postgres import connected, create_pool, migrate
from headrace_kit.rebuild import Progress, Rebuild
from headrace_local.testing import FreshDatabase, Infrastructure, run_infrastructure
from headrace_tracking.events import EVENT_TYPES
from headrace_tracking.store import EXPERIMENT, RUN
from tests.bench.figures import Figure

EVENTS_A_RUN = 20
LONG_RUNS = 10
"""Runs of two thousand events each: what training for days leaves."""
LONG_RUN_EVENTS = 2000
START = datetime(2026, 1, 1, tzinfo=UTC)
_ID = str(UUID(int=0))
_NAME = f"projects/default/runs/{_ID}"
_META = EventMeta(actor="persons/operator", command_id=UUID(_ID), project="default").encode()
_COLUMNS = ("stream_id", "version", "event_id", "type", "occurred_at", "hlc", "meta", "data")
_SEQUENCED = """
INSERT INTO log_entries (position, local_id, sequenced_at, leaf)
SELECT local_id, local_id, timestamptz '2026-01-01 00:00+00' + local_id * interval '1 ms', sha256(data) FROM events
WHERE local_id > $1 AND local_id <= $2
"""


def run_events(name: str, count: int) -> Iterator[Message]:
    """What a run leaves: parameters, groups of metric points, a dataset, a model, its end."""
    run = resources.Run(
        name=name,
        experiment="projects/default/experiments/bench",
        display_name=f"run-{name[-8:]}",
        status=resources.RUN_STATUS_RUNNING,
        actor="persons/operator",
        tags={"team": "ops", "kind": "bench"},
        code=resources.CodeVersion(commit="a" * 40, branch="main", entrypoint="train.py"),
    )
    run.start_time.FromDatetime(START)
    yield events.RunStarted(run=run)
    yield events.ParamsLogged(run=name, params={f"param-{index}": str(index / 7) for index in range(10)})
    for group in range(count - 5):
        recorded = events.MetricsRecorded(run=name, group=group + 1, count=300, sha256=b"\x01" * 32)
        for key in ("loss", "accuracy", "rmse"):
            value = group / 3
            recorded.summaries[key].CopyFrom(
                resources.MetricSummary(last=value, min=0.0, max=value, last_step=group, count=100)
            )
        yield recorded
    yield events.DatasetLogged(run=name, dataset=DatasetVersion(name="flights", digest="sha256:1"))
    artifact = resources.Artifact(path="model/model.onnx")
    artifact.time.FromDatetime(START + timedelta(days=1))
    yield events.ArtifactLogged(run=name, artifact=artifact)
    finished = events.RunFinished(run=name, status=resources.RUN_STATUS_FINISHED)
    finished.time.FromDatetime(START + timedelta(days=2))
    yield finished


def _templates(count: int) -> list[tuple[str, bytes]]:
    """Type and data of each event of a run without a name."""
    found = [(type_name(each), each.SerializeToString(deterministic=True)) for each in run_events(_NAME, count)]
    return list(found)


async def fill(fresh: FreshDatabase, count: int) -> list[str]:
    """Migrates, and writes so many events, streams interleaved as they would be; returns the streams."""
    await migrate(fresh.migration_dsn, ["headrace_tracking"], service_dsn=fresh.service_dsn)
    long_runs = LONG_RUNS if count >= 100_000 else 1
    ordinary = (count - long_runs * LONG_RUN_EVENTS) // EVENTS_A_RUN
    lengths = [LONG_RUN_EVENTS] * long_runs + [EVENTS_A_RUN] * ordinary
    chance = random.Random(1)
    chance.shuffle(lengths)
    names = [f"projects/default/runs/{UUID(int=chance.getrandbits(128))}" for _ in lengths]
    templates = {length: _templates(length) for length in set(lengths)}
    async with connected(fresh.migration_dsn) as connection:
        rows: list[tuple[object, ...]] = []
        for group in range(0, len(names), 50):  # fifty runs at once
            together = [
                [_row(name, version, *each) for version, each in enumerate(templates[length], start=1)]
                for name, length in zip(names[group : group + 50], lengths[group : group + 50], strict=True)
            ]
            rows += [row for round_ in zip_longest(*together) for row in round_ if row is not None]
            if len(rows) > 20_000 or group + 50 >= len(names):
                await connection.copy_rows("events", _COLUMNS, rows)
                rows = []
        last = await connection.fetchval("SELECT max(local_id) FROM events")
        for first in range(0, last, 100_000):
            await connection.execute(_SEQUENCED, first, first + 100_000)
        await connection.execute("ANALYZE")
    return names


@dataclass(frozen=True, slots=True)
class Taken:
    """Seconds of a rebuild; of the processor for it, here and in PostgreSQL; and how long appends waited."""

    whole_s: float
    here_s: float
    server_s: float
    locked_s: float


async def rebuild(store: PostgresEventStore, server: psutil.Process) -> Taken:
    """One rebuild; the machine may be shared, so the processor's time is told besides."""
    began, here, there = time.monotonic(), time.process_time(), _processor(server)
    entered: dict[str, float] = {}

    def tell(progress: Progress) -> None:
        entered.setdefault(progress.phase.name, time.monotonic() - began)

    report = await Rebuild(store, [EXPERIMENT, RUN]).run(check=False, tell=tell)
    taken = Taken(time.monotonic() - began, time.process_time() - here, _processor(server) - there, report.locked_s)
    phases = ", ".join(f"{name.lower().replace('_', ' ')} from {at:.1f} s" for name, at in entered.items())
    print(f"{phases}; {taken}", flush=True)
    if not report.swapped:
        raise AssertionError("a rebuild that is not a check swaps")
    return taken


async def states(store: PostgresEventStore, names: list[str], *, times: int) -> tuple[float, float]:
    """Median and 99th percentile, in milliseconds, of the state of any entity at any position that has it."""
    history, chance = History(store, [EXPERIMENT, RUN]), random.Random(2)
    taken: list[float] = []
    for name in chance.choices(names, k=times):
        last = len(await store.read_stream(name))
        position = await store.position_of(name, chance.randint(1, last))
        began = time.perf_counter()
        await history.state_at(name, position)
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken), statistics.quantiles(taken, n=100)[98]


async def _measure(infrastructure: Infrastructure, count: int) -> list[Figure]:
    with infrastructure.database() as fresh:
        names = await fill(fresh, count)
        database = await create_pool(fresh.service_dsn)
        try:
            store = PostgresEventStore(database, "headrace/tracking", EventTypes(*EVENT_TYPES))
            server = psutil.Process(infrastructure.stack.supervised["postgres"].pid)
            await rebuild(store, server)  # from here on the live tables are full
            taken = await rebuild(store, server)
            median, late = await states(store, names, times=500)
            long_runs = [each for each in names if await store.position_of(each, EVENTS_A_RUN + 1) is not None]
            long_median, _ = await states(store, long_runs, times=100)
        finally:
            await database.close()
    return [
        Figure(
            f"rebuild of tracking's read models, {count:,} events, {len(names):,} runs",
            f"{taken.whole_s:.0f} s (processor: {taken.here_s:.0f} s Python, {taken.server_s:.0f} s PostgreSQL); "
            f"appends wait {taken.locked_s * 1000:.0f} ms",
            "60 s" if count == 1_000_000 else "",
            "one Python process that decodes and folds",
        ),
        Figure(
            f"state of an entity at any moment, {count:,} events",
            f"p50 {median:.1f} ms, p99 {late:.1f} ms",
            "p50 50 ms",
            "statements one after the other",
        ),
        Figure(f"the same, runs of {LONG_RUN_EVENTS:,} events", f"p50 {long_median:.1f} ms", "p50 50 ms", "the fold"),
    ]


def measure(*, quick: bool) -> Iterator[Figure]:
    """On infrastructure of its own."""
    with run_infrastructure() as running:
        yield from asyncio.run(_measure(running, 50_000 if quick else 1_000_000))


def _processor(server: psutil.Process) -> float:
    """Seconds of processor that PostgreSQL's processes took so far."""
    times = [each.cpu_times() for each in (server, *server.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def _row(name: str, version: int, type_: str, data: bytes) -> tuple[object, ...]:
    meta, at = _META.replace(_ID.encode(), str(uuid4()).encode()), START + timedelta(milliseconds=version)
    return name, version, uuid4(), type_, at, version << 16, meta, data.replace(_NAME.encode(), name.encode())


if __name__ == "__main__":
    for each in measure(quick="--quick" in sys.argv):
        print(f"{each.what}: {each.value}", flush=True)
