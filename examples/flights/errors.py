"""Whether the loop paid off: its errors beside those of the first model, had that answered everything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from flights.data import Floats, Times

Mask = npt.NDArray[np.bool_]
_DAY_US: Final = 86_400_000_000
_CLEARLY: Final = 2.0
"""Standard errors by which a difference must leave zero before anybody may call it one."""


@dataclass(frozen=True, slots=True)
class Errors:
    """Mean absolute errors in minutes on the same flights.

    A version that was made bad on purpose is part of the play and not of the loop's work, so every figure is given
    with its flights and without (``_but_bad``). Flights of one day share their weather and are no independent
    witnesses: standard errors are those of sums over days.

    Attributes:
        with_loop: Of what was answered.
        frozen: Of the first model, had it answered everything.
        flights: Flights compared.
        with_loop_but_bad: As ``with_loop``, without the flights that a version made bad on purpose answered.
        frozen_but_bad: As ``frozen``, on those same flights.
        saved: ``frozen - with_loop``.
        saved_standard_error: Of ``saved``; NaN for flights of less than two days.
        saved_but_bad: ``frozen_but_bad - with_loop_but_bad``.
        saved_but_bad_standard_error: Of ``saved_but_bad``; NaN likewise.
        beats_frozen: Whether ``saved`` is more than two standard errors above zero: never so by luck of the draw.
        beats_frozen_but_bad: As ``beats_frozen``, of ``saved_but_bad``.
    """

    with_loop: float
    frozen: float
    flights: int
    with_loop_but_bad: float
    frozen_but_bad: float
    saved: float
    saved_standard_error: float
    saved_but_bad: float
    saved_but_bad_standard_error: float
    beats_frozen: bool
    beats_frozen_but_bad: bool


def compare(loop: Floats, frozen: Floats, *, labels: Floats, event_us: Times, bad: Mask) -> Errors:
    """Compare two rows of answers to the same flights; those without answer or label are left out.

    Args:
        loop: ``(n,)`` minutes as answered; NaN where nothing was.
        frozen: ``(n,)`` minutes as the first model would have answered.
        labels: ``(n,)`` minutes late; NaN where unknown.
        event_us: ``(n,)`` when each left, microseconds since 1970 UTC.
        bad: ``(n,)`` whether a version made bad on purpose answered.
    """
    known = ~np.isnan(labels) & ~np.isnan(loop)
    loop_error, frozen_error = np.abs(loop - labels).astype(np.float64), np.abs(frozen - labels).astype(np.float64)
    saved, day = frozen_error - loop_error, event_us // _DAY_US
    good = known & ~bad
    error, error_but_bad = _standard_error(saved[known], day[known]), _standard_error(saved[good], day[good])
    return Errors(
        with_loop=_mean(loop_error[known]),
        frozen=_mean(frozen_error[known]),
        flights=int(known.sum()),
        with_loop_but_bad=_mean(loop_error[good]),
        frozen_but_bad=_mean(frozen_error[good]),
        saved=_mean(saved[known]),
        saved_standard_error=error,
        saved_but_bad=_mean(saved[good]),
        saved_but_bad_standard_error=error_but_bad,
        beats_frozen=_mean(saved[known]) > _CLEARLY * error,
        beats_frozen_but_bad=_mean(saved[good]) > _CLEARLY * error_but_bad,
    )


def _mean(values: npt.NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _standard_error(values: npt.NDArray[np.float64], day: Times) -> float:
    days, which = np.unique(day, return_inverse=True)
    if len(days) < 2:
        return float("nan")
    sums = np.bincount(which, weights=values - values.mean())
    return float(np.sqrt((sums**2).sum() * len(days) / (len(days) - 1)) / len(values))
