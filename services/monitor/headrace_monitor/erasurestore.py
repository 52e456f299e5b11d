"""The tables of erasures."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.monitor.v1.resources_pb2 import ERASURE_STATE_DONE, ERASURE_STATE_RUNNING, Erasure
from headrace.api.monitor.v1.service_pb2 import EraseTelemetryRequest
from headrace_kit.eventstore.commands import request_hash
from headrace_kit.postgres import Database, Record

Ends = dict[str, dict[int, int]]
"""First offset that is not meant, by topic and partition."""


@dataclass(frozen=True, slots=True)
class Pending:
    """An erasure that is not done.

    Attributes:
        id: Its id.
        person: Whom it is about.
        asked_by: Principal that asked.
        request: What is selected.
        ends: Where it ends; None before the work began.
    """

    id: UUID
    person: str
    asked_by: str
    request: EraseTelemetryRequest
    ends: Ends | None


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure changed so far."""

    ranges: int
    predictions: int
    labels: int


class ErasureStore:
    """Reads and writes the tables of erasures. Methods raise what ``headrace_kit.postgres`` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, erasure: UUID, request: EraseTelemetryRequest, *, asked_by: str) -> bool:
        """Notes what is to be erased; False when the id was used for another request and that is not done."""
        hashed = request_hash(request)
        await self._database.execute(
            "INSERT INTO erasures (id, person, asked_by, request_hash, request) VALUES ($1, $2, $3, $4, $5)"
            " ON CONFLICT (id) DO NOTHING",
            erasure,
            request.person,
            asked_by,
            hashed,
            request.SerializeToString(deterministic=True),
        )
        found = await self._database.fetchval("SELECT request_hash FROM erasures WHERE id = $1", erasure)
        return found in (hashed, b"")

    async def get(self, erasure: UUID) -> Erasure | None:
        """How far an erasure is."""
        row = await self._database.fetchrow("SELECT * FROM erasures WHERE id = $1", erasure)
        return None if row is None else _erasure(row)

    async def pending(self) -> list[Pending]:
        """Erasures that are not done, oldest first."""
        rows = await self._database.fetch(
            "SELECT id, person, asked_by, request, ends FROM erasures WHERE request IS NOT NULL ORDER BY created_at, id"
        )
        return [
            Pending(
                row["id"],
                row["person"],
                row["asked_by"],
                EraseTelemetryRequest.FromString(row["request"]),
                _ends(row["ends"]),
            )
            for row in rows
        ]

    async def fix_ends(self, erasure: UUID, ends: Mapping[str, Mapping[int, int]]) -> None:
        """Says where an erasure ends."""
        await self._database.execute("UPDATE erasures SET ends = $2 WHERE id = $1 AND ends IS NULL", erasure, ends)

    async def keep_predictions(self, erasure: UUID, keys: Collection[tuple[str, str, str]]) -> None:
        """Notes predictions whose labels are to be erased."""
        ordered = sorted(keys)
        await self._database.execute(
            "INSERT INTO erased_predictions (erasure, project, endpoint, prediction_id)"
            " SELECT $1, p, e, i FROM unnest($2::text[], $3::text[], $4::text[]) AS u (p, e, i)"
            " ON CONFLICT DO NOTHING",
            erasure,
            [each[0] for each in ordered],
            [each[1] for each in ordered],
            [each[2] for each in ordered],
        )

    async def predictions(self, erasure: UUID) -> frozenset[tuple[str, str, str]]:
        """Those predictions: project, endpoint, id."""
        rows = await self._database.fetch(
            "SELECT project, endpoint, prediction_id FROM erased_predictions WHERE erasure = $1", erasure
        )
        return frozenset((row[0], row[1], row[2]) for row in rows)

    async def forget_waiting(self, keys: Sequence[tuple[str, str, bytes]]) -> None:
        """Deletes what stage 1 keeps of predictions that wait for labels, and of labels that wait for them."""
        for table in ("waiting_predictions", "waiting_labels"):
            await self._database.execute(
                f"DELETE FROM {table} w USING watched_endpoints e,"  # noqa: S608 - names of this module
                " unnest($1::text[], $2::text[], $3::bytea[]) AS u (p, n, k)"
                " WHERE e.project = u.p AND e.endpoint = u.n AND w.endpoint_id = e.id AND w.key = u.k",
                [each[0] for each in keys],
                [each[1] for each in keys],
                [each[2] for each in keys],
            )

    async def keep_files(self, range_: str, files: Iterable[ObjectRef]) -> None:
        """Notes files that a range is about to lose."""
        found = list(files)
        await self._database.execute(
            "INSERT INTO replaced_files (range, uri, sha256, size_bytes)"
            " SELECT $1, u, s, n FROM unnest($2::text[], $3::text[], $4::bigint[]) AS f (u, s, n)"
            " ON CONFLICT DO NOTHING",
            range_,
            [each.uri for each in found],
            [each.sha256 for each in found],
            [each.size_bytes for each in found],
        )

    async def replaced_files(self) -> list[tuple[str, ObjectRef]]:
        """Files that were noted, with their range, by range."""
        rows = await self._database.fetch(
            "SELECT range, uri, sha256, size_bytes FROM replaced_files ORDER BY range, uri"
        )
        return [(row[0], ObjectRef(uri=row[1], sha256=row[2], size_bytes=row[3])) for row in rows]

    async def forget_file(self, range_: str, uri: str) -> None:
        """The file is gone, or the range names it still."""
        await self._database.execute("DELETE FROM replaced_files WHERE range = $1 AND uri = $2", range_, uri)

    async def finish(self, erasure: UUID, erased: Erased) -> None:
        """It is done: what was selected is forgotten with it."""
        async with self._database.transaction() as connection:
            await connection.execute("DELETE FROM erased_predictions WHERE erasure = $1", erasure)
            await connection.execute(
                "UPDATE erasures SET request = NULL, request_hash = '', done_at = clock_timestamp(),"
                " ranges_rewritten = $2, predictions_erased = $3, labels_erased = $4 WHERE id = $1",
                erasure,
                erased.ranges,
                erased.predictions,
                erased.labels,
            )


def _ends(stored: Mapping[str, Mapping[str, int]] | None) -> Ends | None:
    if stored is None:
        return None
    return {topic: {int(each): end for each, end in ends.items()} for topic, ends in stored.items()}


def _erasure(row: Record) -> Erasure:
    found = Erasure(
        id=str(row["id"]),
        person=row["person"],
        state=ERASURE_STATE_RUNNING if row["done_at"] is None else ERASURE_STATE_DONE,
        ranges_rewritten=row["ranges_rewritten"],
        predictions_erased=row["predictions_erased"],
        labels_erased=row["labels_erased"],
    )
    found.create_time.FromDatetime(row["created_at"])
    if row["done_at"] is not None:
        found.done_time.FromDatetime(row["done_at"])
    return found
