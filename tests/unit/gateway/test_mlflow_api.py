"""The parts of MLflow's API that stand on nothing: filters, paths, names, numbers."""

import math

import pytest

from headrace.naming import experiment_id
from headrace_gateway.mlflow_api.asking import Arguments
from headrace_gateway.mlflow_api.errors import MlflowError
from headrace_gateway.mlflow_api.filters import Comparison, holds, parse_filter, parse_order
from headrace_gateway.mlflow_api.paths import Place, place_of, place_of_source
from headrace_gateway.mlflow_api.search import translate_filter, translate_order
from headrace_gateway.mlflow_api.wire import number

RUN, MODEL = "0123456789abcdef0123456789abcdef", "m-0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("mlflows", "ours"),
    [
        ("", ""),
        ("metrics.rmse < 1", "metric.`rmse`.last < 1.0"),
        ("metric.`a b/c` >= -1.5e3 AND params.x != 'y'", 'metric.`a b/c`.last >= -1500.0 and param.`x` != "y"'),
        ('tags."Team Name" like \'%o"p%\'', 'tag.`Team Name` like "%o\\"p%"'),
        ("run_id = '0123456789abcdef0123456789abcdef'", 'run = "01234567-89ab-cdef-0123-456789abcdef"'),
        ("attributes.start_time > 1500", "start_time > 1.5"),
        ("run_name NOT IN ('a', 'b')", 'not display_name in ("a", "b")'),
        ("params.x IS NULL and tags.y is not null", "param.`x` is null and tag.`y` is not null"),
        ("datasets.name = 'd'", 'dataset.name = "d"'),
        ("tags.mlflow.parentRunId = 'x'", 'tag.`mlflow.parentRunId` = "x"'),
        ("tags.`mlflow.runName` = 'x'", 'display_name = "x"'),
        ("status = 'it''s'", 'status = "it\'s"'),
    ],
)
def test_filters_are_translated(mlflows: str, ours: str) -> None:
    assert translate_filter(parse_filter(mlflows)) == ours


@pytest.mark.parametrize(
    "text",
    [
        "metrics.", "rmse", "metrics.a = 'x'", "params.a = 1", "params.a < 'x'", "metrics.a like 'x'",
        "a = 'b' or c = 'd'", "metrics.a = 1 metrics.b = 2", "(metrics.a = 1)", "status in ()", "tags.a not like 'x'",
        "metrics.a = 1 and", "x.y = 'z'", "dataset.size = 'x'", "\x00",
    ],
)  # fmt: skip
def test_what_is_no_filter_is_refused(text: str) -> None:
    with pytest.raises(MlflowError) as refused:
        translate_filter(parse_filter(text))
    assert refused.value.status == 400


def test_orders_are_translated() -> None:
    orders = parse_order(["metrics.`a b` DESC", "start_time asc", "params.x"])
    assert translate_order(orders) == "metric.`a b`.last desc, start_time asc, param.`x` asc"
    with pytest.raises(MlflowError):
        parse_order(["metrics.a SIDEWAYS"])


def test_comparisons_hold_as_in_sql() -> None:
    assert holds(Comparison("attribute", "name", "like", "a_c%"), "abcd")
    assert not holds(Comparison("attribute", "name", "like", "A%"), "abc")
    assert holds(Comparison("attribute", "name", "ilike", "A%"), "abc")
    assert holds(Comparison("attribute", "name", "not in", ("x", "y")), "z")
    assert not holds(Comparison("tag", "a", "!=", "x"), None)
    assert holds(Comparison("tag", "a", "is null", ""), None)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (f"0/{RUN}/artifacts", Place("run", RUN, "")),
        (f"0/{RUN}/artifacts/a/b c%2e%2e.txt", Place("run", RUN, "a/b c%2e%2e.txt")),
        (f"7/models/{MODEL}/artifacts/MLmodel", Place("model", MODEL, "MLmodel")),
        ("models/Iris Classifier/versions/3/MLmodel", Place("version", "Iris Classifier/3", "MLmodel")),
    ],
)
def test_paths_lead_to_places(path: str, place: Place) -> None:
    assert place_of(path) == place
    assert place_of_source(f"mlflow-artifacts:/{path}") == place
    assert place_of_source(f"mlflow-artifacts://host:5000/{path}") == place
    assert place_of_source(f"http://host/x/api/2.0/mlflow-artifacts/artifacts/{path}") == place


@pytest.mark.parametrize(
    "path",
    ["", "/", "..", "a", "0/x", "0//artifacts", f"0/{RUN}/artifacts/../x", f"0/{RUN}/artifacts/", "0/x/artifacts/a\\b",
     f"../{RUN}/artifacts/x", "x/y/artifacts/z", "models/m/versions", "0/x/artifacts/\u202e", "file:/etc/passwd"],
)  # fmt: skip
def test_paths_that_lead_nowhere_are_refused(path: str) -> None:
    with pytest.raises(MlflowError):
        place_of(path)
    with pytest.raises(MlflowError):
        place_of_source(f"mlflow-artifacts:/{path}")


def test_names_of_experiments_become_ids() -> None:
    assert experiment_id("flights, delayed") == "flights, delayed"
    assert experiment_id("/people/me/x").startswith("-people-me-x-")
    assert experiment_id("a/b") != experiment_id("a-b")
    assert experiment_id("..") != ".."
    assert len(experiment_id("x" * 500)) < 250


def test_numbers_keep_what_json_lacks() -> None:
    assert [number(each) for each in (1.5, math.nan, math.inf, -math.inf)] == [1.5, "NaN", "Infinity", "-Infinity"]
    given = Arguments({"a": "NaN", "b": "-Infinity", "c": "1e3", "d": 7, "e": True, "f": 10**400})
    assert math.isnan(given.number("a"))
    assert (given.number("b"), given.number("c"), given.number("d")) == (-math.inf, 1000.0, 7.0)
    for name in ("e", "f", "g"):
        with pytest.raises(MlflowError):
            given.number(name)


def test_integers_are_of_64_bits() -> None:
    given = Arguments(
        {"a": (1 << 63) - 1, "b": str(-(1 << 63)), "c": 1 << 63, "d": 1.5, "e": "1_0", "f": 2.0, "g": "--1"}
    )
    assert (given.integer("a"), given.integer("b"), given.integer("f"), given.integer("none", 5)) == (
        (1 << 63) - 1,
        -(1 << 63),
        2,
        5,
    )
    for name in "cdeg":
        with pytest.raises(MlflowError):
            given.integer(name)
