"""The threshold of the multiscale statistic for a budget of false alarms: moving-block bootstrap of the reference.

Sums of standardised deviations over the last 1, 2, 4 ... slots, each divided by its usual size (which autocorrelation
makes larger than the square root of its length), and the largest over channels and lengths: a window-limited
generalised likelihood ratio. Blocks keep autocorrelation and the correlation of channels (Kuensch 1989).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace_monitor.baseline import Baseline

Floats = NDArray[np.float64]

MAX_SCALE = 512
DAYS = 30
MARGIN = 1.08
"""Thresholds are raised by this: the reference is itself a sample."""
_SIMULATED_SLOTS = 20_000
_EPISODES = 25
_REST_SLOTS = 24
_SEED = 20130101


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Lengths of sums, their usual sizes, and the threshold.

    Attributes:
        scales: Lengths in slots, ascending.
        sizes: ``(scales, channels)`` standard deviation of a sum in the reference.
        threshold: For the largest standardised sum.
    """

    scales: tuple[int, ...]
    sizes: Floats
    threshold: float


def calibrate(baseline: Baseline, *, budget: float) -> Calibration:
    """The threshold that keeps ``budget`` false alarms in 30 days over all channels together.

    Without history it supposes independent, normal slots, and says so (``Baseline.calibrated``).
    """
    slots_a_period = DAYS * 86_400_000_000 / baseline.slot_us
    rate = budget / slots_a_period
    width = len(baseline.channels)
    if not baseline.calibrated or width == 0:
        scales = _scales(64)
        sizes = np.sqrt(np.array(scales, dtype=np.float64))[:, None] * np.ones(width)
        tests = max(width, 1) * len(scales)
        return Calibration(scales, sizes, MARGIN * math.sqrt(max(2 * math.log(tests / rate), 4.0)))
    history = np.nan_to_num(baseline.history)
    length = len(history)
    scales = _scales(max(length // 8, 1))
    sizes = _sizes(history, scales)
    generator = np.random.default_rng(_SEED)
    series = _resampled(history, generator, block=_block(baseline, length))
    largest = largest_sums(series, scales, sizes, one_sided=one_sided_of(baseline))
    return Calibration(scales, sizes, MARGIN * _threshold(largest, rate))


def one_sided_of(baseline: Baseline) -> NDArray[np.bool_]:
    """``(channels,)`` whether only growth counts."""
    return np.array([channel.one_sided for channel in baseline.channels], dtype=np.bool_)


def largest_sums(series: Floats, scales: tuple[int, ...], sizes: Floats, *, one_sided: NDArray[np.bool_]) -> Floats:
    """``(slots,)`` largest standardised sum over channels and scales that end at each slot."""
    total = np.vstack([np.zeros((1, series.shape[1])), np.cumsum(series, axis=0)])
    largest = np.zeros(len(series))
    for index, scale in enumerate(scales):
        if scale > len(series):
            break
        sums = (total[scale:] - total[:-scale]) / sizes[index]
        strength = np.where(one_sided, sums, np.abs(sums)).max(axis=1, initial=0.0)
        largest[scale - 1 :] = np.maximum(largest[scale - 1 :], strength)
    return largest


def _scales(most: int) -> tuple[int, ...]:
    scales, scale = [1], 2
    while scale <= min(most, MAX_SCALE):
        scales.append(scale)
        scale *= 2
    return tuple(scales)


def _sizes(history: Floats, scales: tuple[int, ...]) -> Floats:
    """Standard deviation of sums, not below that of independent slots, with the error of the baseline itself."""
    length = len(history)
    total = np.vstack([np.zeros((1, history.shape[1])), np.cumsum(history, axis=0)])
    sizes: list[Floats] = []
    for scale in scales:
        sums = total[scale:] - total[:-scale]
        spread = np.sqrt((sums**2).mean(axis=0))
        sizes.append(np.maximum(spread, math.sqrt(scale)) * math.sqrt(1 + scale / length))
    return np.array(sizes)


def _block(baseline: Baseline, length: int) -> int:
    two_days = 2 * len(baseline.phase_means)
    return max(min(max(two_days, 8), length // 4), 1)


def _resampled(history: Floats, generator: np.random.Generator, *, block: int) -> Floats:
    blocks = -(-_SIMULATED_SLOTS // block)
    starts = generator.integers(0, len(history) - block + 1, size=blocks)
    series: Floats = history[(starts[:, None] + np.arange(block)).ravel()]
    return series


def _threshold(largest: Floats, rate: float) -> float:
    """Where episodes come at ``rate``; beyond what was simulated, by the tail of a normal distribution."""
    wanted = max(rate * len(largest), _EPISODES)
    low, high = 0.0, float(largest.max()) + 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if _episodes(largest, middle) > wanted:
            low = middle
        else:
            high = middle
    found = wanted / len(largest)
    return math.sqrt(high**2 + 2 * math.log(max(found / rate, 1.0)))


def _episodes(largest: Floats, threshold: float) -> int:
    """Alarms, each followed by a rest."""
    above = np.flatnonzero(largest > threshold)
    count, until = 0, -1
    for index in above.tolist():
        if index > until:
            count += 1
            until = index + _REST_SLOTS
    return count
