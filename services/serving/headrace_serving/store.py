"""Serving's aggregate and read model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import Message

from headrace.api.registry.v1.resources_pb2 import PackageTrust, Version
from headrace.api.serving.v1.resources_pb2 import Endpoint
from headrace_kit.eventstore import Aggregate, Row
from headrace_kit.postgres import Database
from headrace_kit.tables import Kind, Table
from headrace_serving.domain import evolve


def endpoint_rows(stream_id: str, state: Endpoint, _events: Sequence[Message]) -> Sequence[Row]:
    """The row of an endpoint."""
    values = {
        "project": stream_id.split("/")[1],
        "model": state.model,
        "alias": state.alias,
        "rollout": state.rollout.id,
    }
    return [Row("endpoints", {"name": stream_id}, values)]


TABLES: Final = (
    Table("endpoints", Kind.READ_MODEL, "what lists and look-ups of endpoints need"),
    Table("versions", Kind.CACHE, "what the registry said of versions that were loaded"),
)
"""Serving's tables."""

ENDPOINT = Aggregate(name="endpoint", state=Endpoint, evolve=evolve, rows=endpoint_rows, tables=("endpoints",))
"""Stream: ``projects/{project}/endpoints/{endpoint}``."""

_SELECT = "SELECT s.state FROM endpoints e JOIN streams s ON s.stream_id = e.name"


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """A version as the registry told it.

    Attributes:
        version: The version.
        trust: What is to be verified of its package.
    """

    version: Version
    trust: PackageTrust


class EndpointStore:
    """Queries on the read model, and what is known of versions of the registry."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[Endpoint]:
        """Every endpoint, by name."""
        rows = await self._database.fetch(f"{_SELECT} ORDER BY e.name")
        return [Endpoint.FromString(row["state"]) for row in rows]

    async def list_endpoints(self, project: str, *, after: str, limit: int) -> list[Endpoint]:
        """At most ``limit`` endpoints of a project, by name, after the name ``after``."""
        sql = f"{_SELECT} WHERE e.project = $1 AND e.name > $2 ORDER BY e.name LIMIT $3"
        rows = await self._database.fetch(sql, project, after, limit)
        return [Endpoint.FromString(row["state"]) for row in rows]

    async def following(self, model: str, alias: str) -> list[str]:
        """Names of the endpoints that follow an alias."""
        sql = "SELECT name FROM endpoints WHERE model = $1 AND alias = $2 ORDER BY name"
        rows = await self._database.fetch(sql, model, alias)
        return [str(row["name"]) for row in rows]

    async def rolling_out(self) -> list[Endpoint]:
        """Endpoints with a rollout under way."""
        rows = await self._database.fetch(f"{_SELECT} WHERE e.rollout <> '' ORDER BY e.name")
        return [Endpoint.FromString(row["state"]) for row in rows]

    async def version(self, name: str) -> KnownVersion | None:
        """What the registry said last of a version."""
        rows = await self._database.fetch("SELECT data, trust FROM versions WHERE name = $1", name)
        found = [KnownVersion(Version.FromString(row["data"]), PackageTrust.FromString(row["trust"])) for row in rows]
        return found[0] if found else None

    async def keep_version(self, known: KnownVersion) -> None:
        """Remembers a version and what is said of its signatures, so that a restart needs no registry."""
        sql = (
            "INSERT INTO versions (name, data, trust) VALUES ($1, $2, $3)"
            " ON CONFLICT (name) DO UPDATE SET data = excluded.data, trust = excluded.trust"
            " WHERE (versions.data, versions.trust) <> (excluded.data, excluded.trust)"
        )
        data, trust = known.version.SerializeToString(deterministic=True), known.trust.SerializeToString()
        await self._database.execute(sql, known.version.name, data, trust)
