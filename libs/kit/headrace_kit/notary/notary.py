"""The notary: grows the Merkle tree over a log and signs what it has become.

It runs under the lease of the log's keeper, after the sequencer. What it writes is checked against that lease's epoch
in the transaction of the write, so two that believe to lead never sign two logs.

Before it signs it asks whether the log still begins as it was signed before: in the newest checkpoint of the database,
and in the newest of each place outside that can be asked. Where it does not (the log was cut, rewritten, or restored
from an older backup), it refuses to sign, says so, and looks again later; the log itself goes on. It does not read the
events again: that is what ``headrace log verify`` does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import structlog

from headrace.merkle import Range, Row
from headrace.verifier import CanNotCheck, Checkpoint
from headrace_kit.errors import KitError
from headrace_kit.lease import Fence, check_fence
from headrace_kit.notary.checkpoints import Checkpoints
from headrace_kit.notary.places import Place
from headrace_kit.notary.signing import Signer
from headrace_kit.notary.tree import STRIDE, StoredTree, TreeBehind
from headrace_kit.postgres import Database
from headrace_kit.wakeup import WakeUp

_log = structlog.get_logger(__name__)
CHUNK: Final = 2048
"""Leaves taken at once: some milliseconds of hashing."""
POLL_S: Final = 1.0
EVERY_S: Final = 5.0
"""Least time between two checkpoints."""
RECHECK_S: Final = 60.0
"""After a refusal, time until the next look."""
MAX_BACKOFF_S: Final = 60.0
_BATCH: Final = 500
"""Checkpoints that a place gets at once."""

_LEAVES: Final = "SELECT position, leaf FROM log_entries WHERE position > $1 ORDER BY position LIMIT $2"
_STORE: Final = """
INSERT INTO merkle_nodes (level, place, hash)
SELECT n.level, n.place, n.hash FROM unnest($1::smallint[], $2::bigint[], $3::bytea[]) AS n (level, place, hash)
ON CONFLICT DO NOTHING
"""


class _Refused(Exception):
    """The log is not what was signed."""


class Notary:
    """Signs the log of one service.

    Args:
        database: The service's own, as its role.
        signer: Whose name is that of the log.
        places: Where checkpoints go besides the database.
        every_s: Least time between two checkpoints, seconds; one is signed only when the log grew.
        chunk: Leaves taken at once.

    Attributes:
        size: Entries that the newest checkpoint covers.
        refused: Why it does not sign; empty while it does.
        failures: How often each place failed it.
    """

    def __init__(
        self,
        database: Database,
        signer: Signer,
        *,
        places: Sequence[Place] = (),
        every_s: float = EVERY_S,
        chunk: int = CHUNK,
    ) -> None:
        self.size = 0
        self.refused = ""
        self.failures = {place.name: 0 for place in places}
        self._database = database
        self._signer = signer
        self._source = signer.key.name
        self._places = places
        self._every_s = every_s
        self._chunk = chunk
        self._checkpoints = Checkpoints(database, self._source)
        self._stored = StoredTree(database)
        self._signed = {place.name: WakeUp() for place in places}
        self._tree: Range | None = None
        self._to_meet: list[Checkpoint] = []
        self._signed_at = float("-inf")

    async def run(self, fence: Fence) -> None:
        """Signs and publishes until cancelled; a place that fails is tried again, with a pause of up to a minute.

        Raises:
            Deposed: the epoch is over.
            ConnectionLost: the database is away.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep(fence), name="notary")
            for place in self._places:
                tasks.create_task(self._publish(place), name=f"notary {place.name}")

    async def _keep(self, fence: Fence) -> None:
        self._tree = None
        while True:
            more = await self.step(fence)
            if not more:
                await asyncio.sleep(RECHECK_S if self.refused else min(POLL_S, self._every_s))

    async def step(self, fence: Fence) -> bool:
        """Takes one chunk of leaves, and signs when that is due; returns whether more leaves wait.

        Raises:
            Deposed: the epoch is over; nothing was written.
        """
        tree, self._tree = self._tree, None  # it is known again when everything below went well
        try:
            if tree is None:
                tree = await self._resume()
            more = await self._grow(tree, fence)
            if not more:
                await self._meet(tree.size)
                if tree.size > self.size and time.monotonic() - self._signed_at >= self._every_s:
                    await self._sign(tree, fence)
        except (_Refused, TreeBehind) as refusal:
            if str(refusal) != self.refused:
                _log.error("checkpoint_refused", source=self._source, cause=str(refusal))
            self.refused = str(refusal)
            return False
        self._tree, self.refused = tree, ""
        return more

    async def _resume(self) -> Range:
        size = await self._stored.full()
        newest = await self._checkpoints.newest()
        self.size = newest.size if newest else 0
        self._to_meet = [newest] if newest else []
        for place in self._places:
            try:
                outside = await place.newest()
            except (KitError, OSError, CanNotCheck) as error:
                _log.warning("checkpoint_place_unread", source=self._source, place=place.name, cause=str(error))
                continue
            if outside is not None:
                self._to_meet.append(outside)
        return Range(size, await self._stored.peaks(size))

    async def _grow(self, tree: Range, fence: Fence) -> bool:
        rows = await self._database.fetch(_LEAVES, tree.size, self._chunk)
        if rows and rows[-1]["position"] != tree.size + len(rows):
            expected = range(tree.size + 1, tree.size + 1 + len(rows))
            missing = next(each for row, each in zip(rows, expected, strict=True) if row["position"] != each)
            raise _Refused(f"position {missing} is missing from the log")
        await self._store(tree.extend(row["leaf"] for row in rows), fence)
        return len(rows) == self._chunk

    async def _store(self, rows: Sequence[Row], fence: Fence) -> None:
        kept = [
            (row.level, row.first + offset, node)
            for row in rows
            if row.level % STRIDE == 0
            for offset, node in enumerate(row.hashes)
        ]
        if not kept:
            return
        levels, places, nodes = zip(*kept, strict=True)
        async with self._database.transaction() as connection:
            await check_fence(connection, fence)
            await connection.execute(_STORE, levels, places, nodes)

    async def _meet(self, size: int) -> None:
        """Holds the tree to what was signed of it before this process began."""
        for checkpoint in self._to_meet:
            said = f"the checkpoint of size {checkpoint.size} ({checkpoint.made_at})"
            if checkpoint.size > size:
                raise _Refused(f"the log ends before {said}: it was cut, or restored from a backup")
            if await self._stored.root(checkpoint.size) != checkpoint.root:
                raise _Refused(f"the log does not begin as {said} says: it was rewritten")
        self._to_meet = []

    async def _sign(self, tree: Range, fence: Fence) -> None:
        async with self._database.transaction() as connection:
            await check_fence(connection, fence)
            at = await connection.fetchval("SELECT clock_timestamp()")
            checkpoint = self._signer.sign(tree.size, tree.root(), at)
            await self._checkpoints.put(connection, checkpoint, key=self._signer.key, at=at)
        self.size, self._signed_at = tree.size, time.monotonic()
        for wake in self._signed.values():
            wake.ring()

    async def _publish(self, place: Place) -> None:
        """Brings a place up to date, again and again."""
        backoff = 1.0
        try:
            while True:
                if await self.deliver(place):
                    backoff = 1.0
                    await asyncio.sleep(place.every_s)
                    await self._signed[place.name].wait(MAX_BACKOFF_S)
                else:
                    await asyncio.sleep(backoff)
                    backoff = min(backoff * 2, MAX_BACKOFF_S)
        finally:
            await place.close()

    async def deliver(self, place: Place) -> bool:
        """Takes to a place what it has not yet; returns whether it has everything now."""
        while True:
            mark = await self._checkpoints.mark(place.name)
            if place.newest_only:
                newest = await self._checkpoints.newest()
                waiting: Sequence[Checkpoint] = [newest] if newest and newest.size > mark else []
            else:
                waiting = await self._checkpoints.page(mark + 1, _BATCH)
            if not waiting:
                return True
            try:
                await place.put(waiting)
            except (KitError, OSError) as error:
                self.failures[place.name] += 1
                _log.warning("checkpoints_wait", source=self._source, place=place.name, cause=str(error))
                return False
            await self._checkpoints.set_mark(place.name, waiting[-1].size)
