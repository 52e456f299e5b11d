"""The language of SearchRuns."""

import pytest

from headrace_kit.errors import InvalidArgument
from headrace_tracking.filters import (
    Both,
    Comparison,
    Either,
    Negation,
    Order,
    SqlBuilder,
    Subject,
    parse_filter,
    parse_order,
)

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
        ("start_time > 5", Subject("attribute", "start_time")),
        ("attribute.duration_s > 5", Subject("attribute", "duration_s")),
    ],
)
def test_subjects(text: str, subject: Subject) -> None:
    parsed = parse_filter(text)
    assert isinstance(parsed, Comparison)
    assert parsed.subject == subject


def test_times_may_be_written_as_such() -> None:
    assert parse_filter('start_time > "1970-01-02"') == parse_filter("start_time > 86400")


def test_an_empty_filter_is_no_condition() -> None:
    assert parse_filter("  ") is None
    assert parse_order("") == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("metric.rmse <", "expected a number, found the end at character 14"),
        ("rmse < 1", "'rmse' is not an attribute"),
        ('metric.rmse like "a"', "'like' compares texts"),
        ("(metric.rmse < 1", "expected ')'"),
        ("metric.rmse < 1 metric.x < 1", "expected the end, 'and' or 'or'"),
        ("param.x = ;", "can not read ';' at character 11"),
        ("metric. < 1", "expected a key after 'metric'"),
        ("(" * 100 + "metric.x < 1" + ")" * 100, "levels of brackets"),
        (" and ".join(["metric.x < 1"] * 200), "more than 100 comparisons"),
    ],
)
def test_faults_say_what_was_expected_and_where(text: str, expected: str) -> None:
    with pytest.raises(InvalidArgument) as fault:
        parse_filter(text)
    assert expected in str(fault.value)
    assert fault.value.field == "filter"


def test_orders() -> None:
    assert parse_order("metric.rmse, start_time DESC") == (
        Order(RMSE, descending=False),
        Order(Subject("attribute", "start_time"), descending=True),
    )


def test_no_text_of_the_caller_becomes_sql() -> None:
    evil = "x'); DROP TABLE runs; --"
    sql = SqlBuilder("default")
    condition = parse_filter(f'param.`{evil}` = "{evil}" or tag.a in ("{evil}") or metric.`{evil}` > 1')
    assert condition is not None
    text = sql.condition(condition)
    assert "DROP" not in text
    assert sql.parameters.count(evil) == 3
