"""What the demo rests on: the year moves away from a model frozen in February."""

import numpy as np
import pytest

from flights.data import Flights, Floats, microseconds
from flights.model import Predictor, train


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_model_frozen_in_february_errs_more_from_july_on_than_one_trained_on_the_two_months_before(
    year: Flights,
) -> None:
    frozen = Predictor(train(year.between(microseconds(2013, 1), microseconds(2013, 3))).onnx)
    frozen_errors, fresh_errors = [], []
    for month in range(7, 11):
        start = microseconds(2013, month)
        asked = year.between(start, microseconds(2013, month + 1)).labelled()
        # What a retrain at the start of the month would know.
        before = year.between(microseconds(2013, month - 2), start).labelled(start)
        fresh = Predictor(train(before).onnx)
        frozen_errors.append(errors(frozen, asked))
        fresh_errors.append(errors(fresh, asked))

    excess = np.concatenate(frozen_errors).mean() / np.concatenate(fresh_errors).mean() - 1
    assert 0.03 < excess < 0.15, f"frozen in February: {excess:+.1%}"


def errors(model: Predictor, flights: Flights) -> Floats:
    return np.asarray(np.abs(model.predict(flights.features) - flights.labels), dtype=np.float32)
