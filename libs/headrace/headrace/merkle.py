"""The Merkle tree over a log's leaves: roots, proofs that an event is in it, proofs that it only grew.

The tree is that of RFC 6962, section 2.1 (the same as RFC 9162, section 2.1): a leaf is ``SHA-256(0x00 || bytes)``, a
node ``SHA-256(0x01 || left || right)``, and a tree of n leaves splits at the largest power of two below n. What checks
proofs stands in ``headrace.verifier``, which must not need this module.

Hashes are 32 bytes. Leaves are counted from 0: position p of a log is leaf p - 1. The *peaks* of a tree are the roots
of the largest complete subtrees that make it up, from left to right: all that is needed to go on growing it.

Nothing here reads anything: proofs ask for the hashes of complete subtrees through a function, ``(level, index)`` ->
hash of the subtree of ``2 ** level`` leaves that begins at leaf ``index << level``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeAlias

from headrace.verifier import EMPTY_ROOT, node_hash

Subtree: TypeAlias = Callable[[int, int], bytes]
"""``(level, index)`` -> hash of a complete subtree; a leaf has level 0."""


@dataclass(frozen=True, slots=True)
class Row:
    """Roots of neighbouring complete subtrees of ``2 ** level`` leaves, the first of which is the ``first``-th."""

    level: int
    first: int
    hashes: Sequence[bytes]


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
        self._peaks = {level: peak for (level, _), peak in zip(peaks_of(size), peaks, strict=True)}

    @property
    def peaks(self) -> list[bytes]:
        """The peaks, from left to right."""
        return [self._peaks[level] for level, _ in peaks_of(self.size)]

    def extend(self, leaves: Iterable[bytes]) -> list[Row]:
        """Add leaf hashes; returns the inner nodes that are complete now, a row for each level, lowest first."""
        row, level, first = list(leaves), 0, self.size
        self.size += len(row)
        done: list[Row] = []
        while row:
            if level:
                done.append(Row(level, first, row))
            if first & 1:
                row, first = [self._peaks.pop(level), *row], first - 1
            if len(row) & 1:
                self._peaks[level] = row[-1]
            # A million events are a million of these: nothing is made here but the hashes.
            row = [sha256(b"\x01" + left + right).digest() for left, right in zip(row[::2], row[1::2], strict=False)]
            level, first = level + 1, first >> 1
        return done

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


def root_over(leaves: Iterable[bytes]) -> bytes:
    """The root of the tree over leaf hashes."""
    tree = Range()
    tree.extend(leaves)
    return tree.root()


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
