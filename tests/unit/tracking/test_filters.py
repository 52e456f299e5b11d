"""The language of SearchRuns."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_kit.errors import InvalidArgument
from headrace_tracking.filters import (
    Both,
    Comparison,
    Either,
    Negation,
    Order,
    Subject,
    parse_filter,
    parse_order,
)
from headrace_tracking.searching import SqlBuilder

RMSE = Subject("metric", "rmse", "last")


def test_or_binds_weaker_than_and() -> None:
    parsed = parse_filter('metric.rmse < 30 and param.model = "a" or not tag.team = "ops"')
    first = Both((Comparison(RMSE, "<", 30.0), Comparison(Subject("param", "model"), "=", "a")))
    assert parsed == Either((first, Negation(Comparison(Subject("tag", "team"), "=", "ops"))))


def test_brackets_group() -> None:
    parsed = parse_filter("metric.rmse < 1 AND (metric.rmse > 2 OR metric.rmse > 3)")
    either = Either((Comparison(RMSE, ">", 2.0), Comparison(RMSE, ">", 3.0)))
    assert parsed == Both((Comparison(RMSE, "<", 1.0), either))


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("metric.val/rmse.min < 1", Subject("metric", "val/rmse", "min")),
        ("metric.max < 1", Subject("metric", "max", "last")),
        ("metric.`a b`.max < 1", Subject("metric", "a b", "max")),
        ("metric.loss.at.100 < 1", Subject("metric", "loss", "at", 100)),
        ("metric.`val/loss`.at.-1 < 1", Subject("metric", "val/loss", "at", -1)),
        ("metric.at.5 < 1", Subject("metric", "at.5", "last")),
        ("metric.`loss.at.5`.last < 1", Subject("metric", "loss.at.5", "last")),
        ('code.commit like "3f%"', Subject("code", "commit")),
        ("code.dirty = true", Subject("code", "dirty")),
        ('parent = "x"', Subject("attribute", "parent")),
        ("nested != TRUE", Subject("attribute", "nested")),
        ("start_time > 5", Subject("attribute", "start_time")),
        ("attribute.duration_s > 5", Subject("attribute", "duration_s")),
    ],
)
def test_subjects(text: str, subject: Subject) -> None:
    parsed = parse_filter(text)
    assert isinstance(parsed, Comparison)
    assert parsed.subject == subject


@pytest.mark.parametrize(
    "written",
    ["86400", '"86400"', '"1970-01-02"', '"1970-01-02T00:00:00Z"', '"1970-01-02T02:00+02:00"', '"19700102T000000"'],
)
def test_times_may_be_written_in_many_ways(written: str) -> None:
    expected = Comparison(Subject("attribute", "end_time"), ">", datetime(1970, 1, 2, tzinfo=UTC))
    assert parse_filter(f"end_time > {written}") == expected


@pytest.mark.parametrize("written", ["1e300", "-1e300", '"inf"'])
def test_a_time_that_no_calendar_has_is_near_its_end(written: str) -> None:
    parsed = parse_filter(f"start_time < {written}")
    assert isinstance(parsed, Comparison)
    assert isinstance(parsed.value, datetime)
    assert parsed.value.year in (1, 9999)


def test_an_empty_filter_is_no_condition() -> None:
    assert parse_filter("  ") is None
    assert parse_order("") == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("metric.rmse <", "expected a number, found the end at character 14"),
        ("rmse < 1", "expected an attribute (display_name, duration_s, "),
        (
            'metric.rmse like "a"',
            "expected one of = != < <= > >= in is: this is a number, found 'like' at character 13",
        ),
        ("code.dirty < true", "expected one of = != is: this is a flag, found '<' at character 12"),
        ("nested = 3", "expected true or false, found '3' at character 10"),
        (
            'start_time > "May"',
            "expected seconds, or a time such as '2026-01-31T12:00:00Z', found '\"May\"' at character 14",
        ),
        ("code.branch = 1", "expected commit or dirty after 'code', found 'code.branch' at character 1"),
        ("metric.a.at.9223372036854775808 < 1", "expected a step of 64 bits"),
        ("(metric.rmse < 1", "expected ')'"),
        ("metric.rmse < 1 metric.x < 1", "expected the end, 'and' or 'or'"),
        ("param.x = ;", "can not read ';' at character 11"),
        ("metric. < 1", "expected a key after 'metric'"),
        ("(" * 100 + "metric.x < 1" + ")" * 100, "levels of brackets"),
        (" and ".join(["metric.x < 1"] * 200), "expected at most 100 comparisons"),
    ],
)
def test_faults_say_what_was_expected_and_where(text: str, expected: str) -> None:
    with pytest.raises(InvalidArgument) as fault:
        parse_filter(text)
    assert expected in str(fault.value)
    assert fault.value.field == "filter"
    assert f"at character {fault.value.metadata['position']}" in str(fault.value)


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("metric.rmse < 1 and  param.x = ", 31, "a text in quotes"),
        ("not (metric.rmse < 1", 21, "')'"),
        ("metric.rmse is nil", 16, "'null'"),
        ("param.a in 3", 12, "'('"),
        ("metric.a < 1\n  or b = 2", 19, "an attribute"),
    ],
)
def test_faults_point_at_the_character(text: str, position: int, expected: str) -> None:
    with pytest.raises(InvalidArgument) as fault:
        parse_filter(text)
    assert fault.value.metadata["position"] == str(position)
    assert fault.value.metadata["expected"].startswith(expected)


@given(st.text(alphabet="ab.<=> ()\"'`,0123456789andortmeic_", max_size=60))
def test_any_text_is_read_or_refused_at_a_place_in_it(text: str) -> None:
    for fault in [fault for parse in (parse_filter, parse_order) if (fault := _fault(parse, text))]:
        assert 1 <= int(fault.metadata["position"]) <= len(text) + 1
        assert fault.metadata["expected"]


def _fault(parse: Callable[[str], object], text: str) -> InvalidArgument | None:
    try:
        parse(text)
    except InvalidArgument as fault:
        return fault
    return None


def test_orders() -> None:
    assert parse_order("metric.rmse, start_time DESC") == (
        Order(RMSE, descending=False),
        Order(Subject("attribute", "start_time"), descending=True),
    )


def test_an_order_has_eight_keys_at_most() -> None:
    assert len(parse_order(", ".join(["metric.a"] * 8))) == 8
    with pytest.raises(InvalidArgument, match="at most 8 keys"):
        parse_order(", ".join(["metric.a"] * 9))


def test_no_text_of_the_caller_becomes_sql() -> None:
    evil = "x'); DROP TABLE runs; --"
    sql = SqlBuilder("default")
    condition = parse_filter(f'param.`{evil}` = "{evil}" or tag.a in ("{evil}") or metric.`{evil}` > 1')
    assert condition is not None
    text = sql.condition(condition)
    assert "DROP" not in text
    assert sql.parameters == ["default", {evil: evil}, "a", [evil], evil, 1.0]
