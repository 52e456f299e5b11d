"""Fewer points that look like all of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from headrace.api.tracking.v1.service_pb2 import THINNING_LTTB


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one metric by step and time: three lists of equal length; times in microseconds since 1970 UTC."""

    steps: list[int] = field(default_factory=list[int])
    times_us: list[int] = field(default_factory=list[int])
    values: list[float] = field(default_factory=list[float])

    def chosen(self, indexes: Sequence[int]) -> "Series":
        """Some of the points."""
        times = [self.times_us[index] for index in indexes]
        return Series([self.steps[index] for index in indexes], times, [self.values[index] for index in indexes])


def thin(series: Series, max_points: int, how: int = 0) -> Series:
    """At most ``max_points`` points, 0 for all; ``how`` is a ``Thinning``, min-max unless it says otherwise."""
    size = len(series.values)
    if max_points <= 0 or size <= max_points:
        return series
    chosen = _triangles(series, max_points) if how == THINNING_LTTB else _extremes(series.values, max_points)
    return series.chosen(chosen)


def _extremes(values: Sequence[float], most: int) -> list[int]:
    """First, last, and the extremes of each stretch."""
    size = len(values)
    stretches = max(most // 2 - 1, 1)
    kept = {0, size - 1}
    for stretch in range(stretches):
        low, high = stretch * size // stretches, (stretch + 1) * size // stretches
        numbers = [index for index in range(low, high) if not math.isnan(values[index])]
        if numbers:
            kept.add(min(numbers, key=values.__getitem__))
            kept.add(max(numbers, key=values.__getitem__))
    return sorted(kept)[:most] if most > 1 else [size - 1]


def _triangles(series: Series, most: int) -> list[int]:
    """First, last, and of each stretch between the point that makes the largest triangle with its neighbours.

    The neighbours are the point chosen before and the mean of the next stretch (Steinarsson 2013).
    """
    steps, values = series.steps, series.values
    finite = [index for index, value in enumerate(values) if math.isfinite(value)]
    if len(finite) <= most:
        return finite
    if most < 3:
        return [finite[0], finite[-1]][-most:]
    inner, stretches = len(finite) - 2, most - 2
    bounds = [1 + stretch * inner // stretches for stretch in range(stretches + 1)]
    chosen = [finite[0]]
    for stretch in range(stretches):
        low, high = bounds[stretch], bounds[stretch + 1]
        after = finite[high : bounds[stretch + 2]] if stretch + 2 <= stretches else finite[-1:]
        x_after = sum(steps[index] for index in after) / len(after)
        y_after = sum(values[index] for index in after) / len(after)
        x_before, y_before = steps[chosen[-1]], values[chosen[-1]]
        width, height = x_before - x_after, y_after - y_before
        best, largest = finite[low], -1.0
        for index in finite[low:high]:
            area = abs(width * (values[index] - y_before) - (x_before - steps[index]) * height)
            if area > largest:
                best, largest = index, area
        chosen.append(best)
    return [*chosen, finite[-1]]
