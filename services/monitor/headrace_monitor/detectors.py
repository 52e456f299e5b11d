"""Detectors: closed slots of one version in order -> evidence. The same slots give the same evidence, always."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.api.monitor.v1.resources_pb2 import Finding, MonitorConfig
from headrace_monitor.baseline import Baseline, baseline_of
from headrace_monitor.calibration import Calibration, calibrate, one_sided_of
from headrace_monitor.layout import Bins, Layout
from headrace_monitor.slots import SlotCounts

Floats = NDArray[np.float64]
MAX_FINDINGS = 100


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one slot showed: findings over their thresholds, strongest first, and where the change began."""

    findings: tuple[Finding, ...]
    onset_us: int


class _RiverDetector(Protocol):
    """What of River's detectors is used."""

    @property
    def drift_detected(self) -> bool:
        """Whether the last value was one too many."""
        ...

    def update(self, x: float) -> object:
        """Takes the next value."""
        ...


class VersionDetector:
    """All detectors of one version, fed with its slots in order of event time.

    Args:
        layout: Cells and reference of the version.
        config: Settings of the monitor.
    """

    def __init__(self, layout: Layout, config: MonitorConfig) -> None:
        self._slot_us = config.slot_s * 1_000_000
        self._minimum = config.minimum_samples
        self._wanted = config.consecutive_slots
        self._layout = layout
        self._baseline: Baseline = baseline_of(
            layout, slot_us=self._slot_us, minimum=config.minimum_samples, features=list(config.features)
        )
        self._calibration: Calibration = calibrate(self._baseline, budget=config.false_alarm_budget)
        self._error = _ErrorStream(config.error_detector)
        longest = self._calibration.scales[-1]
        self._deviations: deque[Floats] = deque(maxlen=longest)
        self._observed: deque[Floats] = deque(maxlen=longest)
        self._usual: deque[Floats] = deque(maxlen=longest)
        self._starts: deque[int] = deque(maxlen=longest)
        self._above = 0

    @property
    def threshold(self) -> float:
        """Of the multiscale statistic."""
        return self._calibration.threshold

    @property
    def calibrated(self) -> bool:
        """Whether the threshold comes from the reference's history."""
        return self._baseline.calibrated

    def update(self, start_us: int, counts: SlotCounts) -> Evidence | None:
        """Takes the next slot; evidence once ``consecutive_slots`` slots in a row agree."""
        deviations = self._baseline.standardised(start_us, counts, minimum=self._minimum)
        if np.isnan(deviations).all():
            return None  # too few rows to say anything, for or against
        self._deviations.append(np.nan_to_num(deviations))
        self._observed.append(self._baseline.observed(counts))
        self._usual.append(self._baseline.usual(start_us))
        self._starts.append(start_us)
        findings, length = self._multiscale()
        findings.extend(self._error_stream(deviations))
        if not findings:
            self._above = 0
            return None
        self._above += 1
        if self._above < self._wanted:
            return None
        findings.sort(key=lambda finding: -finding.value / finding.threshold)
        return Evidence(tuple(findings[:MAX_FINDINGS]), self._starts[-min(length, len(self._starts))])

    def _multiscale(self) -> tuple[list[Finding], int]:
        series = np.array(self._deviations)
        channels = self._baseline.channels
        best, length = np.zeros(len(channels)), np.ones(len(channels), dtype=np.int64)
        one_sided = one_sided_of(self._baseline)
        for index, scale in enumerate(self._calibration.scales):
            if scale > len(series):
                break
            sums = series[-scale:].sum(axis=0) / self._calibration.sizes[index]
            strength = np.where(one_sided, sums, np.abs(sums))
            better = strength > best
            best, length = np.where(better, strength, best), np.where(better, scale, length)
        findings: list[Finding] = []
        for index in np.flatnonzero(best > self.threshold).tolist():
            channel = channels[index]
            if channel.name == "error" and not self._error.is_multiscale:
                continue
            window = slice(-int(length[index]), None)
            seen = np.array([each[index] for each in list(self._observed)[window]])
            usual = np.array([each[index] for each in list(self._usual)[window]])
            known = ~np.isnan(seen)
            findings.append(
                Finding(
                    channel=channel.name,
                    statistic=channel.statistic,
                    value=float(best[index]),
                    threshold=self.threshold,
                    reference=float(usual[known].mean()) if known.any() else channel.mean,
                    observed=float(seen[known].mean()) if known.any() else channel.mean,
                )
            )
        strongest = int(length[int(np.argmax(best))]) if len(best) else 1
        return findings, strongest

    def _error_stream(self, deviations: Floats) -> list[Finding]:
        channels = self._baseline.channels
        if self._error.is_multiscale or not channels or channels[-1].name != "error" or np.isnan(deviations[-1]):
            return []
        level = self._error.update(float(deviations[-1]))
        if level is None:
            return []
        return [
            Finding(
                channel="error",
                statistic=self._error.name,
                value=level,
                threshold=self._error.threshold,
                reference=float(self._usual[-1][-1]),
                observed=float(self._observed[-1][-1]),
            )
        ]


class _ErrorStream:
    """River's detector on standardised slot means of the error.

    ADWIN (Bifet & Gavalda 2007) and Page-Hinkley (Page 1954) tell that the level changed; only growth is a finding,
    and it stands until the level is back.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.threshold = 1.0
        self._detector: _RiverDetector | None = None
        if name == "adwin":
            from river.drift import ADWIN  # noqa: PLC0415 - brings pandas and SciPy: only where it is wanted

            # Slots are few: look at each, and let windows of five be compared.
            self._detector = ADWIN(clock=1, min_window_length=5, grace_period=10)  # type: ignore[no-untyped-call]
        elif name == "page_hinkley":
            from river.drift import PageHinkley  # noqa: PLC0415 - as above

            # Deviations are standardised, so the tolerated drift and the threshold are in standard deviations.
            self._detector = PageHinkley(min_instances=10, delta=0.25, threshold=8.0, mode="up")
        self._recent: deque[float] = deque(maxlen=5)
        self._grown = False

    @property
    def is_multiscale(self) -> bool:
        """Whether River is not asked."""
        return self._detector is None

    def update(self, deviation: float) -> float | None:
        """The level in standard deviations while it is grown; else None."""
        if self._detector is None:
            return None
        self._detector.update(deviation)
        self._recent.append(deviation)
        level = float(np.mean(self._recent))
        if self._detector.drift_detected:
            self._grown = level > 0
        if level < self.threshold:
            self._grown = False
        return level if self._grown else None


def distances(layout: Layout, counts: SlotCounts) -> list[Finding]:
    """Population stability index and Jensen-Shannon distance of each column, for people to look at.

    Half a row is added to each bin, so that an empty one gives no infinity. Thresholds are 0: these never decide.
    """
    profile = layout.profile
    found: list[Finding] = []
    named = [(f"input:{bins.name}", bins, column) for bins, column in zip(layout.inputs, profile.inputs, strict=True)]
    for name, bins, column in [*named, ("prediction", layout.prediction, profile.prediction)]:
        if len(column.counts) != bins.size:
            continue
        expected, observed = _shares(column.counts), _shares(_cells(bins, counts))
        psi = float(np.sum((observed - expected) * np.log(observed / expected)))
        middle = (expected + observed) / 2
        divergence = (np.sum(expected * np.log2(expected / middle)) + np.sum(observed * np.log2(observed / middle))) / 2
        found.append(Finding(channel=name, statistic="psi", value=psi))
        found.append(
            Finding(channel=name, statistic="jensen_shannon", value=float(np.sqrt(max(float(divergence), 0.0))))
        )
    return found


def _cells(bins: Bins, counts: SlotCounts) -> Sequence[int]:
    cells: list[int] = counts.cells[bins.offset : bins.offset + bins.size].tolist()
    return cells


def _shares(counts: Sequence[int]) -> Floats:
    values: Floats = np.array(counts, dtype=np.float64) + 0.5
    shares: Floats = values / values.sum()
    return shares
