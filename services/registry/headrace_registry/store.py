"""The registry's aggregate and read model."""

from collections.abc import Sequence
from datetime import UTC
from typing import Final

from google.protobuf.message import Message

from headrace.api.registry.v1.resources_pb2 import Model
from headrace_kit.eventstore import Aggregate, Row
from headrace_kit.postgres import Connection, Database
from headrace_kit.tables import Kind, Table
from headrace_registry.domain import evolve


def model_rows(stream_id: str, state: Model, _events: Sequence[Message]) -> Sequence[Row]:
    """The row of a model."""
    created = state.create_time.ToDatetime(tzinfo=UTC)
    project = stream_id.split("/")[1]
    values = {
        "project": project,
        "create_time": created,
        "deleted": state.HasField("delete_time"),
        "display_name": state.display_name,
        "names": [*state.former_names, state.display_name],
        "open_aliases": state.open_aliases,
    }
    return [Row("models", {"name": stream_id}, values)]


TABLES: Final = (
    Table("models", Kind.READ_MODEL, "what lists of models need"),
    Table("persons", Kind.TRUTH, "names of persons, which no event tells: what is deleted here is gone"),
    Table("webhooks", Kind.READ_MODEL, "what lists of webhooks and their fan-out need"),
    Table("webhook_targets", Kind.TRUTH, "URLs and secrets of webhooks, which no event tells"),
    Table("webhook_deliveries", Kind.PROGRESS, "how far each payload for a webhook is, dead letters among them"),
)
"""The registry's tables."""

MODEL = Aggregate(name="model", state=Model, evolve=evolve, rows=model_rows, tables=("models",), revision=4)
"""Stream: ``projects/{project}/models/{model}``."""


class ModelStore:
    """Queries on the read model."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_models(self, project: str, *, after: str, limit: int) -> list[Model]:
        """At most ``limit`` models of a project, by name, after the name ``after``."""
        rows = await self._database.fetch(
            "SELECT s.state, m.display_name FROM models m JOIN streams s ON s.stream_id = m.name"
            " WHERE m.project = $1 AND NOT m.deleted AND m.name > $2 ORDER BY m.name LIMIT $3",
            project,
            after,
            limit,
        )
        found: list[Model] = []
        for row in rows:
            model = Model.FromString(row["state"])
            model.display_name = row["display_name"] or model.display_name
            found.append(model)
        return found

    async def model_named(self, project: str, display_name: str) -> str | None:
        """Resource name of the model that people call so."""
        row = await self._database.fetchrow(
            "SELECT name FROM models WHERE project = $1 AND display_name = $2 AND NOT deleted", project, display_name
        )
        return None if row is None else row["name"]

    async def is_guarded(self, project: str, display_name: str, *, besides: str) -> bool:
        """Whether another model than ``besides`` that has or had the name needs approvals, or did until its end."""
        row = await self._database.fetchrow(
            "SELECT EXISTS (SELECT FROM models WHERE project = $1 AND NOT open_aliases AND names ? $2 AND name <> $3)"
            " AS guarded",
            project,
            display_name,
            besides,
        )
        return bool(row and row["guarded"])


async def name_of(connection: Connection, model: str) -> str:
    """What people call a model now; its id when it is not here."""
    called: str | None = await connection.fetchval("SELECT display_name FROM models WHERE name = $1", model)
    return called or model.rpartition("/")[2]
