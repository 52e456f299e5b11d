"""Tracking's aggregates and read models."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.tracking.v1 import events_pb2 as events
from headrace.api.tracking.v1.resources_pb2 import (
    VIEW_ALL,
    VIEW_DELETED,
    Experiment,
    LoggedModel,
    MetricSummary,
    Run,
    RunStatus,
    View,
)
from headrace_kit.eventstore import Aggregate, Row
from headrace_kit.postgres import Database
from headrace_kit.tables import Kind, Table
from headrace_tracking import experiments, forks, loggedmodels, searching
from headrace_tracking.domain import evolve_run
from headrace_tracking.filters import Condition, Order
from headrace_tracking.history import read_series
from headrace_tracking.thinning import Series


def experiment_rows(stream_id: str, state: Experiment, changes: Sequence[Message]) -> Sequence[Row]:
    """The row of an experiment, and those of traces of it that ``changes`` deleted."""
    deleted = [
        Row("deleted_traces", {"name": f"projects/{_project(stream_id)}/traces/{trace}"}, {})
        for each in changes
        if isinstance(each, events.TracesDeleted)
        for trace in each.traces
    ]
    values = {
        "project": _project(stream_id),
        "create_time": state.create_time.ToDatetime(tzinfo=UTC),
        "display_name": state.display_name,
        "number": state.number,
        "delete_time": _moment(state, "delete_time"),
    }
    return [Row("experiments", {"name": stream_id}, values), *deleted]


def logged_model_rows(stream_id: str, state: LoggedModel, changes: Sequence[Message]) -> Sequence[Row]:
    """The rows of a logged model that ``changes`` touched."""
    rows = [
        Row("logged_model_objects", {"model": stream_id, "uri": each.artifact.object.uri}, {})
        for each in changes
        if isinstance(each, events.LoggedModelArtifactLogged)
    ]
    if not any(isinstance(each, events.LoggedModelCreated | events.LoggedModelDeleted) for each in changes):
        return rows
    values = {
        "project": _project(stream_id),
        "experiment": state.experiment,
        "run": state.run,
        "create_time": state.create_time.ToDatetime(tzinfo=UTC),
        "delete_time": _moment(state, "delete_time"),
    }
    return [*rows, Row("logged_models", {"name": stream_id}, values)]


def run_rows(stream_id: str, state: Run, changes: Sequence[Message]) -> Sequence[Row]:
    """The rows of a run that ``changes`` touched; none is left of one that was purged."""
    if state.HasField("purge_time"):
        return list(_purged_rows(stream_id, changes))
    rows = [Row("run_views", {"name": stream_id}, {"shown": _shown_state(state)})]
    if any(not isinstance(each, events.MetricsRecorded) for each in changes):
        rows.append(_run_row(stream_id, state))
    touched = {key for each in changes if isinstance(each, events.MetricsRecorded) for key in each.summaries}
    touched.update(key for each in changes if isinstance(each, events.RunStarted) for key in each.run.metrics)
    for key in sorted(touched):
        summary = state.metrics[key]
        values = {
            "last": summary.last,
            "min": summary.min,
            "max": summary.max,
            "count": summary.count,
            "last_step": summary.last_step,
            "last_time_us": summary.last_time.ToMicroseconds(),
        }
        rows.append(Row("run_metrics", {"run": stream_id, "key": key}, values))
    for each in changes:
        if isinstance(each, events.ArtifactLogged):
            held = each.artifact.object
            rows.append(
                Row(
                    "run_objects",
                    {"run": stream_id, "uri": held.uri},
                    {"sha256": held.sha256, "size_bytes": held.size_bytes},
                )
            )
    return rows


TABLES: Final = (
    Table("experiments", Kind.READ_MODEL, "what lists of experiments need"),
    Table("runs", Kind.READ_MODEL, "what searches of runs need"),
    Table("run_views", Kind.READ_MODEL, "each run as searches show it: without packages"),
    Table("run_metrics", Kind.READ_MODEL, "last, least, greatest and number of each metric; kept up with the points"),
    Table("run_objects", Kind.READ_MODEL, "bytes that runs refer to, or did"),
    Table("logged_models", Kind.READ_MODEL, "what lists of logged models need"),
    Table("logged_model_objects", Kind.READ_MODEL, "bytes that logged models refer to, or did"),
    Table("metric_chunks", Kind.TRUTH, "every point; verified against the digests of MetricsRecorded"),
    Table("metric_commands", Kind.TRUTH, "ids of the commands whose points were taken"),
    Table("metric_tails", Kind.TRUTH, "batches of points that no event speaks of yet, and in whose name it will be"),
    Table("run_output", Kind.TRUTH, "the first and the last 8 MiB that each run wrote to its standard streams"),
    Table("run_output_sizes", Kind.TRUTH, "how much of that is kept"),
    Table("deleted_traces", Kind.READ_MODEL, "ids of traces that were deleted: what comes of them later is not kept"),
    Table("traces", Kind.TRUTH, "traces of applications: what their spans and their application say of them"),
    Table("spans", Kind.TRUTH, "spans of traces; they go with their trace, by deletion or age"),
    Table("released_objects", Kind.PROGRESS, "bytes of purged runs, until they are freed or found to be needed"),
    Table("claimed_digests", Kind.PROGRESS, "digests that the logs of other services name"),
    Table("claims_read", Kind.PROGRESS, "up to where those logs were read"),
)
"""Tracking's tables."""

EXPERIMENT = Aggregate(
    name="experiment",
    state=Experiment,
    evolve=experiments.evolve,
    rows=experiment_rows,
    tables=("experiments", "deleted_traces"),
)
"""Stream: ``projects/{project}/experiments/{experiment}``."""

RUN = Aggregate(
    name="run",
    state=Run,
    evolve=evolve_run,
    rows=run_rows,
    tables=("runs", "run_views", "run_metrics", "run_objects"),
    ahead={"run_metrics": "EXISTS (SELECT FROM metric_tails t WHERE t.run = live.run)"},
    revision=3,
)
"""Stream: ``projects/{project}/runs/{run}``."""

LOGGED_MODEL = Aggregate(
    name="loggedModel",
    state=LoggedModel,
    evolve=loggedmodels.evolve,
    rows=logged_model_rows,
    tables=("logged_models", "logged_model_objects"),
    revision=2,
)
"""Stream: ``projects/{project}/loggedModels/{model}``."""


@dataclass(frozen=True, slots=True)
class Found:
    """A page of runs.

    Attributes:
        runs: The runs in order.
        behind: Those of them whose events do not tell all their points yet.
        place: Where the next page begins.
    """

    runs: list[Run]
    behind: list[Run]
    place: str


@dataclass(frozen=True, slots=True)
class Statement:
    """A search as SQL; its rows have ``keys`` columns ``k0``, ``k1`` and so on, which they are sorted by."""

    sql: str
    parameters: Sequence[object]
    keys: int


def search_statement(
    project: str,
    *,
    experiments: Sequence[str] = (),
    condition: Condition | None,
    orders: Sequence[Order],
    limit: int,
    after: str = "",
    skip: int = 0,
    view: View.ValueType = VIEW_ALL,
) -> Statement:
    """The SQL of ``RunStore.search``."""
    sql = searching.SqlBuilder(project, condition=condition)
    where = [matching(sql, experiments=experiments, condition=condition, view=view)]
    keys = searching.sort_keys(sql, orders)
    if after:
        where.append(searching.after(sql, keys, searching.read(keys, after)))
    values = ", ".join(f"{key.expression} AS k{at}" for at, key in enumerate(keys))
    order = ", ".join(key.sql for key in keys)
    # Only text of this module and of SqlBuilder is SQL here; every value is a parameter, limit and offset are numbers.
    text = (
        f"WITH page AS (SELECT r.name, {values} FROM {sql.source} WHERE {' AND '.join(where)}"  # noqa: S608
        f" ORDER BY {order} LIMIT {int(limit)} OFFSET {int(skip)})"
        " SELECT v.shown, EXISTS (SELECT FROM metric_tails t WHERE t.run = p.name) AS is_behind, p.*"
        " FROM (SELECT *, row_number() OVER () AS place FROM page) p JOIN run_views v USING (name) ORDER BY p.place"
    )
    return Statement(text, sql.parameters, len(keys))


class RunStore:
    """Queries on the read models."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_experiments(
        self, project: str, *, after: str, limit: int, view: View.ValueType = VIEW_ALL
    ) -> list[Experiment]:
        """At most ``limit`` experiments by name, after the name ``after``, with the number of their runs."""
        rows = await self._database.fetch(
            "SELECT s.state, e.display_name, e.number,"  # noqa: S608 - _shown gives text of this module
            " (SELECT count(*) FROM runs r WHERE r.experiment = e.name AND r.delete_time IS NULL) AS run_count"
            " FROM experiments e JOIN streams s ON s.stream_id = e.name"
            f" WHERE e.project = $1 AND e.name > $2 AND {_shown('e.delete_time IS NOT NULL', view)}"
            " ORDER BY e.name LIMIT $3",
            project,
            after,
            limit,
        )
        found: list[Experiment] = []
        for row in rows:
            experiment = Experiment.FromString(row["state"])
            experiment.run_count = row["run_count"]
            experiment.display_name, experiment.number = row["display_name"], row["number"]
            found.append(experiment)
        return found

    async def experiment_named(self, project: str, *, display_name: str, number: int) -> str | None:
        """Resource name of the experiment of that name for people, or of that number when the name is empty."""
        column, value = ("display_name", display_name) if display_name else ("number", number)
        sql = f"SELECT name FROM experiments WHERE project = $1 AND {column} = $2"  # noqa: S608 - one of two words
        name: str | None = await self._database.fetchval(sql, project, value)
        return name

    async def list_logged_models(
        self, project: str, *, experiments: Sequence[str], run: str, after: str, limit: int
    ) -> list[LoggedModel]:
        """At most ``limit`` logged models in use, newest first, after the one named ``after``."""
        before: datetime | None = await self._database.fetchval(
            "SELECT create_time FROM logged_models WHERE name = $1", after
        )
        rows = await self._database.fetch(
            "SELECT s.state FROM logged_models m JOIN streams s ON s.stream_id = m.name"
            " WHERE m.project = $1 AND m.delete_time IS NULL AND ($2::text[] = '{}' OR m.experiment = ANY($2))"
            " AND ($3 = '' OR m.run = $3)"
            " AND ($4::timestamptz IS NULL OR m.create_time < $4 OR (m.create_time = $4 AND m.name > $5))"
            " ORDER BY m.create_time DESC, m.name LIMIT $6",
            project,
            list(experiments),
            run,
            before,
            after,
            limit,
        )
        return [LoggedModel.FromString(row["state"]) for row in rows]

    async def search(
        self,
        project: str,
        *,
        experiments: Sequence[str],
        condition: Condition | None,
        orders: Sequence[Order],
        limit: int,
        after: str = "",
        skip: int = 0,
        view: View.ValueType = VIEW_ALL,
    ) -> Found:
        """At most ``limit`` runs in order, after a place or ``skip`` of them; without packages of their environment."""
        statement = search_statement(
            project,
            experiments=experiments,
            condition=condition,
            orders=orders,
            limit=limit,
            after=after,
            skip=skip,
            view=view,
        )
        rows = await self._database.fetch(statement.sql, *statement.parameters)
        runs = [Run.FromString(row["shown"]) for row in rows]
        behind = [run for run, row in zip(runs, rows, strict=True) if row["is_behind"]]
        place = searching.written([rows[-1][f"k{at}"] for at in range(statement.keys)]) if rows else ""
        return Found(runs, behind, place)

    async def series(self, run: str, key: str) -> Series:
        """All points of a metric of a run, with those of the history it goes on with."""
        return (await read_series(self._database, [run], key)).get(run, Series())

    async def history(self, run: str, *, up_to: int) -> dict[str, MetricSummary]:
        """What the points of a run up to a step come to, by key."""
        return await forks.history_of(self._database, run, up_to=up_to)


def matching(
    sql: searching.SqlBuilder,
    *,
    experiments: Sequence[str],
    condition: Condition | None,
    view: View.ValueType = VIEW_ALL,
) -> str:
    """An SQL condition on ``sql.source`` for the runs of a search; the project is the first parameter of ``sql``."""
    where = ["r.project = $1"]
    if view != VIEW_ALL:
        away = "EXISTS (SELECT FROM experiments e WHERE e.name = r.experiment AND e.delete_time IS NOT NULL)"
        where.append(_shown(f"(r.delete_time IS NOT NULL OR {away})", view))
    if experiments:
        where.append(f"r.experiment = ANY({sql.parameter(list(experiments))}::text[])")
    if condition is not None:
        where.append(sql.condition(condition))
    return " AND ".join(where)


def _purged_rows(stream_id: str, changes: Sequence[Message]) -> Iterator[Row]:
    """Deletions of every row that a run may have, where it was purged by one of ``changes``."""
    for each in changes:
        if isinstance(each, events.RunPurged):
            yield Row("runs", {"name": stream_id}, None)
            yield Row("run_views", {"name": stream_id}, None)
            for key in each.metrics:
                yield Row("run_metrics", {"run": stream_id, "key": key}, None)
            for held in each.objects:
                yield Row("run_objects", {"run": stream_id, "uri": held.uri}, None)


def _run_row(stream_id: str, state: Run) -> Row:
    values = {
        "project": _project(stream_id),
        "experiment": state.experiment,
        "display_name": state.display_name,
        "status": RunStatus.Name(state.status).removeprefix("RUN_STATUS_"),
        "start_time": state.start_time.ToDatetime(tzinfo=UTC),
        "end_time": _moment(state, "end_time"),
        "delete_time": _moment(state, "delete_time"),
        "params": dict(state.params),
        "tags": dict(state.tags),
        "parent_run": state.parent_run,
        "run_group": state.group,
        "forked_from": state.forked_from,
        "fork_step": state.fork_step,
        "code_commit": state.code.commit,
        "code_dirty": state.code.dirty,
        "datasets": [{"name": each.name, "digest": each.digest, "context": each.context} for each in state.datasets],
    }
    return Row("runs", {"name": stream_id}, values)


def _shown_state(state: Run) -> bytes:
    shown = Run()
    shown.CopyFrom(state)
    shown.environment.ClearField("packages")
    return shown.SerializeToString(deterministic=True)


def _project(stream_id: str) -> str:
    return stream_id.split("/")[1]


def _shown(deleted: str, view: View.ValueType) -> str:
    """An SQL condition for a view; ``deleted`` is the one that holds for what was put away."""
    if view == VIEW_ALL:
        return "true"
    return deleted if view == VIEW_DELETED else f"NOT ({deleted})"


def _moment(state: Message, field: str) -> datetime | None:
    """A time of a state, or None where it is absent."""
    if not state.HasField(field):
        return None
    time: Timestamp = getattr(state, field)
    return time.ToDatetime(tzinfo=UTC)
