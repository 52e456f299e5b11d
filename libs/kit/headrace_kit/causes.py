"""The column of causes, filled in for events that were written before there was one.

The cause of an event stands in its meta, which is part of its leaf. The column is a copy for the index: an append
writes it, and what an earlier release wrote is filled in here, along the log and in short transactions.
"""

from __future__ import annotations

from typing import Final

from headrace_kit.eventstore import EventMeta
from headrace_kit.postgres import Database

CHUNK: Final = 200
"""Events looked at in one transaction."""

_FILLED = "SELECT position FROM causes_filled"
_CHUNK = """
SELECT l.position, e.local_id, CASE WHEN e.causation_id IS NULL THEN e.meta END AS meta
FROM log_entries l JOIN events e USING (local_id)
WHERE l.position > $1 ORDER BY l.position LIMIT $2
"""
_FILL = "SELECT fill_causes($1, $2)"
_MOVE = "UPDATE causes_filled SET position = $2 WHERE position = $1"
_FILLING = "SELECT position < until FROM causes_filled"


async def fill(database: Database, *, chunk: int = CHUNK) -> int:
    """Fills in the causes of the next events of the log; returns how many events were looked at, 0 at its end.

    A repeat, or another process that does the same, does no harm.
    """
    position = await database.fetchval(_FILLED)
    rows = await database.fetch(_CHUNK, position, chunk)
    if not rows:
        return 0
    found = {row["local_id"]: EventMeta.decode(row["meta"]).causation_id for row in rows if row["meta"] is not None}
    known = {local_id: cause for local_id, cause in found.items() if cause is not None}
    async with database.transaction() as connection:
        if known:
            await connection.fetchval(_FILL, list(known), list(known.values()))
        await connection.execute(_MOVE, position, rows[-1]["position"])
    return len(rows)


async def filling(database: Database) -> bool:
    """Whether events of an earlier release still wait, so that effects may be missing."""
    return bool(await database.fetchval(_FILLING))
