"""Points put together by hand are those that protobuf reads."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.tracking.v1.service_pb2 import LogMetricsRequest
from headrace.tracking.points import MAX_KEY_LENGTH, MAX_KNOWN_KEYS, PointEncoder

Given = tuple[str, float, int, int]
points = st.tuples(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=MAX_KEY_LENGTH),
    st.floats(),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 2**62),
)


@given(st.lists(points))
def test_points_are_read_as_they_were_given(given_points: list[Given]) -> None:
    encoder = PointEncoder()

    encoded = b"".join(encoder.point(key, value, encoder.when(step, at)) for key, value, step, at in given_points)

    found = LogMetricsRequest.FromString(encoded).points
    assert len(found) == len(given_points)
    for point, (key, value, step, at) in zip(found, given_points, strict=True):
        assert (point.key, point.step, point.time.ToNanoseconds()) == (key, step, at)
        assert point.value == value or (math.isnan(point.value) and math.isnan(value))


@pytest.mark.parametrize("key", ["", "x" * (MAX_KEY_LENGTH + 1)])
def test_a_key_out_of_bounds_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="1 to 250 characters"):
        PointEncoder().point(key, 1.0, b"")


def test_more_keys_than_are_kept_are_encoded_all_the_same() -> None:
    encoder = PointEncoder()
    keys = [f"k{number}" for number in range(MAX_KNOWN_KEYS + 10)]

    encoded = b"".join(encoder.point(key, 0.0, encoder.when(0, 1)) for key in keys)

    assert [each.key for each in LogMetricsRequest.FromString(encoded).points] == keys
