import numpy as np
import pytest

from flights.data import Flights
from flights.delayed import DelayClassifier, Outcome, Scored, late, publications
from flights.replay import Replay


@pytest.fixture(scope="module")
def classifier(january: Flights) -> DelayClassifier:
    return DelayClassifier(january, rounds=10)


def test_scores_rank_late_flights_above_punctual_ones(classifier: DelayClassifier, recent: Flights) -> None:
    landed = recent.labelled()
    scores, outcomes = classifier.scores(landed.features), late(landed.labels).astype(bool)

    assert ((scores > 0) & (scores < 1)).all()
    assert scores[outcomes].mean() > scores[~outcomes].mean() + 0.2
    assert ((scores > 0.5) == outcomes).mean() > 0.85


def test_late_means_more_than_fifteen_minutes() -> None:
    assert late(np.array([14, 15, 15.5, 16], dtype=np.float32)).tolist() == [0, 0, 1, 1]


def test_publishes_a_score_for_each_flight_and_an_outcome_for_each_that_landed(
    classifier: DelayClassifier, recent: Flights
) -> None:
    published = list(publications(classifier, Replay(recent)))

    scores = np.concatenate([item.scores for item in published if isinstance(item, Scored)])
    outcomes = np.concatenate([item.late for item in published if isinstance(item, Outcome)])
    np.testing.assert_array_equal(scores, classifier.scores(recent.features))
    assert len(outcomes) == len(recent.labelled())
    assert outcomes.sum() == late(recent.labelled().labels).sum()


def test_too_few_flights_are_refused(january: Flights) -> None:
    with pytest.raises(ValueError, match="too few"):
        DelayClassifier(january.between(0, 1))
