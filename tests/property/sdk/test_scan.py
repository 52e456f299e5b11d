"""A scan of a log finds every change, whatever the chunks it is read in, and finds nothing in a sound log."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from headrace.evidence import Kept, LogScan, Problem
from headrace.evidence.keeping import PLATFORM
from headrace.evidence.scan import in_order
from headrace.merkle import Range
from headrace.verifier import Checkpoint, leaf_hash
from headrace_kit.leaf import leaf_bytes
from tests.support.counters import NOW, SOURCE


@dataclass(frozen=True, slots=True)
class Row:
    position: int
    content: bytes
    leaf: bytes


def log(size: int) -> list[Row]:
    rows: list[Row] = []
    for position in range(1, size + 1):
        content = leaf_bytes(
            source=SOURCE, position=position, event_id=UUID(int=position), stream_id="s", version=1, type="t",
            occurred_at=NOW, recorded_at=NOW, sequenced_at=NOW, hlc=1, meta=b"", data=str(position).encode(),
        )  # fmt: skip
        rows.append(Row(position, content, leaf_hash(content)))
    return rows


def checkpoint(rows: Sequence[Row], size: int, where: str = PLATFORM) -> Kept:
    tree = Range()
    tree.extend(row.leaf for row in rows[:size])
    return Kept(Checkpoint(SOURCE, size, tree.root(), "", f"{size} {b64encode(tree.root()).decode()}"), where)


def scan(rows: Sequence[Row], checkpoints: Sequence[Kept], chunk: int, *, start: int = 0) -> LogScan:
    tree = Range()
    tree.extend(row.leaf for row in rows[:start])
    found = LogScan(SOURCE, tree, sorted(checkpoints, key=lambda each: each.checkpoint.size))
    rest = rows[start:]
    for at in range(0, len(rest), chunk):
        part = rest[at : at + chunk]
        found.take([row.position for row in part], [row.content for row in part], b"".join(row.leaf for row in part))
    return found


def problems(found: LogScan, last: int) -> list[tuple[str, int, int]]:
    return [(each.kind, each.first, each.last) for each in in_order(found.end(last))]


sizes = st.integers(1, 60)
chunks = st.integers(1, 70)


@given(st.data(), sizes, chunks)
def test_a_sound_log_is_sound(data: st.DataObject, size: int, chunk: int) -> None:
    rows = log(size)
    signed = data.draw(st.lists(st.integers(1, size), max_size=5))
    start = data.draw(st.integers(0, size))
    found = scan(rows, [checkpoint(rows, each) for each in signed], chunk, start=start)

    assert problems(found, size) == []
    assert found.agreed == sum(each > start for each in signed)
    assert found.signed_to == max([start, *signed])
    assert found.root == checkpoint(rows, size).checkpoint.root


@given(st.data(), sizes, chunks)
def test_a_changed_entry_is_named(data: st.DataObject, size: int, chunk: int) -> None:
    rows = log(size)
    signed = [checkpoint(rows, size)]
    bad = data.draw(st.sets(st.integers(1, size), min_size=1, max_size=4))
    for position in bad:
        content = bytearray(rows[position - 1].content)
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        rows[position - 1] = replace(rows[position - 1], content=bytes(content))

    assert problems(scan(rows, signed, chunk), size) == [("changed", each, each) for each in sorted(bad)]


@given(st.data(), sizes, chunks)
def test_a_missing_entry_is_named(data: st.DataObject, size: int, chunk: int) -> None:
    rows = log(size)
    signed = [checkpoint(rows, size)]
    first = data.draw(st.integers(1, size))
    last = data.draw(st.integers(first, size))
    found = scan([*rows[: first - 1], *rows[last:]], signed, chunk)

    assert problems(found, size) == [("missing", first, last)]
    assert found.root is None


@given(st.data(), st.integers(2, 60), chunks)
def test_two_that_changed_places_are_named_with_each_other(data: st.DataObject, size: int, chunk: int) -> None:
    rows, whole_rows = log(size), data.draw(st.booleans())
    one, other = sorted(data.draw(st.sets(st.integers(1, size), min_size=2, max_size=2)))
    signed = [checkpoint(rows, size)]
    here, there = rows[one - 1], rows[other - 1]
    swapped = [
        (one, there, there.leaf if whole_rows else here.leaf),
        (other, here, here.leaf if whole_rows else there.leaf),
    ]
    for position, row, leaf in swapped:
        was, now = row.position.to_bytes(8), position.to_bytes(8)
        rows[position - 1] = Row(position, row.content.replace(was, now, 1), leaf)
    found = problems(scan(rows, signed, chunk), size)

    assert [each for each in found if each[0] == "moved"] == [("moved", one, one), ("moved", other, other)]
    assert [each for each in found if each[0] != "moved"] == ([("rewritten", 1, size)] if whole_rows else [])
    assert found[0] == ("moved", one, one)


@given(st.data(), sizes, chunks)
def test_an_entry_rewritten_with_its_leaf_lies_after_the_last_that_agrees(
    data: st.DataObject, size: int, chunk: int
) -> None:
    rows = log(size)
    signed = sorted({*data.draw(st.lists(st.integers(1, size), max_size=4)), size})
    kept = [checkpoint(rows, each, "outside") for each in signed]
    bad = data.draw(st.integers(1, size))
    content = rows[bad - 1].content + b"!"
    content = content.replace(len(str(bad)).to_bytes(4) + str(bad).encode() + b"!", b"", 1)
    rows[bad - 1] = Row(bad, content, leaf_hash(content))
    again = [checkpoint(rows, each) for each in signed]  # a stolen key signs it

    found = problems(scan(rows, [*kept, *again], chunk), size)

    good = max((each for each in signed if each < bad), default=0)
    assert found == [("rewritten", good + 1, min(each for each in signed if each >= bad))]
    assert problems(scan(rows, again, chunk), size) == []


def test_many_bad_entries_are_counted() -> None:
    rows = [replace(row, content=row.content + b"!") for row in log(250)]
    found = scan(rows, [], 64).end(250)

    assert len(found) == 101
    assert in_order(found)[-1] == Problem("changed", 0, 0, "150 more entries are not what they were")
