import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flights.data import FEATURES, NEVER, Flights
from flights.replay import HOUR_US, SLOT_S, LabelBatch, PredictRequest, Replay


@st.composite
def some_flights(draw: st.DrawFn) -> Flights:
    """A few days of flights; some never land, some in the window they left in, some long after the last has left."""
    n = draw(st.integers(0, 40))
    event = (
        np.sort(np.array(draw(st.lists(st.integers(0, 72 * 60), min_size=n, max_size=n)), dtype=np.int64)) * 60_000_000
    )
    durations = draw(st.lists(st.none() | st.integers(1, 30 * 60), min_size=n, max_size=n))
    landed = [NEVER if d is None else int(e) + d * 60_000_000 for e, d in zip(event, durations, strict=True)]
    labels = np.array([np.nan if at == NEVER else row for row, at in enumerate(landed)], dtype=np.float32)
    features = np.tile(np.arange(n, dtype=np.float32)[:, None], (1, len(FEATURES)))
    return Flights(features, labels, event, np.array(landed, dtype=np.int64))


replays = st.builds(
    Replay, some_flights(), window_s=st.sampled_from([900, 3600, SLOT_S]), max_rows=st.sampled_from([1, 3, 256])
)


@given(replays)
def test_every_flight_is_asked_for_once_and_in_order(replay: Replay) -> None:
    requests = [step for step in replay.steps() if isinstance(step, PredictRequest)]

    assert [request.number for request in requests] == list(range(replay.requests()))
    asked = np.concatenate([request.features[:, 0] for request in requests]) if requests else np.empty(0)
    assert np.array_equal(asked, np.arange(len(replay.flights)))


@given(replays)
def test_every_label_comes_once_after_its_request_and_when_the_flight_has_landed(replay: Replay) -> None:
    asked: dict[int, PredictRequest] = {}
    given_labels: list[int] = []
    for step in replay.steps():
        if isinstance(step, PredictRequest):
            asked[step.number] = step
            continue
        assert (step.label_us < step.known_us).all()
        assert (step.label_us >= step.known_us - replay.window_s * 1_000_000).all()
        for number, row, label in zip(step.requests, step.rows, step.labels, strict=True):
            assert asked[int(number)].features[int(row), 0] == label
            given_labels.append(int(label))

    assert sorted(given_labels) == np.flatnonzero(replay.flights.label_us < NEVER).tolist()


@given(replays)
def test_a_request_stays_within_its_limits(replay: Replay) -> None:
    window_us = replay.window_s * 1_000_000
    for step in replay.steps():
        if isinstance(step, PredictRequest):
            times = replay.flights.event_us[step.first_row : step.first_row + len(step.features)]
            assert 1 <= len(times) <= replay.max_rows
            assert step.event_us == times[0]
            assert times[-1] // window_us == times[0] // window_us


@given(replays)
def test_time_does_not_run_backwards(replay: Replay) -> None:
    window_us = replay.window_s * 1_000_000
    ends = [
        step.known_us if isinstance(step, LabelBatch) else (step.event_us // window_us + 1) * window_us
        for step in replay.steps()
    ]
    assert ends == sorted(ends)


def test_a_real_week_asks_for_all_and_labels_all_that_landed(recent: Flights) -> None:
    steps = list(Replay(recent, window_s=3600).steps())

    assert sum(len(step.features) for step in steps if isinstance(step, PredictRequest)) == len(recent)
    assert sum(len(step.labels) for step in steps if isinstance(step, LabelBatch)) == len(recent.labelled())
    lags = [step.known_us - step.label_us.max() for step in steps if isinstance(step, LabelBatch)]
    assert max(lags) <= HOUR_US


@pytest.mark.parametrize(("window_s", "max_rows"), [(0, 1), (5000, 1), (3600, 0)])
def test_settings_that_would_break_the_order_are_refused(recent: Flights, window_s: int, max_rows: int) -> None:
    with pytest.raises(ValueError, match=r"window_s|max_rows"):
        Replay(recent, window_s=window_s, max_rows=max_rows)
