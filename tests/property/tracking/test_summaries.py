"""Summaries of metric points come out the same however the points were grouped."""

import math

from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.tracking.v1.resources_pb2 import MetricSummary
from headrace.api.tracking.v1.service_pb2 import THINNING_LTTB
from headrace_kit.errors import InvalidArgument
from headrace_tracking.columns import digest, joined
from headrace_tracking.filters import parse_filter, parse_order
from headrace_tracking.history import in_order
from headrace_tracking.summaries import merge, summarise
from headrace_tracking.thinning import Series, thin
from tests.support.points import Point, columns_of, digest_of, points_of

points = st.tuples(st.sampled_from(["loss", "rmse"]), st.integers(-3, 3), st.integers(0, 3), st.floats())


def plain(summaries: dict[str, MetricSummary]) -> dict[str, bytes]:
    return {key: _bytes(each) for key, each in summaries.items()}


def _bytes(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


@given(st.lists(st.lists(points, max_size=5), max_size=6))
def test_grouping_does_not_matter(groups: list[list[Point]]) -> None:
    merged: dict[str, MetricSummary] = {}
    for group in groups:
        for key, summary in summarise(columns_of(group)).items():
            merge(merged.setdefault(key, MetricSummary()), summary)
    whole = summarise(columns_of(point for group in groups for point in group))
    assert plain(merged) == plain(whole)


@given(st.lists(st.lists(points, max_size=5), max_size=6))
def test_calls_are_joined_in_their_order(groups: list[list[Point]]) -> None:
    whole = joined(columns_of(group) for group in groups)
    given_points = [point for group in groups for point in group]

    assert repr(points_of(whole)) == repr(given_points)  # NaN is not itself
    assert digest(whole) == digest_of(given_points)


@given(st.lists(points.map(lambda point: ("loss", *point[1:])), min_size=1))
def test_a_series_is_by_step_and_time_and_then_as_it_came(given_points: list[Point]) -> None:
    series = in_order(columns_of(given_points)[0])

    found = list(zip(series.steps, series.times_us, series.values, strict=True))
    wanted = sorted(((step, time_us, value) for _, step, time_us, value in given_points), key=lambda each: each[:2])
    assert repr(found) == repr(wanted)


@given(st.lists(points, min_size=1))
def test_extremes_leave_nan_out(given_points: list[Point]) -> None:
    for key, summary in summarise(columns_of(given_points)).items():
        values = [value for name, _, _, value in given_points if name == key]
        numbers = [value for value in values if not math.isnan(value)]
        assert summary.count == len(values)
        assert summary.min == min(numbers, default=math.inf)
        assert summary.max == max(numbers, default=-math.inf)


@given(st.lists(st.floats()), st.integers(1, 20))
def test_a_thinned_series_keeps_its_extremes(values: list[float], max_points: int) -> None:
    steps = list(range(len(values)))
    thinned = thin(Series(steps, steps, values), max_points)
    assert len(thinned.values) <= max(max_points, 0) or len(values) <= max_points
    assert thinned.steps == sorted(thinned.steps)
    numbers = [value for value in values if not math.isnan(value)]
    if max_points >= 4 and numbers:
        assert min(numbers) in thinned.values
        assert max(numbers) in thinned.values


@given(st.lists(st.floats()), st.integers(1, 20))
def test_a_series_thinned_by_triangles_has_its_ends_and_no_more_than_asked_for(
    values: list[float], max_points: int
) -> None:
    steps = list(range(len(values)))
    thinned = thin(Series(steps, steps, values), max_points, THINNING_LTTB)
    numbers = [step for step, value in zip(steps, values, strict=True) if math.isfinite(value)]
    assert thinned.steps == sorted(set(thinned.steps))
    assert len(thinned.steps) == min(max_points, len(numbers)) or len(values) <= max_points
    if len(values) > max_points >= 2 and len(numbers) >= 2:
        assert (thinned.steps[0], thinned.steps[-1]) == (numbers[0], numbers[-1])


def test_triangles_keep_what_bends_the_line() -> None:
    values = [0.0] * 1000
    values[123], values[777] = 5.0, -3.0
    steps = list(range(1000))
    thinned = thin(Series(steps, steps, values), 50, THINNING_LTTB)
    assert len(thinned.steps) == 50
    assert {123, 777} < set(thinned.steps)


@given(st.text(alphabet=st.sampled_from("metric.param tag`\"'<>=!()andor,in1 x\\é\0"), max_size=40))
def test_any_text_is_read_or_refused_with_its_field(text: str) -> None:
    for parse, field in ((parse_filter, "filter"), (parse_order, "order_by")):
        try:
            parse(text)
        except InvalidArgument as fault:
            assert fault.field == field  # noqa: PT017 - either outcome is right
