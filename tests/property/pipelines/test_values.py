"""Values between steps come out as they went in."""

from __future__ import annotations

import dataclasses
from datetime import UTC, date, datetime
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from headrace.pipelines.codec import decode, encode

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 53), 1 << 53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@dataclasses.dataclass(frozen=True)
class Leaf:
    number: int
    ratio: float
    at: datetime
    day: date
    key: UUID
    note: str | None
    raw: bytes


@dataclasses.dataclass(frozen=True)
class Tree:
    leaves: list[Leaf]
    named: dict[str, Leaf]
    pair: tuple[int, str]


LEAVES = st.builds(
    Leaf,
    number=st.integers(-(1 << 53), 1 << 53),
    ratio=st.floats(allow_nan=False, allow_infinity=False),
    at=st.datetimes(timezones=st.just(UTC)),
    day=st.dates(),
    key=st.uuids(),
    note=st.none() | st.text(),
    raw=st.binary(),
)
TREES = st.builds(
    Tree,
    leaves=st.lists(LEAVES, max_size=3),
    named=st.dictionaries(st.text(), LEAVES, max_size=3),
    pair=st.tuples(st.integers(-(1 << 53), 1 << 53), st.text()),
)


@given(JSON)
def test_json_needs_no_annotation(value: object) -> None:
    assert decode(encode(value)) == value


@given(TREES)
def test_a_dataclass_comes_out_as_it_went_in(value: Tree) -> None:
    assert decode(encode(value), Tree) == value
