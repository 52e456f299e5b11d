"""What spans and applications say of a trace, without a database."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.spantrees import in_order, took
from headrace_kit.errors import FailedPrecondition, InvalidArgument
from headrace_tracking import tracerequests
from headrace_tracking.filters import TRACES, Comparison, Subject, parse_filter, parse_order
from headrace_tracking.traces import MAX_LABELS, Held, of_application, of_spans, searched, type_of, with_tags
from tests.support.spans import SECOND, span, trace_id

TRACE = trace_id()


@given(st.randoms(use_true_random=False), st.integers(1, 4))
def test_spans_come_to_the_same_in_whatever_order_and_batches(chance: random.Random, size: int) -> None:
    spans = [
        span(TRACE, 1, name="root", took_s=9, failed=True, mlflow__spanInputs=[1, 2]),
        span(TRACE, 2, parent=1, start_s=-1, name="early"),
        span(TRACE, 3, parent=1, start_s=2),
        span(TRACE, 4, start_s=3, name="a second root"),
        span(TRACE, 5, parent=77, start_s=4),
    ]
    wanted = of_spans(Held(resources.Trace()), spans)
    chance.shuffle(spans)
    found = Held(resources.Trace())
    for first in range(0, len(spans), size):
        found = of_spans(found, spans[first : first + size])
    assert found == wanted
    assert (found.trace.display_name, found.trace.request_preview) == ("root", "[1,2]")
    assert (found.trace.state, found.trace.duration_ns) == (resources.TRACE_STATE_ERROR, 9 * SECOND)
    assert found.trace.start_time.ToNanoseconds() == span(TRACE, 2, start_s=-1).start_time_ns


def test_an_application_may_say_more_until_the_trace_has_ended() -> None:
    begun = service.LogTraceRequest(display_name="a", state=resources.TRACE_STATE_IN_PROGRESS, tags={"k": "1"})
    ended = service.LogTraceRequest(display_name="b", state=resources.TRACE_STATE_OK, duration_ns=5, tags={"k": "2"})
    again = service.LogTraceRequest(display_name="c", state=resources.TRACE_STATE_ERROR, metadata={"m": "3"})
    held = Held(resources.Trace())
    for told in (begun, ended, again):
        held = of_application(held, told)
    assert (held.trace.display_name, held.trace.state, held.trace.duration_ns) == ("b", resources.TRACE_STATE_OK, 5)
    assert (dict(held.trace.tags), dict(held.trace.metadata)) == ({"k": "1"}, {"m": "3"})
    assert of_spans(held, [span(TRACE, 1, name="root")]).trace == held.trace


def test_tags_and_metadata_are_bounded() -> None:
    many = {f"k{each}": "v" for each in range(MAX_LABELS)}
    held = of_application(Held(resources.Trace()), service.LogTraceRequest(tags=many, metadata=many))
    for more in (service.LogTraceRequest(tags={"one": ""}), service.LogTraceRequest(metadata={"one": ""})):
        with pytest.raises(FailedPrecondition):
            of_application(held, more)
    with pytest.raises(FailedPrecondition):
        with_tags(held.trace, {"one": ""}, [])
    assert len(with_tags(held.trace, {"one": ""}, ["k1"]).tags) == MAX_LABELS


def test_short_attributes_are_searched() -> None:
    given = span(TRACE, 1, text="a", share=1.5, whole=3, yes=True, none=None, list=[1], object={"a": 1}, nul="a\0b")
    given.attributes["long"] = f'"{"x" * 257}"'
    given.attributes["just"] = f'"{"x" * 256}"'
    assert searched(given) == {"text": "a", "share": "1.5", "whole": "3", "yes": "true", "just": "x" * 256}
    assert type_of(span(TRACE, 1, mlflow__spanType="TOOL", gen_ai__operation__name="chat")) == "TOOL"


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("span.name = 'a'", Subject("span", "name")),
        ("span.attribute.http.method = 'GET'", Subject("span_attribute", "http.method")),
        ("span.attribute.`a b` = 'GET'", Subject("span_attribute", "a b")),
        ("metadata.user = 'a'", Subject("metadata", "user")),
        ("attribute.status = 'OK'", Subject("trace", "status")),
        ("duration_s > 1", Subject("trace", "duration_s")),
    ],
)
def test_filters_of_traces(text: str, subject: Subject) -> None:
    condition = parse_filter(text, TRACES)
    assert isinstance(condition, Comparison)
    assert condition.subject == subject
    assert parse_order(f"{text.split(maxsplit=1)[0] if '`' not in text else 'name'} desc", TRACES)


@pytest.mark.parametrize(
    "text", ["metric.a > 1", "param.a = 'b'", "span.colour = 'a'", "span.attribute. = 1", "group = 'a'"]
)
def test_what_only_runs_have_is_not_known_of_traces(text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_filter(text, TRACES)
    assert refused.value.field == "filter"


def test_a_deletion_names_traces_or_a_filter_and_not_both() -> None:
    experiment, name = "projects/p/experiments/e", f"projects/p/traces/{TRACE}"
    for bad in (
        service.DeleteTracesRequest(experiment=experiment),
        service.DeleteTracesRequest(experiment=experiment, filter="  "),
        service.DeleteTracesRequest(experiment=experiment, traces=[name], filter="status = 'OK'"),
    ):
        with pytest.raises(InvalidArgument):
            tracerequests.check_delete(bad)
    tracerequests.check_delete(service.DeleteTracesRequest(experiment=experiment, traces=[name]))


def test_a_tree_has_each_span_once_whatever_parents_they_name() -> None:
    spans = [
        span(TRACE, 1, start_s=0),
        span(TRACE, 2, parent=1, start_s=2),
        span(TRACE, 3, parent=1, start_s=1),
        span(TRACE, 4, parent=3, start_s=1.5),
        span(TRACE, 5, parent=99, start_s=0.5),
        span(TRACE, 6, parent=7, start_s=5),
        span(TRACE, 7, parent=6, start_s=6),
        span(TRACE, 8, parent=8, start_s=7),
    ]
    found = [(depth, int(each.span_id, 16)) for depth, each in in_order(reversed(spans))]
    assert found == [(0, 1), (1, 3), (2, 4), (1, 2), (0, 5), (0, 6), (1, 7), (0, 8)]
    deep = [span(TRACE, number, parent=number - 1) for number in range(1, 3000)]
    assert [place.depth for place in in_order(deep)] == list(range(2999))


def test_lengths_of_time_for_people() -> None:
    given = (0, 999, 1500, 36_500_000, 304_000_000, 4 * SECOND, 4000 * SECOND)
    assert [took(each) for each in given] == ["0 ns", "999 ns", "1.5 µs", "36.5 ms", "304 ms", "4 s", "4,000 s"]
