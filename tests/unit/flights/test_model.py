import numpy as np
import pytest

from flights.data import FEATURES, Flights
from flights.model import INPUT, OUTPUT, Model, Predictor, held_out_predictions, skewed, train
from flights.validation import evaluate


def test_equal_data_gives_equal_bytes(january: Flights, champion: Model) -> None:
    assert train(january, rounds=60).onnx == champion.onnx


def test_the_export_answers_as_the_trained_model_does(champion: Model) -> None:
    assert champion.onnx_difference < 1e-3


def test_the_export_states_its_signature(champion: Model) -> None:
    predictor = Predictor(champion.onnx)

    assert predictor.inputs == [(INPUT, "tensor(float)", [None, len(FEATURES)])]
    assert predictor.outputs == [(OUTPUT, "tensor(float)", [None, 1])]


def test_any_value_may_be_missing(champion: Model) -> None:
    missing = np.full((3, len(FEATURES)), np.nan, dtype=np.float32)

    assert np.isfinite(Predictor(champion.onnx).predict(missing)).all()


def test_the_departure_delay_matters_most(champion: Model) -> None:
    assert max(champion.importances, key=champion.importances.__getitem__) == "dep_delay"
    assert sum(champion.importances.values()) == pytest.approx(1)


def test_held_out_errors_exceed_training_errors(january: Flights, champion: Model) -> None:
    held_out = held_out_predictions(january, folds=2, rounds=60)

    error = float(np.nanmean(np.abs(held_out - january.labels)))
    assert error > evaluate(Predictor(champion.onnx).predict, january).mae
    assert len(held_out) == len(january)


def test_a_model_trained_on_skewed_data_errs_by_hours_in_production(january: Flights, recent: Flights) -> None:
    bad = Predictor(train(skewed(january), rounds=60).onnx)

    assert evaluate(bad.predict, skewed(recent)).mae < 15
    assert evaluate(bad.predict, recent).mae > 60


def test_too_few_flights_are_refused(january: Flights) -> None:
    with pytest.raises(ValueError, match="too few"):
        train(january.between(int(january.event_us[0]), int(january.event_us[500])))
