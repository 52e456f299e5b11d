"""Measure a model and decide whether it may take the place of the one that serves."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final, TypeAlias

import numpy as np

from flights.data import FEATURES, Flights, Floats
from flights.model import INPUT, OUTPUT, Model, Predictor

Predict: TypeAlias = Callable[[Floats], Floats]

PARITY_MINUTES: Final = 1e-2
"""Largest accepted difference between the trained and the exported model: a hundredth of a minute."""
NAIVE_FACTOR: Final = 1.1
"""A model may err this many times what the rule "as late at arrival as at departure" errs: in a stormy week a sound one
can lose to the rule by a little, a broken one loses by far."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """Errors in minutes on labelled flights: mean absolute, root mean square, mean signed; and how many flights."""

    mae: float
    rmse: float
    bias: float
    rows: int


@dataclass(frozen=True, slots=True)
class Check:
    """One gate: what was measured, against which threshold, and whether it passed."""

    name: str
    passed: bool
    value: float
    threshold: float
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a validation, for the registry and for people."""

    checks: tuple[Check, ...]
    metrics: Metrics

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return all(check.passed for check in self.checks)

    def as_dict(self) -> dict[str, object]:
        """The report as plain values, ready for JSON."""
        return {**asdict(self), "passed": self.passed}


def naive(features: Floats) -> Floats:
    """The baseline: a flight arrives as late as it left."""
    return np.nan_to_num(features[:, FEATURES.index("dep_delay")], nan=0.0)


def evaluate(predict: Predict, flights: Flights) -> Metrics:
    """Errors on the labelled flights of ``flights``.

    Raises:
        ValueError: None is labelled.
    """
    labelled = flights.labelled()
    if len(labelled) == 0:
        raise ValueError("no labelled flights to evaluate on")
    error = predict(labelled.features).astype(np.float64) - labelled.labels
    return Metrics(mae=float(np.abs(error).mean()), rmse=float(np.sqrt(np.square(error).mean())),
                   bias=float(error.mean()), rows=len(labelled))  # fmt: skip


def evaluate_months(predict: Predict, flights: Flights) -> dict[str, Metrics]:
    """Errors by month of departure (UTC), keys as ``2013-07``, months without labelled flights left out."""
    labelled = flights.labelled()
    months = labelled.event_us.view("datetime64[us]").astype("datetime64[M]")
    return {
        str(month): evaluate(predict, labelled.between(*_edges(month)))
        for month in np.unique(months)
    }  # fmt: skip


def validate(candidate: Model, recent: Flights, *, champion: Model | None = None) -> Report:
    """Compare a candidate with the champion, and with the naive rule, on recent flights that neither was trained on.

    Raises:
        ValueError: ``recent`` holds no labelled flight, or one that the candidate may have been trained on.
    """
    if len(recent) and int(recent.event_us[0]) <= candidate.trained_us[1]:
        raise ValueError("the candidate was trained on flights it is to be validated on")
    predictor = Predictor(candidate.onnx)
    checks = [_schema(predictor), _parity(candidate)]
    metrics = evaluate(predictor.predict, recent)
    bound = NAIVE_FACTOR * evaluate(naive, recent).mae
    checks.append(Check("beats-naive", metrics.mae < bound, metrics.mae, bound, "mean absolute error, minutes"))
    if champion is not None:
        bound = evaluate(Predictor(champion.onnx).predict, recent).mae
        checks.append(Check("beats-champion", metrics.mae < bound, metrics.mae, bound, "mean absolute error, minutes"))
    return Report(tuple(checks), metrics)


def _edges(month: np.datetime64) -> tuple[int, int]:
    first = month.astype("datetime64[us]").astype(np.int64)
    end = (month + np.timedelta64(1, "M")).astype("datetime64[us]").astype(np.int64)
    return int(first), int(end)


def _schema(predictor: Predictor) -> Check:
    inputs = [(name, kind, shape[1:]) for name, kind, shape in predictor.inputs]
    outputs = [(name, kind) for name, kind, _ in predictor.outputs]
    expected = [(INPUT, "tensor(float)", [len(FEATURES)])]
    same = inputs == expected and outputs == [(OUTPUT, "tensor(float)")]
    return Check("schema", same, float(same), 1.0, f"{len(FEATURES)} FP32 columns in, {OUTPUT} out")


def _parity(candidate: Model) -> Check:
    value = candidate.onnx_difference
    return Check("onnx-parity", value <= PARITY_MINUTES, value, PARITY_MINUTES, "largest difference, minutes")
