"""A second, smaller example: an application that serves its own model and tells the platform what it answered.

The model scores the chance that a flight arrives more than 15 minutes late. The application keeps it in its process;
what it publishes are scores when flights leave, and outcomes when they have landed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

import lightgbm
import numpy as np
import numpy.typing as npt

from flights.data import FEATURES, Flights, Floats
from flights.model import PARAMETERS
from flights.replay import LabelBatch, Numbers, PredictRequest, Replay

LATE_MINUTES: Final = 15.0
OUTPUT: Final = "late_probability"
"""Name of the published column: probabilities, ``FP32``."""
_ROUNDS: Final = 40

Outcomes: TypeAlias = npt.NDArray[np.uint8]


class DelayClassifier:
    """A model inside the application; the platform never sees it."""

    def __init__(self, flights: Flights, *, rounds: int = _ROUNDS) -> None:
        """Train on the labelled flights given: deterministic, about half a second for two months.

        Raises:
            ValueError: There are fewer than 1000 labelled flights.
        """
        labelled = flights.labelled()
        if len(labelled) < 1000:
            raise ValueError(f"{len(labelled)} labelled flights are too few to train on: 1000 are needed")
        data = lightgbm.Dataset(labelled.features, late(labelled.labels), feature_name=list(FEATURES))
        self._booster = lightgbm.train(PARAMETERS | {"objective": "binary"}, data, num_boost_round=rounds)

    def scores(self, features: Floats) -> Floats:
        """Probabilities of arriving late, ``(n,) float32`` in (0, 1), of ``(n, len(FEATURES)) float32``."""
        return np.asarray(self._booster.predict(features, num_threads=1), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Scored:
    """What the application answered one of its callers; fields as in ``PredictRequest``."""

    number: int
    event_us: int
    features: Floats
    scores: Floats


@dataclass(frozen=True, slots=True)
class Outcome:
    """What has become of flights scored before; fields as in ``LabelBatch``, ``late`` 1 or 0."""

    known_us: int
    requests: Numbers
    rows: Numbers
    late: Outcomes
    label_us: Numbers


Publication: TypeAlias = Scored | Outcome


def late(minutes: Floats) -> Outcomes:
    """1 where a flight arrived more than 15 minutes late, else 0. Only for known delays: NaN counts as not late."""
    return (minutes > LATE_MINUTES).astype(np.uint8)


def publications(classifier: DelayClassifier, replay: Replay) -> Iterator[Publication]:
    """What the application publishes while ``replay`` passes, in order."""
    for step in replay.steps():
        match step:
            case PredictRequest():
                yield Scored(step.number, step.event_us, step.features, classifier.scores(step.features))
            case LabelBatch():
                yield Outcome(step.known_us, step.requests, step.rows, late(step.labels), step.label_us)
