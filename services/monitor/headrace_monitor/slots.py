"""Counts of one slot of event time: integers alone, so any order of adding them gives the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from headrace.api.monitor.v1.resources_pb2 import TASK_KIND_BINARY_CLASSIFICATION, TaskKind
from headrace.kafka import ColumnData, Predictions
from headrace_monitor.layout import Codes, Layout

Numbers = NDArray[np.float64]

ERROR_SCALE = 1 << 20
"""Errors are summed in units of 2^-20."""
MAX_ERROR = float(1 << 26)
"""Larger errors count as this, so that 65536 of them fit 64 bits."""
SQUARE_SCALE = 1 << 6
MAX_SQUARED = float(1 << 15)
"""Squares are of errors in units of 2^-6, capped, for the same reason."""

_PROBABILITY_FLOOR = 1e-15
_WIDTHS = tuple(np.dtype(f"<u{width}") for width in (1, 2, 4, 8))


class SlotShard(NamedTuple):
    """Whose counts: those of one version in one slot on one shard."""

    endpoint_id: int
    start_us: int
    version_id: int
    shard: int


@dataclass(slots=True, eq=False)
class SlotCounts:
    """What was counted of one slot; adding is exact and commutes."""

    cells: NDArray[np.int64]
    rows: int = 0
    labels: int = 0
    """Labels with an error that is a number."""
    correct: int = 0
    """Of a classifier: labels met at 0.5."""
    error_sum: int = 0
    error_square: int = 0

    @classmethod
    def empty(cls, size: int) -> SlotCounts:
        """No counts in ``size`` cells."""
        return cls(np.zeros(size, dtype=np.int64))

    def add(self, other: SlotCounts) -> None:
        """Adds counts of the same layout."""
        self.cells += other.cells
        self.rows += other.rows
        self.labels += other.labels
        self.correct += other.correct
        self.error_sum += other.error_sum
        self.error_square += other.error_square

    @property
    def mean_error(self) -> float:
        """Mean error of the labels; NaN without."""
        return self.error_sum / ERROR_SCALE / self.labels if self.labels else float("nan")


def merged(parts: Iterable[SlotCounts], size: int) -> SlotCounts:
    """The sum of the parts."""
    total = SlotCounts.empty(size)
    for part in parts:
        total.add(part)
    return total


def encode_cells(cells: NDArray[np.int64]) -> bytes:
    """Canonical bytes: width of an element (1, 2, 4 or 8), then the elements in it, little-endian."""
    top = int(cells.max()) if len(cells) else 0
    dtype = next(each for each in _WIDTHS if top <= np.iinfo(each).max)
    return bytes((dtype.itemsize,)) + cells.astype(dtype).tobytes()


def decode_cells(data: bytes) -> NDArray[np.int64]:
    """Counts from their canonical bytes; a copy that may be changed."""
    return np.frombuffer(data, dtype=np.dtype(f"<u{data[0]}"), offset=1).astype(np.int64)


def slot_starts(times_us: NDArray[np.int64], slot_us: int) -> NDArray[np.int64]:
    """``(k,)`` start of the slot each event time lies in."""
    return times_us - np.mod(times_us, slot_us)


def predicted_values(predictions: Predictions, column: str) -> Numbers:
    """``(n,)`` the monitored output as numbers; NaN where it is missing or no number."""
    outputs = [each for each in predictions.columns if each.role == 2]  # COLUMN_ROLE_OUTPUT
    chosen = next((each for each in outputs if each.name == column), None)
    if chosen is None and not column and outputs:
        chosen = outputs[0]
    if chosen is None or chosen.dictionary is not None:
        return np.full(predictions.rows, np.nan)
    return chosen.values.astype(np.float64, copy=False)


def count_predictions(
    predictions: Predictions, predicted: Numbers, layout: Layout, *, slot_us: int
) -> dict[int, SlotCounts]:
    """Counts of a batch by start of slot."""
    starts = np.repeat(slot_starts(predictions.times_us, slot_us), predictions.row_counts)
    codes = _codes(predictions, predicted, layout)
    counted: dict[int, SlotCounts] = {}
    for start in np.unique(starts).tolist():
        chosen = codes if starts[0] == start == starts[-1] and np.all(starts == start) else codes[:, starts == start]
        cells = np.bincount(chosen.ravel(), minlength=layout.size).astype(np.int64, copy=False)
        counted[start] = SlotCounts(cells, rows=chosen.shape[1])
    return counted


def errors_of(predicted: Numbers, labels: Numbers, task: TaskKind.ValueType) -> Numbers:
    """``(n,)`` error of each prediction: its distance, or the log loss of a probability."""
    if task != TASK_KIND_BINARY_CLASSIFICATION:
        return np.abs(predicted - labels)
    probability = np.clip(predicted, _PROBABILITY_FLOOR, 1 - _PROBABILITY_FLOOR)
    return np.where(labels > 0.5, -np.log(probability), -np.log1p(-probability))


def count_errors(predicted: Numbers, labels: Numbers, layout: Layout, *, task: TaskKind.ValueType) -> SlotCounts:
    """Counts of labels that met their predictions, all of one slot and version."""
    errors = errors_of(predicted, labels, task)
    known = np.isfinite(errors)
    errors = errors[known]
    codes = layout.error.codes_of(errors)
    counts = SlotCounts(np.bincount(codes, minlength=layout.size).astype(np.int64, copy=False))
    counts.labels = len(errors)
    counts.error_sum = int(np.rint(np.minimum(errors, MAX_ERROR) * ERROR_SCALE).astype(np.int64).sum())
    coarse = np.rint(np.minimum(errors, MAX_SQUARED) * SQUARE_SCALE).astype(np.int64)
    counts.error_square = int((coarse * coarse).sum())
    if task == TASK_KIND_BINARY_CLASSIFICATION:
        counts.correct = int(np.sum((predicted[known] > 0.5) == (labels[known] > 0.5)))
    return counts


def _codes(predictions: Predictions, predicted: Numbers, layout: Layout) -> NDArray[np.int64]:
    """``(columns, n)`` cell of each value."""
    by_name: Mapping[str, ColumnData] = {each.name: each for each in predictions.columns if each.role == 1}
    rows = len(predicted)
    codes: list[Codes] = []
    for bins in layout.inputs:
        column = by_name.get(bins.name)
        if column is None:
            codes.append(np.full(rows, bins.offset + bins.size - 1, dtype=np.int64))
        else:
            codes.append(bins.codes(column))
    codes.append(layout.prediction.codes_of(predicted))
    return np.stack(codes)
