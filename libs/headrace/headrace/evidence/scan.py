"""Reads the leaves of a log in order and says what is wrong with them. Pure: what is read is given.

An entry is sound when its bytes say where it stands and make the leaf that was stored when it was sequenced. A log is
sound up to a checkpoint when the tree over the stored leaves has the root that was signed. So a byte changed in an
event is named by its position; an event rewritten together with its leaf, by the two checkpoints it lies between.

Whoever rewrote a log with a stolen key could sign checkpoints of it as well. So where one that was kept outside does
not agree, only others that were kept outside say how far the log is what it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from headrace.evidence.keeping import Kept
from headrace.merkle import Range
from headrace.verifier import leaf_hash

_TOLD: Final = 100
"""Bad entries told of one by one; the rest are counted."""
_POSITION_BYTES: Final = 8
_SEQUENCED_AT: Final = 8
"""Index of the field among those of a leaf."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong with a log.

    Attributes:
        kind: ``changed``, ``moved``, ``missing``, ``rewritten``, ``cut``, ``unsigned``, ``tree`` or ``archive``.
        first: First position that is bad, or may be; 0 where the entries themselves are not in doubt.
        last: Last such position.
        cause: A sentence for a person.
    """

    kind: str
    first: int
    last: int
    cause: str

    @property
    def certain(self) -> bool:
        """Whether every position from the first to the last is bad, and not only some of them."""
        return self.kind in ("changed", "moved", "missing") and self.first > 0


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """By position. Where one range holds an entry that is bad for certain, that entry comes first."""
    every = list(problems)
    certain = sorted(each.first for each in every if each.certain)

    def key(problem: Problem) -> tuple[bool, int, bool, int]:
        inside = next((each for each in certain if problem.first <= each <= problem.last), problem.first)
        return problem.first == 0, inside, not problem.certain, problem.last

    return sorted(every, key=key)


@dataclass(frozen=True, slots=True)
class _Bad:
    position: int
    content: bytes
    leaf: bytes


class LogScan:
    """Takes the entries of one log in order.

    Args:
        source: The log, ``headrace/registry``.
        tree: The tree over the entries before the first that comes.
        checkpoints: What was signed, in order of size; those the scan does not pass are left alone.

    Attributes:
        entries: How many were taken.
        signed_to: The largest checkpoint that the log was found to agree with; the tree's size to begin with.
        agreed: How many checkpoints it agreed with.
    """

    def __init__(self, source: str, tree: Range, checkpoints: Sequence[Kept] = ()) -> None:
        self.entries = 0
        self.signed_to = tree.size
        self.agreed = 0
        self._kept_to = tree.size
        self._disagreed: set[bool] = set()
        self._head = b"\x01" + len(source.encode()).to_bytes(4) + source.encode() + b"\x00\x00\x00\x08"
        self._tree = tree
        self._whole = True  # no entry was missing, so the tree is that of the log
        self._next = tree.size + 1
        self._checkpoints = [each for each in checkpoints if each.checkpoint.size > tree.size]
        self._bad: list[_Bad] = []
        self._uncounted = 0
        self._problems: list[Problem] = []

    @property
    def root(self) -> bytes | None:
        """The root over the stored leaves; None where some are missing."""
        return self._tree.root() if self._whole else None

    def take(self, positions: Sequence[int], contents: Sequence[bytes], leaves: bytes) -> None:
        """The next entries.

        Args:
            positions: Rising.
            contents: What each one's leaf is made of.
            leaves: The stored leaves, 32 bytes each, one after the other.
        """
        count, first = len(contents), self._next
        hashes = [sha256(b"\x00" + content).digest() for content in contents]
        width = len(self._head) + _POSITION_BYTES
        heads = [content[:width] for content in contents]
        if (
            positions[-1] == first + count - 1
            and b"".join(hashes) == leaves
            and heads == [self._head + number.to_bytes(_POSITION_BYTES) for number in range(first, first + count)]
        ):
            self._next += count
            self._grow(hashes)
        else:
            self._look_closer(positions, contents, [leaves[at : at + 32] for at in range(0, len(leaves), 32)])
        self.entries += count

    def end(self, last: int) -> list[Problem]:
        """What is wrong, in no order, where the log should have come to ``last``."""
        if self._next <= last:
            self._miss(last)
        more = [Problem("changed", 0, 0, f"{self._uncounted} more entries are not what they were")]
        return [*self._problems, *map(self._told, self._bad), *(more if self._uncounted else ())]

    def _look_closer(self, positions: Sequence[int], contents: Sequence[bytes], leaves: Sequence[bytes]) -> None:
        for position, content, leaf in zip(positions, contents, leaves, strict=True):
            if position > self._next:
                self._miss(position - 1)
            head = self._head + position.to_bytes(_POSITION_BYTES)
            if position != self._next or leaf_hash(content) != leaf or not content.startswith(head):
                if len(self._bad) < _TOLD:
                    self._bad.append(_Bad(position, content, leaf))
                else:
                    self._uncounted += 1
            self._next = position + 1
            self._grow([leaf])

    def _miss(self, last: int) -> None:
        count = last - self._next + 1
        what = "this entry is" if count == 1 else f"these {count} entries are"
        self._problems.append(Problem("missing", self._next, last, f"{what} missing from the log"))
        self._whole = False
        self._next = last + 1

    def _grow(self, leaves: Sequence[bytes]) -> None:
        """Adds to the tree, and holds it to each checkpoint as it comes to its size."""
        if not self._whole:
            return
        taken = 0
        while self._checkpoints and self._checkpoints[0].checkpoint.size <= self._tree.size + len(leaves) - taken:
            until = taken + self._checkpoints[0].checkpoint.size - self._tree.size
            self._tree.extend(leaves[taken:until])
            taken = until
            self._meet(self._checkpoints.pop(0))
        self._tree.extend(leaves[taken:] if taken else leaves)

    def _meet(self, kept: Kept) -> None:
        size = kept.checkpoint.size
        if self._tree.root() == kept.checkpoint.root:
            self.signed_to = max(self.signed_to, size)
            if kept.outside:
                self._kept_to = size
            self.agreed += 1
        elif kept.outside not in self._disagreed:  # all that follow disagree as well
            self._disagreed.add(kept.outside)
            good = self._kept_to if kept.outside else self.signed_to
            since = f"the last that agrees covers {good}" if good else "none before it agrees"
            cause = f"the log is not what {kept.said} says, and {since}"
            self._problems.append(Problem("rewritten", min(good + 1, size), size, cause))

    def _told(self, bad: _Bad) -> Problem:
        for other in self._bad:
            if other is not bad and _is_of(other, bad):
                cause = f"the entry of position {other.position} stands here"
                return Problem("moved", bad.position, bad.position, cause)
        cause = "the entry is not what was sequenced here: its bytes do not make the leaf that was stored then"
        return Problem("changed", bad.position, bad.position, cause)


def _is_of(other: _Bad, bad: _Bad) -> bool:
    """Whether the event that stands at ``bad`` is the one that was sequenced at ``other``."""
    moved = _with_field(bad.content, 1, other.position.to_bytes(_POSITION_BYTES))
    if moved is None:
        return False
    if leaf_hash(moved) == bad.leaf:  # the row of the log was moved, leaf and time with it
        return True
    place = _field(other.content, _SEQUENCED_AT)
    if place is None:
        return False
    moved = _with_field(moved, _SEQUENCED_AT, other.content[place])  # the event alone was
    return moved is not None and leaf_hash(moved) == other.leaf


def _with_field(content: bytes, index: int, value: bytes) -> bytes | None:
    place = _field(content, index)
    return None if place is None else content[: place.start] + value + content[place.stop :]


def _field(content: bytes, index: int) -> slice | None:
    """Where a field of leaf bytes lies; None where they are none."""
    at = 1
    for _ in range(index):
        at += 4 + int.from_bytes(content[at : at + 4])
    stop = at + 4 + int.from_bytes(content[at : at + 4])
    return slice(at + 4, stop) if stop <= len(content) else None
