"""The sequencer: gives each committed event its dense position, its time in the log and its Merkle leaf.

It takes the rows whose writing transaction lies below the snapshot's xmin: all of those have ended, so none can appear
later with a lower place. Within such a window rows are ordered by ``local_id``. (Ordering by xid would put a version
before its predecessor whenever its writer took its xid early; the store's never do, since they load before they begin.)
Of a backlog a window takes a batch and whatever its first transaction wrote; a transaction larger than a batch is taken
in pieces. Each piece is one transaction that checks the fencing epoch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from headrace_kit.errors import Deposed
from headrace_kit.leaf import leaf_bytes, leaf_hash
from headrace_kit.lease import Fence
from headrace_kit.postgres import Connection, Database, Record
from headrace_kit.wakeup import WakeUp

BATCH = 1000
POLL_S = 0.005
IDLE_POLL_S = 0.1
"""Longest pause while nothing is committed; a commit of this process ends it at once."""
TICK: Final = timedelta(microseconds=1)
"""No two entries have one time: any moment names one state."""

# Committed, but not in the log yet; some of them may still wait for an older transaction to end.
_OLDEST_UNSEQUENCED = """
SELECT extract(epoch FROM clock_timestamp() - e.recorded_at)::float8
FROM sequencer_state s CROSS JOIN LATERAL (
    SELECT recorded_at FROM events
    WHERE xid >= s.window_low AND (xid >= s.window_high OR local_id > s.local_id) ORDER BY xid LIMIT 1
) e
WHERE s.name = 'log'
"""
# A window ends at the snapshot's xmin, or earlier: so many rows behind those of its first transaction.
_STATE = """
SELECT s.position, s.sequenced_at, s.window_low::text AS low, s.window_high::text AS high, s.local_id,
       least(pg_snapshot_xmin(pg_current_snapshot()), (
           SELECT xid FROM events
           WHERE xid > (SELECT xid FROM events WHERE xid >= s.window_high ORDER BY xid LIMIT 1)
           ORDER BY xid OFFSET $3 LIMIT 1
       ))::text AS ended,
       clock_timestamp() AS now
FROM sequencer_state s, leases l
WHERE s.name = 'log' AND l.name = $1 AND l.epoch = $2
FOR UPDATE OF s FOR SHARE OF l
"""
# By the index on xid: the sum keeps the planner from walking the whole primary key for a window of few rows.
_WINDOW = """
SELECT local_id, event_id, stream_id, version, type, occurred_at, recorded_at, hlc, meta, data
FROM events WHERE xid >= $1::text::xid8 AND xid < $2::text::xid8 AND local_id + 0 > $3
ORDER BY local_id LIMIT $4
"""
_ADVANCE = """
WITH entries AS (
    INSERT INTO log_entries (position, local_id, sequenced_at, leaf)
    SELECT n.position, n.local_id, $3::timestamptz - ($1::bigint - n.position) * interval '1 microsecond', n.leaf
    FROM unnest($6::bigint[], $7::bigint[], $8::bytea[]) AS n (position, local_id, leaf)
)
UPDATE sequencer_state
SET position = $1, local_id = $2, sequenced_at = $3, window_low = $4::text::xid8, window_high = $5::text::xid8
WHERE name = 'log'
"""


@dataclass(frozen=True, slots=True)
class _Window:
    low: int
    high: int
    after: int

    @staticmethod
    def of(state: Record) -> _Window:
        low, high, ended = int(state["low"]), int(state["high"]), int(state["ended"])
        return _Window(low, high, state["local_id"]) if low < high else _Window(low, max(low, ended), 0)

    def past(self, rows: Sequence[Record], limit: int) -> _Window:
        """What is left after a piece: nothing when it was not full."""
        if len(rows) < limit:
            return _Window(self.high, self.high, 0)
        return _Window(self.low, self.high, rows[-1]["local_id"])


class Sequencer:
    """Fills the log of one service. One at a time in effect, whatever believes to lead.

    Attributes:
        position: Last position given by this process or found by it.
        tail_age_s: Age of the oldest committed event without a position, 0.0 when there is none; alarm above 5 s.
        sequenced: Wakes whoever waits for new entries.
    """

    def __init__(self, database: Database, source: str, *, wake: WakeUp | None = None, batch: int = BATCH) -> None:
        self.position = 0
        self.tail_age_s = 0.0
        self.sequenced = WakeUp()
        self._database = database
        self._source = source
        self._wake = wake or WakeUp()
        self._batch = batch
        self._more = False

    async def run(self, fence: Fence) -> None:
        """Sequences until cancelled.

        Raises:
            Deposed: the epoch is over.
            ConnectionLost: the database is away.
        """
        pause = POLL_S
        while True:
            if await self.step(fence) or self.tail_age_s:
                pause = POLL_S
            pause = POLL_S if await self._wake.wait(pause) else min(pause * 1.5, IDLE_POLL_S)

    async def step(self, fence: Fence) -> int:
        """Sequences one batch; returns how many events took their positions.

        Raises:
            Deposed: the epoch is over; nothing was written.
        """
        if not self._more and not await self._look():
            return 0
        async with self._database.transaction() as connection:
            count = await self._take(connection, fence)
        if count:
            self.sequenced.ring()
        return count

    async def _look(self) -> bool:
        """Whether anything waits; not asked in the middle of a window, where it would pass over all that was taken."""
        age = await self._database.fetchval(_OLDEST_UNSEQUENCED)
        self.tail_age_s = 0.0 if age is None else max(age, 1e-6)
        return age is not None

    async def _take(self, connection: Connection, fence: Fence) -> int:
        state = await connection.fetchrow(_STATE, fence.name, fence.epoch, self._batch)
        if state is None:
            raise Deposed(f"epoch {fence.epoch} of {fence.name} is over: another process leads")
        window = _Window.of(state)
        rows = await connection.fetch(_WINDOW, str(window.low), str(window.high), window.after, 2 * self._batch)
        self._more = len(rows) >= self._batch
        if not rows:
            if window.low < window.high:
                await self._skip(connection, state, window)
            return 0
        at: datetime = max(state["now"], state["sequenced_at"] + TICK)
        first = state["position"] + 1
        left = window.past(rows, 2 * self._batch)
        self.position = state["position"] + len(rows)
        await connection.execute(
            _ADVANCE,
            self.position,
            left.after,
            at + TICK * (len(rows) - 1),
            str(left.low),
            str(left.high),
            list(range(first, first + len(rows))),
            [row["local_id"] for row in rows],
            [self._leaf(row, first + place, at + TICK * place) for place, row in enumerate(rows)],
        )
        return len(rows)

    async def _skip(self, connection: Connection, state: Record, window: _Window) -> None:
        """A window whose last piece was exactly full, or that holds aborted transactions only, is behind us."""
        high = str(window.high)
        await connection.execute(_ADVANCE, state["position"], 0, state["sequenced_at"], high, high, [], [], [])

    def _leaf(self, row: Record, position: int, at: datetime) -> bytes:
        return leaf_hash(
            leaf_bytes(
                source=self._source,
                position=position,
                event_id=row["event_id"],
                stream_id=row["stream_id"],
                version=row["version"],
                type=row["type"],
                occurred_at=row["occurred_at"],
                recorded_at=row["recorded_at"],
                sequenced_at=at,
                hlc=row["hlc"],
                meta=row["meta"],
                data=row["data"],
            )
        )
