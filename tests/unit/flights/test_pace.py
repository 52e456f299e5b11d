"""How fast the year goes by on machines of different speed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flights.demo import PACES, pace_for


@pytest.mark.parametrize(
    ("training_s", "pace"), [(5.0, 5_000), (12.0, 5_000), (20.0, 3_000), (40.0, 1_500), (900.0, 1_500)]
)
def test_a_machine_that_trains_slowly_sees_the_year_go_by_slowly(training_s: float, pace: float) -> None:
    assert pace_for(training_s) == pace


@given(st.floats(min_value=0.01, max_value=1e6), st.floats(min_value=0.01, max_value=1e6))
def test_slower_training_is_never_a_faster_year(one: float, other: float) -> None:
    least, most = sorted([one, other])
    assert PACES[1] >= pace_for(least) >= pace_for(most) >= PACES[0]
