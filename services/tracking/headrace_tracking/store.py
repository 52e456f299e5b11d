"""Tracking's aggregates and read models."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Final

from google.protobuf.message import Message

from headrace.api.tracking.v1 import events_pb2 as events
from headrace.api.tracking.v1.resources_pb2 import Experiment, Run, RunStatus
from headrace_kit.eventstore import Aggregate, Row
from headrace_kit.postgres import Database
from headrace_kit.tables import Kind, Table
from headrace_tracking.domain import evolve_experiment, evolve_run
from headrace_tracking.filters import Condition, Order, SqlBuilder


def experiment_rows(stream_id: str, state: Experiment, _events: Sequence[Message]) -> Sequence[Row]:
    """The row of an experiment."""
    created = state.create_time.ToDatetime(tzinfo=UTC)
    return [Row("experiments", {"name": stream_id}, {"project": _project(stream_id), "create_time": created})]


def run_rows(stream_id: str, state: Run, changes: Sequence[Message]) -> Sequence[Row]:
    """The rows of a run that ``changes`` touched."""
    rows: list[Row] = []
    if any(not isinstance(each, events.MetricsRecorded) for each in changes):
        rows.append(_run_row(stream_id, state))
    touched = {key for each in changes if isinstance(each, events.MetricsRecorded) for key in each.summaries}
    for key in sorted(touched):
        summary = state.metrics[key]
        values = {"last": summary.last, "min": summary.min, "max": summary.max}
        rows.append(Row("run_metrics", {"run": stream_id, "key": key}, values))
    return rows


TABLES: Final = (
    Table("experiments", Kind.READ_MODEL, "what lists of experiments need"),
    Table("runs", Kind.READ_MODEL, "what searches of runs need"),
    Table("run_metrics", Kind.READ_MODEL, "last, least and greatest of each metric, of MetricsRecorded"),
    Table("metric_points", Kind.TRUTH, "every point; verified against the digests of MetricsRecorded"),
    Table("metric_commands", Kind.TRUTH, "ids of the commands whose points were taken"),
)
"""Tracking's tables."""

EXPERIMENT = Aggregate(
    name="experiment", state=Experiment, evolve=evolve_experiment, rows=experiment_rows, tables=("experiments",)
)
"""Stream: ``projects/{project}/experiments/{experiment}``."""

RUN = Aggregate(name="run", state=Run, evolve=evolve_run, rows=run_rows, tables=("runs", "run_metrics"))
"""Stream: ``projects/{project}/runs/{run}``."""


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one metric by step and time: three lists of equal length; times in microseconds since 1970 UTC."""

    steps: list[int]
    times_us: list[int]
    values: list[float]


class RunStore:
    """Queries on the read models."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_experiments(self, project: str, *, after: str, limit: int) -> list[Experiment]:
        """At most ``limit`` experiments by name, after the name ``after``, with the number of their runs."""
        rows = await self._database.fetch(
            "SELECT s.state, (SELECT count(*) FROM runs r WHERE r.experiment = e.name) AS run_count"
            " FROM experiments e JOIN streams s ON s.stream_id = e.name"
            " WHERE e.project = $1 AND e.name > $2 ORDER BY e.name LIMIT $3",
            project,
            after,
            limit,
        )
        found: list[Experiment] = []
        for row in rows:
            experiment = Experiment.FromString(row["state"])
            experiment.run_count = row["run_count"]
            found.append(experiment)
        return found

    async def search(
        self,
        project: str,
        *,
        experiment: str,
        condition: Condition | None,
        orders: Sequence[Order],
        offset: int,
        limit: int,
    ) -> list[Run]:
        """At most ``limit`` runs in order, after ``offset`` of them; without packages of their environment."""
        sql = SqlBuilder(project)
        where = ["r.project = $1"]
        if experiment:
            where.append(f"r.experiment = {sql.parameter(experiment)}")
        if condition is not None:
            where.append(sql.condition(condition))
        order = [f"{sql.value_of(each.subject)} {'DESC' if each.descending else 'ASC'} NULLS LAST" for each in orders]
        order.extend(["r.start_time DESC", "r.name"])
        page = f"LIMIT {sql.parameter(limit)} OFFSET {sql.parameter(offset)}"
        # Only text of this module and of SqlBuilder is SQL here; every value is a parameter.
        rows = await self._database.fetch(
            f"WITH page AS (SELECT r.name, row_number() OVER (ORDER BY {', '.join(order)}) AS place"  # noqa: S608
            f" FROM runs r WHERE {' AND '.join(where)} ORDER BY place {page})"
            " SELECT s.state FROM page p JOIN streams s ON s.stream_id = p.name ORDER BY p.place",
            *sql.parameters,
        )
        runs = [Run.FromString(row["state"]) for row in rows]
        for run in runs:
            run.environment.ClearField("packages")
        return runs

    async def series(self, run: str, key: str) -> Series:
        """All points of a metric of a run."""
        rows = await self._database.fetch(
            "SELECT step, time_us, value FROM metric_points WHERE run = $1 AND key = $2"
            " ORDER BY step, time_us, group_number, ordinal",
            run,
            key,
        )
        return Series([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])


def thin(series: Series, max_points: int) -> Series:
    """At most ``max_points`` points that keep first, last, and the extremes of each stretch; 0 keeps all."""
    size = len(series.values)
    if max_points <= 0 or size <= max_points:
        return series
    stretches = max(max_points // 2 - 1, 1)
    kept = {0, size - 1}
    for stretch in range(stretches):
        low, high = stretch * size // stretches, (stretch + 1) * size // stretches
        numbers = [index for index in range(low, high) if not math.isnan(series.values[index])]
        if numbers:
            kept.add(min(numbers, key=series.values.__getitem__))
            kept.add(max(numbers, key=series.values.__getitem__))
    chosen = sorted(kept)[:max_points] if max_points > 1 else [size - 1]
    return Series(
        [series.steps[index] for index in chosen],
        [series.times_us[index] for index in chosen],
        [series.values[index] for index in chosen],
    )


def _run_row(stream_id: str, state: Run) -> Row:
    values = {
        "project": _project(stream_id),
        "experiment": state.experiment,
        "display_name": state.display_name,
        "status": RunStatus.Name(state.status).removeprefix("RUN_STATUS_"),
        "start_time": state.start_time.ToDatetime(tzinfo=UTC),
        "end_time": state.end_time.ToDatetime(tzinfo=UTC) if state.HasField("end_time") else None,
        "params": dict(state.params),
        "tags": dict(state.tags),
    }
    return Row("runs", {"name": stream_id}, values)


def _project(stream_id: str) -> str:
    return stream_id.split("/")[1]
