"""Whether a version does much worse than the one before it, from closed slots alone."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace.api.monitor.v1.resources_pb2 import Finding, MonitorConfig
from headrace_monitor.slots import ERROR_SCALE, SQUARE_SCALE, SlotCounts

TRAILING_SLOTS = 28
"""Slots of the predecessor that say what is usual."""
PROBATION_SLOTS = 60
"""A version that did well for so many slots with labels is not bad: what makes it err later is drift."""
_CERTAINTY = 3.0
_KEPT = 4 * PROBATION_SLOTS


@dataclass(slots=True)
class _Errors:
    """Errors of labelled rows."""

    labels: int = 0
    total: float = 0.0
    square: float = 0.0

    def add(self, counts: SlotCounts) -> None:
        self.labels += counts.labels
        self.total += counts.error_sum / ERROR_SCALE
        self.square += counts.error_square / SQUARE_SCALE**2

    @property
    def mean(self) -> float:
        return self.total / self.labels

    @property
    def standard_error(self) -> float:
        return math.sqrt(max(self.square / self.labels - self.mean**2, 0.0) / self.labels)


@dataclass(slots=True)
class _Life:
    predecessor: str
    slots_with_labels: int = 0


@dataclass(slots=True)
class VersionJudge:
    """Compares each version with its predecessor, the version that led when it first came; fed with slots in order.

    A version is bad when the mean error of its labelled rows is above ``bad_version_factor`` times the predecessor's,
    by more than three standard errors. The predecessor's error is that of the same slots where both have enough labels,
    else of its last 28 slots; without a predecessor, the reference's.
    """

    config: MonitorConfig
    reference_errors: dict[str, float] = field(default_factory=dict[str, float])
    """Mean error of each version's own reference; a version without is not judged when it has no predecessor."""
    _lives: dict[str, _Life] = field(default_factory=dict[str, _Life])
    _lead: str = ""
    _slots: deque[Mapping[str, SlotCounts]] = field(
        default_factory=lambda: deque[Mapping[str, SlotCounts]](maxlen=_KEPT)
    )

    def update(self, slot: Mapping[str, SlotCounts]) -> tuple[str, Finding] | None:
        """Takes the next slot, by version; the bad version and the evidence, if there is one."""
        for version in sorted(slot):
            self._lives.setdefault(version, _Life(self._lead))
        self._lead = lead_of(slot)
        self._slots.append(slot)
        for version in sorted(slot):
            life = self._lives[version]
            if slot[version].labels:
                life.slots_with_labels += 1
                if life.slots_with_labels <= PROBATION_SLOTS:
                    finding = self._judge(version, life)
                    if finding is not None:
                        return version, finding
        return None

    def _judge(self, version: str, life: _Life) -> Finding | None:
        own, usual = self._compared(version, life.predecessor)
        if own.labels < self.config.minimum_samples:
            return None
        reference = usual.mean if usual.labels >= self.config.minimum_samples else self._reference(version, life)
        if not reference > 0:
            return None
        factor = self.config.bad_version_factor
        if own.mean - _CERTAINTY * own.standard_error <= factor * reference:
            return None
        return Finding(
            channel="error",
            statistic="ratio",
            value=own.mean / reference,
            threshold=factor,
            reference=reference,
            observed=own.mean,
        )

    def _reference(self, version: str, life: _Life) -> float:
        return self.reference_errors.get(life.predecessor or version, 0.0)

    def _compared(self, version: str, predecessor: str) -> tuple[_Errors, _Errors]:
        own, beside_own, beside = _Errors(), _Errors(), _Errors()
        for slot in self._slots:
            if version not in slot:
                continue
            own.add(slot[version])
            if predecessor in slot and slot[version].labels and slot[predecessor].labels:
                beside_own.add(slot[version])
                beside.add(slot[predecessor])
        least = self.config.minimum_samples
        if beside.labels >= least and beside_own.labels >= least:
            return beside_own, beside
        trailing = _Errors()
        for slot in [each for each in self._slots if predecessor in each][-TRAILING_SLOTS:]:
            trailing.add(slot[predecessor])
        return own, trailing


def lead_of(slot: Mapping[str, SlotCounts]) -> str:
    """The version that made most predictions of a slot."""
    return max(sorted(slot), key=lambda version: slot[version].rows)
