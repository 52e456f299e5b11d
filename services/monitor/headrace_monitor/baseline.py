"""What is usual: channels of a reference profile, and how far a slot's mean lies from them, in standard deviations.

A channel is a linear function of a slot's counts, so everything here follows from stored integers. Inputs and the
prediction have two channels each, location and scale, as means of normal scores of their reference quantiles (the bin's
mid-rank, Van der Waerden) and of the scores' squares, and one for the share of missing values.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from headrace.api.monitor.v1.resources_pb2 import ColumnProfile, ReferenceProfile
from headrace_monitor.layout import Bins, Layout
from headrace_monitor.slots import ERROR_SCALE, SlotCounts

Floats = NDArray[np.float64]

DAY_S = 86_400
MIN_SLOTS = 40
"""Slots of a reference below which it cannot say how much slots differ among themselves."""
DEFAULT_SPREAD = 0.1
"""Assumed standard deviation between slots, in units of that between rows, where the reference cannot say."""
LEAST_SPREAD = 0.05
"""No reference is so steady that less than this, in the same units, would concern anybody."""
MISSING_SPREAD = 0.02
"""Share by which missing values may vary from slot to slot: training data often lacks the rows that lack values."""
_MAX_PHASES = 168


@dataclass(frozen=True, slots=True, eq=False)
class Channel:
    """One number watched: mean over rows of ``weights`` by cell."""

    name: str
    statistic: str
    cells: slice
    weights: Floats
    mean: float
    variance: float
    """Of one row."""
    counted: NDArray[np.bool_]
    """Cells whose rows count (missing values have no score)."""
    one_sided: bool = False
    spread: float = DEFAULT_SPREAD
    """Assumed standard deviation between slots where the reference cannot say, in units of that between rows."""
    least_spread: float = LEAST_SPREAD
    """Below which the spread between slots is never taken to be."""


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """Channels with their usual level by phase of the day, and spread between slots.

    Attributes:
        channels: In a fixed order: those of inputs, of the prediction, of the error.
        phase_means: ``(phases, channels)``.
        between: ``(channels,)`` variance between slots beside that of sampling.
        history: ``(slots, channels)`` standardised reference slots in order, NaN where a slot has too few rows.
        calibrated: False where the spread between slots is assumed.
    """

    channels: tuple[Channel, ...]
    phase_means: Floats
    between: Floats
    history: Floats
    slot_us: int
    calibrated: bool

    def standardised(self, start_us: int, counts: SlotCounts, *, minimum: int) -> Floats:
        """``(channels,)`` deviations of a slot; NaN for a channel with fewer than ``minimum`` rows."""
        means, rows = _observe(self.channels, counts)
        return _standardise(means, rows, self.usual(start_us), self.between, self.channels, minimum=minimum)

    def observed(self, counts: SlotCounts) -> Floats:
        """``(channels,)`` means of a slot."""
        return _observe(self.channels, counts)[0]

    def usual(self, start_us: int) -> Floats:
        """``(channels,)`` means to be expected of a slot."""
        usual: Floats = self.phase_means[_phase(start_us, self.slot_us, len(self.phase_means))]
        return usual


def baseline_of(layout: Layout, *, slot_us: int, minimum: int, features: Collection[str] = ()) -> Baseline:
    """The baseline of a reference profile; without history its spread between slots is assumed."""
    profile = layout.profile
    channels: list[Channel] = []
    for bins, column in zip(layout.inputs, profile.inputs, strict=True):
        if not features or bins.name in features:
            channels.extend(_column_channels(f"input:{bins.name}", bins, column))
    channels.extend(_column_channels("prediction", layout.prediction, profile.prediction))
    channels.extend(_error_channel(layout))
    slots = _history(layout, slot_us)
    return _fit(tuple(channels), slots, slot_us=slot_us, minimum=minimum)


def _fit(
    channels: tuple[Channel, ...], slots: Sequence[tuple[int, SlotCounts]], *, slot_us: int, minimum: int
) -> Baseline:
    width = len(channels)
    reference = np.array([channel.mean for channel in channels])
    variance = np.array([channel.variance for channel in channels])
    assumed = np.array([channel.spread**2 * max(channel.variance, 1e-12) for channel in channels])
    observed = [_observe(channels, counts) for _, counts in slots]
    enough = [bool(np.any(rows >= minimum)) for _, rows in observed]
    if sum(enough) < MIN_SLOTS:
        history = np.empty((0, width))
        return Baseline(channels, reference[None, :], assumed, history, slot_us, calibrated=False)
    means = np.array([each for each, _ in observed])
    rows = np.array([each for _, each in observed], dtype=np.float64)
    valid = (rows >= minimum) & np.isfinite(means)
    phases = _phases(slot_us, slots)
    number = np.array([_phase(start, slot_us, phases) for start, _ in slots])
    usual = np.empty((phases, width))
    for phase in range(phases):
        chosen = valid & (number == phase)[:, None]
        weight = np.where(chosen, rows, 0.0)
        total = weight.sum(axis=0)
        level = (weight * np.nan_to_num(means)).sum(axis=0) / np.maximum(total, 1)
        usual[phase] = np.where(total > 0, level, reference)
    residual = means - usual[number]
    sampling = variance[None, :] / np.maximum(rows, 1)
    count = valid.sum(axis=0)
    freedom = count / np.maximum(count - phases, 1)
    square = np.where(valid, residual**2, 0.0).sum(axis=0) / np.maximum(count, 1) * freedom
    between = np.maximum(square - np.where(valid, sampling, 0.0).sum(axis=0) / np.maximum(count, 1), 0.0)
    least = np.array([channel.least_spread**2 * channel.variance for channel in channels])
    between = np.where(count >= MIN_SLOTS, np.maximum(between, least), assumed)
    history = np.array(
        [
            _standardise(means[index], rows[index], usual[number[index]], between, channels, minimum=minimum)
            for index in range(len(slots))
        ]
    )
    return Baseline(channels, usual, between, history, slot_us, calibrated=True)


def _observe(channels: Sequence[Channel], counts: SlotCounts) -> tuple[Floats, Floats]:
    means, rows = np.empty(len(channels)), np.empty(len(channels))
    for index, channel in enumerate(channels):
        if channel.name == "error":
            rows[index] = counts.labels
            means[index] = counts.mean_error
            continue
        cells = counts.cells[channel.cells]
        rows[index] = cells[channel.counted].sum()
        means[index] = float(cells @ channel.weights) / rows[index] if rows[index] else np.nan
    return means, rows


def _standardise(
    means: Floats, rows: Floats, usual: Floats, between: Floats, channels: Sequence[Channel], *, minimum: int
) -> Floats:
    variance = np.array([channel.variance for channel in channels])
    spread = np.sqrt(between + variance / np.maximum(rows, 1))
    deviation = (means - usual) / np.where(spread > 0, spread, np.inf)
    return np.where((rows >= minimum) & np.isfinite(means), deviation, np.nan)


def _phases(slot_us: int, slots: Sequence[tuple[int, SlotCounts]]) -> int:
    """Slots of a day, when the history covers a week of days; else 1: no season is taken out."""
    day_us = DAY_S * 1_000_000
    if day_us % slot_us or not 2 <= day_us // slot_us <= _MAX_PHASES:
        return 1
    return int(day_us // slot_us) if slots[-1][0] - slots[0][0] >= 7 * day_us else 1


def _phase(start_us: int, slot_us: int, phases: int) -> int:
    return (start_us // slot_us) % phases


def _history(layout: Layout, slot_us: int) -> list[tuple[int, SlotCounts]]:
    """The profile's slots as counts, when they are as long as the monitor's."""
    profile = layout.profile
    if profile.slot_s * 1_000_000 != slot_us:
        return []
    before_error = layout.error.offset
    found: list[tuple[int, SlotCounts]] = []
    for slot in profile.slots:
        cells = np.zeros(layout.size, dtype=np.int64)
        counted = [*slot.input_counts, *slot.prediction_counts]
        if len(counted) != before_error:
            return []
        cells[:before_error] = counted
        error_sum = round(slot.error_sum * ERROR_SCALE)
        found.append(
            (slot.start.ToMicroseconds(), SlotCounts(cells, rows=slot.rows, labels=slot.rows, error_sum=error_sum))
        )
    return sorted(found, key=lambda item: item[0])


def _column_channels(name: str, bins: Bins, column: ColumnProfile) -> list[Channel]:
    counts = np.array(column.counts, dtype=np.float64)
    if len(counts) != bins.size or counts[:-1].sum() == 0:
        return []
    cells = slice(bins.offset, bins.offset + bins.size)
    present = np.ones(bins.size, dtype=np.bool_)
    present[-1] = False
    scores = np.append(_normal_scores(counts[:-1]), 0.0)
    share = counts[-1] / counts.sum()
    everything = np.ones(bins.size, dtype=np.bool_)
    missing = np.zeros(bins.size)
    missing[-1] = 1.0
    channels = [
        _channel(name, "multiscale", cells, weights=scores, counts=counts, present=present),
        _channel(name, "multiscale_scale", cells, weights=scores**2, counts=counts, present=present),
        Channel(
            f"quality:{name.removeprefix('input:')}",
            "multiscale_missing",
            cells,
            missing,
            float(share),
            float(max(share * (1 - share), 1e-4)),
            everything,
            one_sided=True,
            spread=MISSING_SPREAD / float(np.sqrt(max(share * (1 - share), 1e-4))),
            least_spread=MISSING_SPREAD / float(np.sqrt(max(share * (1 - share), 1e-4))),
        ),
    ]
    return [channel for channel in channels if channel.variance > 1e-9]


def _channel(
    name: str, statistic: str, cells: slice, *, weights: Floats, counts: Floats, present: NDArray[np.bool_]
) -> Channel:
    share = np.where(present, counts, 0.0) / counts[present].sum()
    mean = float(share @ weights)
    variance = float(share @ weights**2 - mean**2)
    return Channel(name, statistic, cells, np.where(present, weights, 0.0), mean, variance, present)


def _error_channel(layout: Layout) -> list[Channel]:
    profile: ReferenceProfile = layout.profile
    if not (profile.error_stddev > 0 and np.isfinite(profile.mean_error)):
        return []
    nothing = np.zeros(layout.error.size)
    cells = slice(layout.error.offset, layout.size)
    return [
        Channel(
            "error",
            "multiscale",
            cells,
            nothing,
            profile.mean_error,
            profile.error_stddev**2,
            nothing.astype(np.bool_),
            one_sided=True,
        )
    ]


def _normal_scores(counts: Floats) -> Floats:
    """Normal quantile of the mid-rank of each bin; empty bins at the ends get that of half a row."""
    total = counts.sum()
    ranks = (np.cumsum(counts) - counts / 2) / total
    bounded = np.clip(ranks, 0.5 / total, 1 - 0.5 / total)
    normal = NormalDist()
    return np.array([normal.inv_cdf(float(rank)) for rank in bounded])
