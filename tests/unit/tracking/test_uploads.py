"""How large bytes are divided into parts."""

from hypothesis import given
from hypothesis import strategies as st

from headrace_kit.validate import MAX_OBJECT_BYTES
from headrace_tracking.uploads import MAX_PARTS, PART_BYTES, lengths, missing, part_size


@given(st.integers(1, 64 * PART_BYTES) | st.integers(1, MAX_OBJECT_BYTES))
def test_the_parts_are_the_whole(size: int) -> None:
    found = lengths(size)
    assert sum(found.values()) == size
    assert list(found) == list(range(1, len(found) + 1))
    assert len(found) <= MAX_PARTS
    assert all(length == part_size(size) for number, length in found.items() if number < len(found))
    assert 0 < found[len(found)] <= part_size(size)


def test_what_is_not_whole_is_missing() -> None:
    size = 3 * PART_BYTES + 5
    assert missing(size, {}) == [1, 2, 3, 4]
    assert missing(size, {1: PART_BYTES, 2: PART_BYTES - 1, 4: 5, 9: 1}) == [2, 3]
    assert missing(size, lengths(size)) == []
