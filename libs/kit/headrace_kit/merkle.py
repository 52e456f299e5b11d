"""The Merkle tree over a log's leaves: roots, proofs that an event is in it, proofs that it only grew.

The tree is that of RFC 6962, section 2.1 (the same as RFC 9162, section 2.1): a leaf is ``SHA-256(0x00 || bytes)``, a
node ``SHA-256(0x01 || left || right)``, and a tree of n leaves splits at the largest power of two below n. Verification
follows RFC 9162, sections 2.1.3.2 and 2.1.4.2.

Hashes are 32 bytes. Leaves are counted from 0: position p of a log is leaf p - 1. The *peaks* of a tree are the roots
of the largest complete subtrees that make it up, from left to right: all that is needed to go on growing it.

Nothing here reads anything: proofs ask for the hashes of complete subtrees through a function, ``(level, index)`` ->
hash of the subtree of ``2 ** level`` leaves that begins at leaf ``index << level``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

EMPTY_ROOT: Final = hashlib.sha256(b"").digest()
"""The root of a log without entries."""

Subtree: TypeAlias = Callable[[int, int], bytes]
"""``(level, index)`` -> hash of a complete subtree; a leaf has level 0."""


@dataclass(frozen=True, slots=True)
class Node:
    """The root of a complete subtree of ``2 ** level`` leaves, the ``index``-th of its level."""

    level: int
    index: int
    hash: bytes


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Range:
    """A growing tree, as the roots of its complete subtrees."""

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        """Go on from a tree of ``size`` leaves.

        Raises:
            ValueError: ``peaks`` are not as many as such a tree has.
        """
        if size < 0 or len(peaks) != size.bit_count():
            raise ValueError(f"a tree of {size} leaves has {max(size, 0).bit_count()} peaks, not {len(peaks)}")
        self.size = size
        self.peaks = list(peaks)

    def append(self, leaf: bytes) -> list[Node]:
        """Add one leaf hash; returns the inner nodes that are complete now, lowest first."""
        done: list[Node] = []
        level, index, top = 0, self.size, leaf
        while self.size >> level & 1:
            top = node_hash(self.peaks.pop(), top)
            level, index = level + 1, index >> 1
            done.append(Node(level, index, top))
        self.peaks.append(top)
        self.size += 1
        return done

    def extend(self, leaves: Iterable[bytes]) -> list[Node]:
        """Add many; returns all inner nodes that are complete now."""
        return [node for leaf in leaves for node in self.append(leaf)]

    def root(self) -> bytes:
        """The root of the tree as it is."""
        return _bagged(self.peaks)


def peaks_of(size: int) -> list[tuple[int, int]]:
    """Level and index of the complete subtrees that make up a tree, from left to right."""
    found: list[tuple[int, int]] = []
    first = 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            found.append((level, first >> level))
            first += 1 << level
    return found


def root_of(size: int, subtree: Subtree) -> bytes:
    """The root of the first ``size`` leaves."""
    return _bagged([subtree(level, index) for level, index in peaks_of(size)])


def inclusion_proof(index: int, size: int, subtree: Subtree) -> list[bytes]:
    """The audit path of leaf ``index`` in the tree of ``size`` leaves (RFC 6962, PATH), lowest first.

    Raises:
        ValueError: There is no such leaf in such a tree.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    path: list[bytes] = []
    first, count = 0, size
    while count > 1:
        split = _split(count)
        if index - first < split:
            path.append(_span(first + split, count - split, subtree))
            count = split
        else:
            path.append(_span(first, split, subtree))
            first, count = first + split, count - split
    return path[::-1]


def consistency_proof(old: int, new: int, subtree: Subtree) -> list[bytes]:
    """Proof that the tree of ``new`` leaves begins with that of ``old`` (RFC 6962, PROOF).

    Empty where nothing is to show: the one tree is empty, or they are the same.

    Raises:
        ValueError: ``old`` is larger than ``new``, or negative.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {new} leaves does not begin with one of {old}")
    if old in (0, new):
        return []
    return list(_subproof(old, first=0, count=new, whole=True, subtree=subtree))


def root_from_inclusion(index: int, size: int, leaf: bytes, path: Sequence[bytes]) -> bytes | None:
    """The root that an audit path leads to, None where the path has not the length that it must have."""
    if not 0 <= index < size:
        return None
    node, last, top = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return None
        if node & 1 or node == last:
            top = node_hash(sibling, top)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            top = node_hash(top, sibling)
        node, last = node >> 1, last >> 1
    return top if last == 0 else None


def consistent(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether a proof shows that the tree of ``new`` leaves and root begins with that of ``old``."""
    if not 0 <= old <= new:
        return False
    if old == new:
        return not proof and old_root == new_root
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    hashes = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not hashes:
        return False
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    of_old = of_new = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            of_old, of_new = node_hash(sibling, of_old), node_hash(sibling, of_new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            of_new = node_hash(of_new, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and of_old == old_root and of_new == new_root


def _bagged(peaks: Sequence[bytes]) -> bytes:
    if not peaks:
        return EMPTY_ROOT
    top = peaks[-1]
    for peak in reversed(peaks[:-1]):
        top = node_hash(peak, top)
    return top


def _split(count: int) -> int:
    """The largest power of two below ``count``."""
    return 1 << (count - 1).bit_length() - 1


def _span(first: int, count: int, subtree: Subtree) -> bytes:
    """The root over ``count`` leaves from ``first`` on, which lies at a multiple of what covers them."""
    return _bagged([subtree(level, (first >> level) + index) for level, index in peaks_of(count)])


def _subproof(old: int, *, first: int, count: int, whole: bool, subtree: Subtree) -> Iterator[bytes]:
    """SUBPROOF of RFC 6962; ``whole`` says that the old tree's root is known to the verifier."""
    if old == count:
        if not whole:
            yield _span(first, count, subtree)
        return
    split = _split(count)
    if old <= split:
        yield from _subproof(old, first=first, count=split, whole=whole, subtree=subtree)
        yield _span(first + split, count - split, subtree)
    else:
        yield from _subproof(old - split, first=first + split, count=count - split, whole=False, subtree=subtree)
        yield _span(first, split, subtree)
