"""A budget of false alarms is kept, and not by blindness."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.api.monitor.v1.resources_pb2 import TASK_KIND_REGRESSION
from headrace.reference import reference_profile
from headrace_monitor.detectors import VersionDetector
from headrace_monitor.layout import layout_of
from headrace_monitor.requests import completed
from headrace_monitor.slots import SlotCounts, count_errors, count_predictions
from tests.support.telemetry import HOUR_US, World, hourly

ROWS = 200
DAY = 24


def level(hours: int, generator: np.random.Generator, kind: str) -> np.ndarray:
    """Hourly level of the input in a world without drift."""
    if kind == "season":
        return 0.5 * np.sin(2 * np.pi * np.arange(hours) / DAY)
    if kind == "ar":
        levels = np.zeros(hours)
        for hour in range(1, hours):
            levels[hour] = 0.9 * levels[hour - 1] + generator.normal() * 0.1 * np.sqrt(1 - 0.81)
        return levels
    return np.zeros(hours)


def detector_and_stream(
    kind: str, *, seed: int, hours: int, shift: float = 0.0
) -> tuple[VersionDetector, list[SlotCounts]]:
    generator = np.random.default_rng(seed)
    past = 28 * DAY
    levels = level(past + hours, generator, kind)
    x = np.repeat(levels, ROWS) + generator.normal(size=(past + hours) * ROWS)
    x[past * ROWS :] += shift
    labels = x + generator.exponential(0.5, size=len(x))
    split = past * ROWS
    times = np.repeat(np.arange(past) * HOUR_US, ROWS)
    profile = reference_profile({"x": x[:split]}, x[:split], labels[:split], times, slot_s=3600, prediction_name="y")
    layout = layout_of(profile)
    world = World("e")
    stream: list[SlotCounts] = []
    for hour in range(hours):
        rows = slice(split + hour * ROWS, split + (hour + 1) * ROWS)
        batch = world.predictions(["i"] * ROWS, x[rows], x[rows], times_us=[0] * ROWS, shard=0)
        counts = count_predictions(batch, x[rows], layout, slot_us=HOUR_US)[0]
        counts.add(count_errors(x[rows], labels[rows], layout, task=TASK_KIND_REGRESSION))
        stream.append(counts)
    return VersionDetector(layout, completed(hourly())), stream


def alarms(detector: VersionDetector, stream: list[SlotCounts]) -> list[int]:
    """Hours at which an episode of at least a day's distance begins."""
    begun: list[int] = []
    for hour, counts in enumerate(stream):
        if detector.update((28 * DAY + hour) * HOUR_US, counts) and (not begun or hour > begun[-1] + DAY):
            begun.append(hour)
    return begun


@pytest.mark.parametrize("kind", ["iid", "season", "ar"])
def test_thirty_calm_days_give_about_one_false_alarm(kind: str) -> None:
    found = [len(alarms(*detector_and_stream(kind, seed=seed, hours=30 * DAY))) for seed in range(4)]

    assert sum(found) <= 8


@pytest.mark.parametrize("kind", ["iid", "season"])
def test_half_a_standard_deviation_is_found_at_once(kind: str) -> None:
    assert alarms(*detector_and_stream(kind, seed=9, hours=5, shift=0.5))[0] == 0
