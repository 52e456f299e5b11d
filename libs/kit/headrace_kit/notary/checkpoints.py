"""The signed checkpoints of a log in its database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from headrace.verifier import Checkpoint, Key
from headrace_kit.postgres import Connection, Database, Record

_NEWEST: Final = "SELECT size, root, made_at, note FROM checkpoints ORDER BY size DESC LIMIT 1"
_FROM: Final = "SELECT size, root, made_at, note FROM checkpoints WHERE size >= $1 ORDER BY size LIMIT $2"
_KEYS: Final = "SELECT key, first_used_at FROM checkpoint_keys ORDER BY first_used_at DESC, key"
_PUT: Final = """
WITH used AS (
    INSERT INTO checkpoint_keys (key, first_used_at) VALUES ($5, $3) ON CONFLICT DO NOTHING
)
INSERT INTO checkpoints (size, root, made_at, note) VALUES ($1, $2, $3, $4)
"""
_MARK: Final = """
INSERT INTO checkpoint_marks AS m (place, size) VALUES ($1, $2)
ON CONFLICT (place) DO UPDATE SET size = greatest(m.size, $2)
"""


class Checkpoints:
    """The checkpoints of one log in its database. Safe for many tasks of one loop.

    What the columns say is told; notes are not read here, so that a damaged one reaches whoever verifies it.
    """

    def __init__(self, database: Database, source: str) -> None:
        self._database, self._source = database, source

    async def newest(self) -> Checkpoint | None:
        """The last one, or None before the first."""
        row = await self._database.fetchrow(_NEWEST)
        return None if row is None else self._checkpoint(row)

    async def covering(self, position: int) -> Checkpoint | None:
        """The first one that covers a position, or None."""
        found = await self.page(position, 1)
        return found[0] if found else None

    async def page(self, from_size: int, limit: int) -> Sequence[Checkpoint]:
        """At most ``limit`` of them from a size on, in order of size."""
        return [self._checkpoint(row) for row in await self._database.fetch(_FROM, from_size, limit)]

    async def keys(self) -> Sequence[tuple[str, datetime]]:
        """The keys that signed, as they are given, and when each was first used; the newest first."""
        return [(row["key"], row["first_used_at"]) for row in await self._database.fetch(_KEYS)]

    @staticmethod
    async def put(connection: Connection, checkpoint: Checkpoint, *, key: Key, at: datetime) -> None:
        """Stores one more, in the caller's transaction. Raises UniqueViolation where there is one of its size."""
        await connection.execute(_PUT, checkpoint.size, checkpoint.root, at, checkpoint.note, str(key))

    async def mark(self, place: str) -> int:
        """Size of the last one that a place is known to have; 0 for none."""
        found = await self._database.fetchval("SELECT size FROM checkpoint_marks WHERE place = $1", place)
        return int(found or 0)

    async def set_mark(self, place: str, size: int) -> None:
        """Remembers that a place has those up to a size; never goes back."""
        await self._database.execute(_MARK, place, size)

    def _checkpoint(self, row: Record) -> Checkpoint:
        return Checkpoint(self._source, row["size"], row["root"], rfc3339(row["made_at"]), row["note"])


def rfc3339(moment: datetime) -> str:
    """A moment in UTC, to the microsecond."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
