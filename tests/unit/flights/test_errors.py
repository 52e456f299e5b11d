"""Whether the loop paid off, and whether that may be said."""

import math

import numpy as np
import pytest

from flights.errors import Errors, compare

DAY_US = 86_400_000_000


def compared(loop_error: float, *, noise: float = 0.0, bad: bool = False, days: int = 40) -> Errors:
    """The loop errs by so much and the frozen model by 10, ten flights a day; days differ by ``noise``."""
    day = np.repeat(np.arange(days), 10)
    labels = np.zeros(len(day), dtype=np.float32)
    frozen = np.full(len(day), 10, dtype=np.float32)
    loop = (loop_error + noise * np.where(day % 2, 1, -1)).astype(np.float32)
    answered_by_bad = np.full(len(day), bad) & (day == 0)
    return compare(loop, frozen, labels=labels, event_us=day * DAY_US, bad=answered_by_bad)


def test_what_was_saved_is_the_difference_of_the_errors() -> None:
    errors = compared(8, noise=1)

    assert errors.saved == pytest.approx(errors.frozen - errors.with_loop) == pytest.approx(2)
    assert errors.flights == 400
    assert errors.beats_frozen


def test_a_difference_that_days_could_have_made_is_no_win() -> None:
    errors = compared(9.9, noise=5)

    assert errors.saved > 0
    assert errors.saved_standard_error == pytest.approx(5 / math.sqrt(39), rel=0.01)
    assert not errors.beats_frozen


def test_a_loop_that_errs_more_does_not_win() -> None:
    assert not compared(11, noise=0.1).beats_frozen


def test_flights_of_the_bad_version_are_told_apart() -> None:
    day = np.repeat(np.arange(20), 10)
    bad = day == 3
    loop = np.where(bad, 500, 9).astype(np.float32)
    zeros = np.zeros(len(day), dtype=np.float32)

    errors = compare(loop, zeros + 10, labels=zeros, event_us=day * DAY_US, bad=bad)

    assert (errors.with_loop_but_bad, errors.frozen_but_bad, errors.saved_but_bad) == (9, 10, 1)
    assert errors.with_loop > 30
    assert (errors.beats_frozen, errors.beats_frozen_but_bad) == (False, True)


def test_flights_without_answer_or_label_are_left_out() -> None:
    nan, labels = np.float32("nan"), np.array([0, 0, np.nan, 0], dtype=np.float32)
    loop = np.array([1, nan, 1, 3], dtype=np.float32)

    errors = compare(loop, labels * 0 + 4, labels=labels, event_us=np.arange(4) * DAY_US, bad=labels > 9)

    assert (errors.flights, errors.with_loop, errors.frozen) == (2, 2, 4)


def test_one_day_proves_nothing() -> None:
    errors = compared(1, days=1)

    assert math.isnan(errors.saved_standard_error)
    assert not errors.beats_frozen
