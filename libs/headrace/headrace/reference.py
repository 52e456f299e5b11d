"""What a model's training data looked like: the reference its monitors compare with. Needs NumPy alone.

profile = headrace.reference.reference_profile(
{"temp": temp, "carrier": carrier}, predictions=predicted, labels=actual, times_us=times, slot_s=6 * 3600
)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.api.monitor.v1.resources_pb2 import (
    TASK_KIND_BINARY_CLASSIFICATION,
    TASK_KIND_REGRESSION,
    ColumnProfile,
    ReferenceProfile,
    SlotProfile,
    TaskKind,
)

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

BINS = 32
ERROR_BINS = 32
MAX_CATEGORIES = 255
_PROBABILITY_FLOOR = 1e-15


def reference_profile(
    inputs: Mapping[str, NDArray[Any] | Sequence[Any]],
    predictions: NDArray[Any] | Sequence[Any],
    labels: NDArray[Any] | Sequence[Any],
    times_us: NDArray[np.int64] | Sequence[int] | None = None,
    *,
    slot_s: int = 0,
    task: TaskKind.ValueType = TASK_KIND_REGRESSION,
    prediction_name: str = "prediction",
    bins: int = BINS,
) -> ReferenceProfile:
    """The profile of ``n`` rows.

    Predictions must be of rows the model was not fitted on (a held-out part, or out-of-fold): the error of fitted rows
    is too small, and everything would look like drift.

    Args:
        inputs: Column name -> ``(n,)`` numbers (NaN is missing) or strings (None is missing).
        predictions: ``(n,)`` numbers: values, or probabilities of the positive class.
        labels: ``(n,)`` true values, or classes 0 and 1; NaN where unknown.
        times_us: ``(n,)`` event times, microseconds since 1970 UTC; with ``slot_s`` they give the history by which
            monitors calibrate their thresholds. Without, thresholds rest on assumptions.
        slot_s: Length of a slot in seconds: that of the monitor.
        task: Whether the error is ``|prediction - label|`` or the log loss.
        prediction_name: Output column of the prediction.
        bins: Bins of a column of numbers, with about equally many rows each.

    Raises:
        ValueError: lengths differ, there are no rows, or no label is known.
    """
    predicted = np.asarray(predictions, dtype=np.float64)
    truth = np.asarray(labels, dtype=np.float64)
    rows = len(predicted)
    if rows == 0 or truth.shape != predicted.shape or predicted.ndim != 1:
        raise ValueError("predictions and labels are one-dimensional, equally long and not empty")
    columns = {name: np.asarray(values) for name, values in inputs.items()}
    for name, values in columns.items():
        if values.shape != (rows,):
            raise ValueError(f"column {name} has shape {values.shape}, not ({rows},)")
    errors = _errors(predicted, truth, task)
    known = np.isfinite(errors)
    if not known.any():
        raise ValueError("no row has a prediction and a label")
    profiled = [_column(name, values, bins) for name, values in columns.items()]
    prediction, prediction_codes = _column(prediction_name, predicted, bins)
    profile = ReferenceProfile(
        inputs=[column for column, _ in profiled],
        prediction=prediction,
        rows=rows,
        mean_error=float(errors[known].mean()),
        error_stddev=float(errors[known].std()),
        error_edges=_edges(errors[known], ERROR_BINS).tolist(),
        slot_s=slot_s,
    )
    if times_us is not None and slot_s > 0:
        times = np.asarray(times_us, dtype=np.int64)
        if times.shape != (rows,):
            raise ValueError(f"times_us has shape {times.shape}, not ({rows},)")
        coded = [(codes, len(column.counts)) for column, codes in profiled]
        profile.slots.extend(_slots(times, slot_s, errors, [*coded, (prediction_codes, len(prediction.counts))]))
    return profile


def _errors(predicted: Floats, truth: Floats, task: TaskKind.ValueType) -> Floats:
    if task != TASK_KIND_BINARY_CLASSIFICATION:
        return np.abs(predicted - truth)
    probability = np.clip(predicted, _PROBABILITY_FLOOR, 1 - _PROBABILITY_FLOOR)
    loss = np.where(truth > 0.5, -np.log(probability), -np.log1p(-probability))
    return np.where(np.isnan(truth), np.nan, loss)


def _edges(values: Floats, bins: int) -> Floats:
    """Upper edges that cut values into about equally full bins; values often repeated get bins of their own."""
    known = values[np.isfinite(values)]
    if len(known) == 0:
        return np.empty(0)
    quantiles = np.quantile(known, np.arange(1, bins) / bins, method="inverted_cdf")
    edges = np.unique(quantiles)
    inner: Floats = edges[edges < known.max()]
    return inner


def _column(name: str, values: NDArray[Any], bins: int) -> tuple[ColumnProfile, Codes]:
    if values.dtype.kind in "OSU":
        return _categories(name, values)
    numbers = values.astype(np.float64)
    edges = _edges(numbers, bins)
    codes = np.searchsorted(edges, numbers, side="left").astype(np.int64)
    codes[np.isnan(numbers)] = len(edges) + 1
    counts = np.bincount(codes, minlength=len(edges) + 2)
    return ColumnProfile(name=name, edges=edges.tolist(), counts=counts.tolist()), codes


def _categories(name: str, values: NDArray[Any]) -> tuple[ColumnProfile, Codes]:
    texts = [_text(value) for value in values.tolist()]
    frequency: dict[str, int] = {}
    for text in texts:
        if text is not None:
            frequency[text] = frequency.get(text, 0) + 1
    common = sorted(frequency, key=lambda word: (-frequency[word], word))[:MAX_CATEGORIES]
    number = {word: index for index, word in enumerate(common)}
    codes = np.array(
        [len(common) + 1 if text is None else number.get(text, len(common)) for text in texts], dtype=np.int64
    )
    counts = np.bincount(codes, minlength=len(common) + 2)
    return ColumnProfile(name=name, categories=common, counts=counts.tolist()), codes


def _text(value: object) -> str | None:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    return value.decode() if isinstance(value, bytes) else str(value)


def _slots(
    times_us: NDArray[np.int64], slot_s: int, errors: Floats, coded: Sequence[tuple[Codes, int]]
) -> list[SlotProfile]:
    """Counts by slot, in order of time; the last of ``coded`` is the prediction."""
    slot_us = slot_s * 1_000_000
    starts, index = np.unique(times_us - np.mod(times_us, slot_us), return_inverse=True)
    tables = [
        np.bincount(index * width + codes, minlength=len(starts) * width).reshape(len(starts), width)
        for codes, width in coded
    ]
    rows = np.bincount(index, minlength=len(starts))
    known = np.isfinite(errors)
    sums = np.bincount(index[known], weights=errors[known], minlength=len(starts))
    labelled = np.bincount(index[known], minlength=len(starts))
    slots: list[SlotProfile] = []
    for number, start in enumerate(starts.tolist()):
        # The mean over labelled rows, spread over all rows: one number of rows serves both.
        error_sum = sums[number] * rows[number] / labelled[number] if labelled[number] else 0.0
        slot = SlotProfile(
            rows=int(rows[number]),
            error_sum=float(error_sum),
            input_counts=[count for table in tables[:-1] for count in table[number].tolist()],
            prediction_counts=tables[-1][number].tolist(),
        )
        slot.start.FromMicroseconds(start)
        slots.append(slot)
    return slots
