"""Runs that were put away go for good: rows and an event in one transaction, then the bytes that nobody needs.

A run's bytes are let go in the transaction of its event. They are freed afterwards, each in a transaction of its own
that holds its row, and only when no run, no logged model and no other service's log refers to them. Whatever ends the
process, the next call goes on: what was let go is still on the list.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import uuid5

from google.protobuf.message import Message

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.resources_pb2 import Run
from headrace_kit.context import CommandContext
from headrace_kit.errors import Unavailable
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.objects import ObjectStore
from headrace_kit.postgres import Connection, Database
from headrace_tracking import domain
from headrace_tracking.claims import Claims
from headrace_tracking.store import RUN

RESERVED: Final = ("headrace",)
"""Projects in whose place the platform keeps bytes of its own, named in files and not in logs."""
_FORKED: Final = "EXISTS (SELECT FROM runs f WHERE f.forked_from = r.name)"
_PUT_AWAY: Final = f"FROM runs r WHERE r.project = $1 AND r.delete_time < $2 AND NOT {_FORKED}"
_IS_NEEDED: Final = """
SELECT EXISTS (SELECT FROM run_objects WHERE uri = $1)
    OR EXISTS (SELECT FROM logged_model_objects WHERE uri = $1)
    OR EXISTS (SELECT FROM claimed_digests WHERE sha256 = $2)
"""
_WOULD_GO: Final = """
SELECT count(*), coalesce(sum(o.size_bytes), 0) FROM (
    SELECT uri, sha256, size_bytes FROM run_objects WHERE run = ANY($2::text[])
    UNION
    SELECT uri, sha256, size_bytes FROM released_objects WHERE project = $1
) o
WHERE NOT EXISTS (SELECT FROM run_objects n WHERE n.uri = o.uri AND n.run <> ALL($2::text[]))
  AND NOT EXISTS (SELECT FROM logged_model_objects m WHERE m.uri = o.uri)
  AND NOT EXISTS (SELECT FROM claimed_digests c WHERE c.sha256 = o.sha256)
"""


@dataclass(frozen=True, slots=True)
class Freed:
    """Objects and bytes that were freed, objects that still wait, and why they do."""

    objects: int = 0
    size_bytes: int = 0
    waiting: int = 0
    reason: str = ""


class Purger:
    """Purges runs, and frees bytes.

    Args:
        store: The streams of runs.
        objects: Where the bytes lie.
        claims: What other services refer to.
    """

    def __init__(self, store: PostgresEventStore, objects: ObjectStore, claims: Claims) -> None:
        self._store, self._objects, self._claims = store, objects, claims
        self._database: Database = store.database

    async def put_away(self, project: str, *, before: datetime, limit: int) -> list[service.PurgedRun]:
        """Runs that may go, with what they have; those that others were forked from stay."""
        rows = await self._database.fetch(
            "SELECT r.name,"  # noqa: S608 - text of this module
            " (SELECT coalesce(sum(c.count), 0) FROM metric_chunks c WHERE c.run = r.name),"
            " coalesce((SELECT o.size_bytes FROM run_output_sizes o WHERE o.run = r.name), 0),"
            f" (SELECT count(*) FROM run_objects o WHERE o.run = r.name) {_PUT_AWAY}"
            " ORDER BY r.delete_time, r.name LIMIT $3",
            project,
            before,
            limit,
        )
        return [
            service.PurgedRun(run=row[0], point_count=row[1], output_bytes=row[2], artifact_count=row[3])
            for row in rows
        ]

    async def kept(self, project: str, *, before: datetime) -> int:
        """How many runs stay because others were forked from them."""
        sql = f"SELECT count(*) FROM runs r WHERE r.project = $1 AND r.delete_time < $2 AND {_FORKED}"  # noqa: S608 - as above
        count: int = await self._database.fetchval(sql, project, before)
        return count

    async def purge(self, found: service.PurgedRun, command: CommandContext) -> None:
        """Removes a run; nothing when it is gone, or in use again."""
        rows = await self._database.fetch("SELECT uri, sha256, size_bytes FROM run_objects WHERE run = $1", found.run)
        objects = [ObjectRef(uri=row[0], sha256=row[1], size_bytes=row[2]) for row in rows]

        async def within(connection: Connection) -> None:
            await _remove(connection, found.run)
            await _release(connection, found.run, objects)

        def decide(state: Run | None) -> Sequence[Message]:
            return domain.decide_purge(state, found, objects, command)

        await self._store.execute(
            RUN,
            found.run,
            context=replace(command, command_id=uuid5(command.command_id, found.run)),
            request=service.PurgedRun(run=found.run),
            decide=decide,
            respond=lambda _: service.PurgedRun(run=found.run),
            within=within,
        )

    async def would_free(self, project: str, runs: Sequence[str]) -> Freed:
        """What would be freed if these runs were purged now; nothing is changed."""
        try:
            await self._claims.catch_up()
        except Unavailable as error:
            return Freed(reason=str(error))
        if project in RESERVED:
            return Freed(reason=f"bytes of the project {project} are not freed")
        row = await self._database.fetchrow(_WOULD_GO, project, list(runs))
        return Freed(row[0], int(row[1])) if row else Freed()

    async def keep(self, uri: str) -> None:
        """Somebody is about to refer to these bytes: they stay. Waits for one who is freeing them just now."""
        await self._database.execute("DELETE FROM released_objects WHERE uri = $1", uri)

    async def free(self, project: str) -> Freed:
        """Frees what purged runs let go and nobody needs."""
        listed = await self._database.fetch(
            "SELECT uri, sha256, size_bytes FROM released_objects WHERE project = $1 ORDER BY uri", project
        )
        if not listed:
            return Freed()
        if project in RESERVED:
            return Freed(waiting=len(listed), reason=f"bytes of the project {project} are not freed")
        freed = size_bytes = 0
        try:
            await self._claims.catch_up()
            for uri, sha256, size in listed:
                if await self._free(ObjectRef(uri=uri, sha256=sha256, size_bytes=size)):
                    freed, size_bytes = freed + 1, size_bytes + size
        except Unavailable as error:
            waiting: int = await self._database.fetchval(
                "SELECT count(*) FROM released_objects WHERE project = $1", project
            )
            return Freed(freed, size_bytes, waiting, str(error))
        return Freed(freed, size_bytes)

    async def _free(self, reference: ObjectRef) -> bool:
        """Whether the bytes are gone now; they stay where somebody needs them."""
        async with self._database.transaction() as connection:
            held = await connection.fetchval(
                "SELECT uri FROM released_objects WHERE uri = $1 FOR UPDATE", reference.uri
            )
            if held is None:
                return False
            needed: bool = await connection.fetchval(_IS_NEEDED, reference.uri, reference.sha256)
            if not needed:
                await self._objects.delete(reference)
            await connection.execute("DELETE FROM released_objects WHERE uri = $1", reference.uri)
            return not needed


async def _remove(connection: Connection, run: str) -> None:
    """The rows that no event tells; those of read models go with the event."""
    await connection.execute("SELECT FROM runs WHERE name = $1 FOR UPDATE", run)  # no chunks are put together meanwhile
    for table in ("metric_chunks", "metric_tails", "run_output", "run_output_sizes"):
        await connection.execute(f"DELETE FROM {table} WHERE run = $1", run)  # noqa: S608 - names of this module


async def _release(connection: Connection, run: str, objects: Sequence[ObjectRef]) -> None:
    await connection.execute(
        "INSERT INTO released_objects (uri, project, sha256, size_bytes)"
        " SELECT o.uri, $1, o.sha256, o.size_bytes FROM unnest($2::text[], $3::text[], $4::bigint[])"
        " o(uri, sha256, size_bytes) ON CONFLICT DO NOTHING",
        run.split("/")[1],
        [each.uri for each in objects],
        [each.sha256 for each in objects],
        [each.size_bytes for each in objects],
    )
