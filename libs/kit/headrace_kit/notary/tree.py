"""The Merkle tree of a log as it is stored: the leaves, and the roots of complete subtrees at every eighth level.

So a log of n entries has n / 255 stored nodes, where all inner nodes would be as many rows as the log has. What lies in
between is made from at most 255 neighbours of the level below: a proof reads two or three ranges of rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, TypeVar

from headrace.merkle import Range, Subtree, consistency_proof, inclusion_proof, peaks_of, root_of
from headrace_kit.errors import Unavailable
from headrace_kit.postgres import Database

T = TypeVar("T")
STRIDE: Final = 8
"""Levels from one that is stored to the next."""

# $2 and $3 are ranges of places, the second ends excluded.
_LEAVES: Final = """
SELECT l.position - 1 AS place, l.leaf AS hash
FROM unnest($1::bigint[], $2::bigint[]) AS r (first, after)
JOIN log_entries l ON l.position > r.first AND l.position <= r.after
"""
_NODES: Final = """
SELECT n.place, n.hash
FROM unnest($2::bigint[], $3::bigint[]) AS r (first, after)
JOIN merkle_nodes n ON n.level = $1 AND n.place >= r.first AND n.place < r.after
"""
_FULL: Final = f"SELECT coalesce(max(place) + 1, 0) FROM merkle_nodes WHERE level = {STRIDE}"  # noqa: S608 - a constant


class TreeBehind(Unavailable):
    """A leaf or a node is not stored (yet)."""

    default_reason = "TREE_BEHIND"


class StoredTree:
    """The tree of the log in one database.

    Every method raises TreeBehind where a part of what it needs is not there: the notary has not come so far, or an
    entry is missing. All are safe for many tasks of one loop, and see no more of the log than the size they are given.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def full(self) -> int:
        """How many leaves lie below stored nodes: a multiple of 256."""
        return int(await self._database.fetchval(_FULL)) << STRIDE

    async def peaks(self, size: int) -> list[bytes]:
        """The peaks of the tree of the first ``size`` leaves."""
        return await self._from_nodes(lambda subtree: [subtree(level, place) for level, place in peaks_of(size)])

    async def root(self, size: int) -> bytes:
        """The root of the first ``size`` leaves."""
        return await self._from_nodes(lambda subtree: root_of(size, subtree))

    async def inclusion(self, index: int, size: int) -> list[bytes]:
        """The audit path of a leaf. Raises ValueError where the tree has no such leaf."""
        return await self._from_nodes(lambda subtree: inclusion_proof(index, size, subtree))

    async def consistency(self, old: int, new: int) -> list[bytes]:
        """Proof that the tree of ``new`` leaves begins with that of ``old``. Raises ValueError where it is smaller."""
        return await self._from_nodes(lambda subtree: consistency_proof(old, new, subtree))

    async def _from_nodes(self, work: Callable[[Subtree], T]) -> T:
        """Runs pure work twice: once to learn which nodes it asks for, once with them."""
        wanted: set[tuple[int, int]] = set()

        def learn(level: int, place: int) -> bytes:
            wanted.add((level, place))
            return bytes(32)

        work(learn)
        nodes = await self._read(wanted)
        return work(lambda level, place: nodes[level, place])

    async def _read(self, wanted: Collection[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
        found: dict[tuple[int, int], bytes] = {}
        for below in {level // STRIDE * STRIDE for level, _ in wanted}:
            here = [each for each in wanted if each[0] // STRIDE * STRIDE == below]
            ranges = [(place << (level - below), (place + 1) << (level - below)) for level, place in here]
            stored = await self._stored(below, ranges)
            for node, (first, after) in zip(here, ranges, strict=True):
                part = Range()
                try:
                    part.extend(stored[each] for each in range(first, after))
                except KeyError as missing:
                    raise TreeBehind(f"the tree has no node {missing} of level {below} (yet)") from None
                found[node] = part.root()
        return found

    async def _stored(self, level: int, ranges: Collection[tuple[int, int]]) -> dict[int, bytes]:
        firsts, afters = [first for first, _ in ranges], [after for _, after in ranges]
        if level:
            rows = await self._database.fetch(_NODES, level, firsts, afters)
        else:
            rows = await self._database.fetch(_LEAVES, firsts, afters)
        return {row["place"]: row["hash"] for row in rows}
