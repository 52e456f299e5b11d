import json
from dataclasses import replace

import numpy as np
import pytest

from flights.data import FEATURES, Flights, Floats, microseconds
from flights.model import Model, skewed, train
from flights.validation import evaluate, evaluate_months, naive, validate


def checks(report_of: Model, recent: Flights, champion: Model | None = None) -> dict[str, bool]:
    return {check.name: check.passed for check in validate(report_of, recent, champion=champion).checks}


def test_a_sound_model_passes_every_check(champion: Model, recent: Flights) -> None:
    report = validate(champion, recent)

    assert report.passed, report
    assert [check.name for check in report.checks] == ["schema", "onnx-parity", "beats-naive"]
    assert json.loads(json.dumps(report.as_dict()))["passed"] is True


def test_a_candidate_no_better_than_the_champion_fails(january: Flights, recent: Flights, champion: Model) -> None:
    weak = train(january, rounds=3)

    assert checks(weak, recent, champion)["beats-champion"] is False
    assert checks(champion, recent, weak)["beats-champion"] is True
    assert checks(champion, recent, champion)["beats-champion"] is False


def test_a_skewed_model_passes_in_its_own_pipeline_and_fails_on_true_inputs(january: Flights, recent: Flights) -> None:
    bad = train(skewed(january), rounds=60)

    assert validate(bad, skewed(recent)).passed
    assert checks(bad, recent)["beats-naive"] is False


def test_an_export_that_differs_from_the_trained_model_fails(champion: Model, recent: Flights) -> None:
    assert checks(replace(champion, onnx_difference=0.5), recent)["onnx-parity"] is False


def test_flights_the_candidate_was_trained_on_are_refused(champion: Model, january: Flights) -> None:
    with pytest.raises(ValueError, match="trained on"):
        validate(champion, january)


def test_flights_without_labels_are_refused(champion: Model, recent: Flights) -> None:
    with pytest.raises(ValueError, match="no labelled"):
        validate(champion, recent.between(0, 1))


def test_errors_are_in_minutes() -> None:
    labels = np.array([10, -5, np.nan], dtype=np.float32)
    flights = Flights(
        np.zeros((3, len(FEATURES)), np.float32), labels, np.arange(3), np.array([5, 6, np.iinfo(np.int64).max])
    )

    metrics = evaluate(lambda features: np.zeros(len(features), np.float32), flights)

    assert (metrics.mae, metrics.bias, metrics.rows) == (7.5, -2.5, 2)
    assert metrics.rmse == pytest.approx(62.5**0.5)


def test_months_are_measured_one_by_one(year: Flights) -> None:
    months = evaluate_months(naive, year)

    assert list(months) == [f"2013-{month:02}" for month in range(1, 13)] + ["2014-01"]
    july = year.between(microseconds(2013, 7), microseconds(2013, 8))
    assert months["2013-07"] == evaluate(naive, july)


def test_the_naive_rule_expects_no_delay_of_a_flight_that_has_not_left() -> None:
    features: Floats = np.full((1, len(FEATURES)), np.nan, dtype=np.float32)

    assert naive(features).tolist() == [0.0]
