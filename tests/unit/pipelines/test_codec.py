"""Values between steps."""

from __future__ import annotations

import dataclasses
import enum
import math
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import numpy as np
import pytest
from pydantic import BaseModel

from headrace.pipelines.codec import decode, decode_arguments, encode


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass(frozen=True)
class Point:
    x: float
    y: float = 0.0


@dataclasses.dataclass(frozen=True)
class Shape:
    points: list[Point]
    colour: Colour
    named: dict[str, Point]
    at: datetime | None = None


class Settings(BaseModel):
    rate: float
    tags: list[str] = []


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (None, None),
        (True, bool),
        (3, int),
        (2.5, float),
        ("ü\n", str),
        ([1, 2], list[int]),
        ((1, "a"), tuple[int, str]),
        ((1, 2, 3), tuple[int, ...]),
        ({1, 2}, set[int]),
        ({"a": [1.0]}, dict[str, list[float]]),
        ({1: "a"}, dict[int, str]),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), datetime),
        (date(2026, 1, 2), date),
        (UUID(int=7), UUID),
        (Path("a/b"), Path),
        (b"\x00\xff", bytes),
        (Colour.RED, Colour),
        ("b", Literal["a", "b"]),
        (None, int | None),
        (3, int | str),
        ("x", int | str),
        (Shape([Point(1.0), Point(2.0, 3.0)], Colour.RED, {"o": Point(0.0)}, datetime(2026, 1, 1, tzinfo=UTC)), Shape),
        (Settings(rate=0.1, tags=["a"]), Settings),
        ([Settings(rate=0.1)], list[Settings]),
    ],
)
def test_a_value_comes_out_as_it_went_in(value: object, annotation: object) -> None:
    assert decode(encode(value), annotation) == value


def test_numpy_becomes_numbers_and_lists() -> None:
    assert decode(encode({"a": np.float32(1.5), "b": np.arange(3), "c": np.int64(7)})) == {
        "a": 1.5,
        "b": [0, 1, 2],
        "c": 7,
    }


def test_an_integer_is_good_for_a_float() -> None:
    found = decode("3", float)
    assert found == 3.0
    assert isinstance(found, float)


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (math.nan, "value is nan"),
        ({"a": [1.0, math.inf]}, r"value\['a'\]\[1\] is inf"),
        (Point(math.nan), r"value\.x is nan"),
        (object(), "value is a object"),
        ({"model": lambda: None}, r"value\['model'\] is a function"),
    ],
)
def test_what_does_not_travel_is_named(value: object, where: str) -> None:
    with pytest.raises(TypeError, match=where):
        encode(value)


@pytest.mark.parametrize(
    ("text", "annotation", "message"),
    [
        ('"a"', int, "value must be int and is str"),
        ("true", int, "value must be int and is bool"),
        ("1.5", int, "value must be int and is float"),
        ('{"points":[{"x":"a"}],"colour":"red","named":{}}', Shape, r"value\.points\[0\]\.x must be float"),
        ("null", str, "value must be str"),
        ('["a"]', list[int], r"value\[0\] must be int"),
    ],
)
def test_a_value_of_another_type_is_refused(text: str, annotation: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        decode(text, annotation)


def test_arguments_become_what_the_function_says() -> None:
    def function(point: Point, count: int, anything, colour: Colour = Colour.RED) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
        """Takes arguments."""

    given = {"point": '{"x":1,"y":2}', "count": "3", "anything": '{"a":1}', "colour": '"red"'}
    assert decode_arguments(function, given) == {
        "point": Point(1.0, 2.0),
        "count": 3,
        "anything": {"a": 1},
        "colour": Colour.RED,
    }
