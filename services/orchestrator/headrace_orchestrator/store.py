"""The orchestrator's aggregates and read model."""

from collections.abc import Sequence
from typing import Final

from google.protobuf.message import Message

from headrace.api.orchestrator.v1.resources_pb2 import Pipeline, PipelineRun
from headrace_kit.eventstore import Aggregate, Row
from headrace_kit.postgres import Database
from headrace_kit.tables import Kind, Table
from headrace_orchestrator import definitions, domain


def pipeline_rows(stream_id: str, _state: Pipeline, _events: Sequence[Message]) -> Sequence[Row]:
    """The row of a pipeline."""
    return [Row("pipelines", {"name": stream_id}, {"project": stream_id.split("/")[1]})]


def run_rows(stream_id: str, state: PipelineRun, _events: Sequence[Message]) -> Sequence[Row]:
    """The row of a run."""
    values = {
        "project": stream_id.split("/")[1],
        "pipeline": state.pipeline,
        "open": state.status in domain.OPEN,
        "create_time": domain.moment(state.create_time),
    }
    return [Row("pipeline_runs", {"name": stream_id}, values)]


TABLES: Final = (
    Table("pipelines", Kind.READ_MODEL, "what lists of pipelines need"),
    Table("pipeline_runs", Kind.READ_MODEL, "what lists of runs and recovery need"),
)
"""The orchestrator's tables."""

PIPELINE = Aggregate(
    name="pipeline", state=Pipeline, evolve=definitions.evolve, rows=pipeline_rows, tables=("pipelines",)
)
"""Stream: ``projects/{project}/pipelines/{pipeline}``."""

RUN = Aggregate(name="pipelineRun", state=PipelineRun, evolve=domain.evolve, rows=run_rows, tables=("pipeline_runs",))
"""Stream: ``projects/{project}/pipelineRuns/{run}``."""


class OrchestratorStore:
    """Queries on the read model."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_pipelines(self, project: str, *, after: str, limit: int) -> list[Pipeline]:
        """At most ``limit`` pipelines of a project, by name, after the name ``after``."""
        rows = await self._database.fetch(
            "SELECT s.state FROM pipelines p JOIN streams s ON s.stream_id = p.name"
            " WHERE p.project = $1 AND p.name > $2 ORDER BY p.name LIMIT $3",
            project,
            after,
            limit,
        )
        return [Pipeline.FromString(row["state"]) for row in rows]

    async def all_pipelines(self) -> list[Pipeline]:
        """Every pipeline: recovery folds their schedules and triggers."""
        rows = await self._database.fetch("SELECT s.state FROM pipelines p JOIN streams s ON s.stream_id = p.name")
        return [Pipeline.FromString(row["state"]) for row in rows]

    async def list_runs(self, project: str, *, pipeline: str, before: str, limit: int) -> list[PipelineRun]:
        """At most ``limit`` runs of a project (and pipeline, unless empty), newest first, after the run ``before``."""
        rows = await self._database.fetch(
            "SELECT s.state FROM pipeline_runs r JOIN streams s ON s.stream_id = r.name"
            " WHERE r.project = $1 AND ($2 = '' OR r.pipeline = $2) AND ($3 = '' OR (r.create_time, r.name) <"
            " (SELECT b.create_time, b.name FROM pipeline_runs b WHERE b.name = $3))"
            " ORDER BY r.create_time DESC, r.name DESC LIMIT $4",
            project,
            pipeline,
            before,
            limit,
        )
        return [PipelineRun.FromString(row["state"]) for row in rows]

    async def open_runs(self) -> list[PipelineRun]:
        """The runs that have not ended, oldest first."""
        rows = await self._database.fetch(
            "SELECT s.state FROM pipeline_runs r JOIN streams s ON s.stream_id = r.name"
            " WHERE r.open ORDER BY r.create_time, r.name"
        )
        return [PipelineRun.FromString(row["state"]) for row in rows]
