"""Values between steps: JSON on the way, Python types at both ends.

JSON's own types, dataclasses, pydantic models, enums, dates and times, UUIDs, paths, tuples and sets travel; NumPy
scalars and arrays become numbers and lists. The annotation of the parameter that takes a value says what it becomes.
"""

# Any: JSON, and annotations, which may be anything.
# ruff: noqa: ANN401

from __future__ import annotations

import dataclasses
import enum
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, Union, cast, get_args, get_origin
from uuid import UUID

import orjson

_PARSED: Mapping[type, Callable[[str], object]] = {
    datetime: datetime.fromisoformat,
    date: date.fromisoformat,
    UUID: UUID,
    Path: Path,
    bytes: bytes.fromhex,
}


def encode(value: object) -> str:
    """A value as JSON.

    Raises:
        TypeError: it, or something in it, has no JSON form; the message says where and what to do instead.
    """
    try:
        return orjson.dumps(_plain(value, "value"), option=orjson.OPT_NON_STR_KEYS).decode()
    except orjson.JSONEncodeError as error:
        raise TypeError(str(error)) from error


def decode(text: str, annotation: object = Any) -> object:
    """JSON as the type of an annotation.

    Raises:
        TypeError: the value is not of that type.
        ValueError: it is of the type but not one of its values.
    """
    return _shaped(orjson.loads(text), annotation, "value")


def decode_arguments(function: Callable[..., object], arguments: Mapping[str, str]) -> dict[str, object]:
    """The arguments of a call, each as its parameter is annotated. Raises TypeError, ValueError."""
    hints = typing.get_type_hints(function)
    decoded: dict[str, object] = {}
    for name, text in arguments.items():
        decoded[name] = _shaped(orjson.loads(text), hints.get(name, Any), name)
    return decoded


def _plain(value: object, at: str) -> object:  # noqa: PLR0911 - one line for each kind of value
    match value:
        case enum.Enum():
            return _plain(value.value, at)
        case None | bool() | str():
            return value
        case int():
            return int(value)
        case float():
            if not math.isfinite(value):
                raise TypeError(f"{at} is {value}, which JSON has no form for")
            return float(value)
        case datetime() | date():
            return value.isoformat()
        case UUID() | Path():
            return str(value)
        case bytes():
            return value.hex()
        case Mapping():
            pairs = cast("Mapping[object, object]", value).items()
            return {str(key): _plain(item, f"{at}[{key!r}]") for key, item in pairs}
        case list() | tuple() | set() | frozenset():
            items = cast("Sequence[object]", value)
            return [_plain(item, f"{at}[{index}]") for index, item in enumerate(items)]
        case _:
            return _plain_object(value, at)


def _plain_object(value: object, at: str) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name), f"{at}.{each.name}") for each in dataclasses.fields(value)}
    for method in ("model_dump", "tolist"):  # pydantic models; NumPy scalars and arrays
        dump = getattr(value, method, None)
        if callable(dump):
            return _plain(dump(), at)
    kind = type(value).__qualname__
    raise TypeError(f"{at} is a {kind}, which does not travel between steps: log an artifact and return its name")


def _shaped(value: Any, annotation: Any, at: str) -> object:
    if annotation in (Any, object, inspect.Parameter.empty) or isinstance(annotation, typing.TypeVar):
        return value
    origin = get_origin(annotation)
    if origin is not None:
        return _shaped_generic(value, annotation, origin, at)
    if annotation is None or annotation is types.NoneType:
        return _checked(value, types.NoneType, at)
    if annotation is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if annotation in (str, int, float, bool, list, dict):
        return _checked(value, annotation, at)
    if annotation in (tuple, set, frozenset):
        return annotation(cast("list[object]", _checked(value, list, at)))
    if annotation in _PARSED:
        return _PARSED[annotation](str(_checked(value, str, at)))
    return _shaped_class(value, annotation, at)


def _shaped_class(value: Any, annotation: Any, at: str) -> object:
    if not isinstance(annotation, type):
        return value
    if issubclass(annotation, enum.Enum):
        return annotation(value)
    if dataclasses.is_dataclass(annotation):
        hints = typing.get_type_hints(annotation)
        given = cast("dict[str, object]", _checked(value, dict, at))
        return annotation(**{name: _shaped(item, hints.get(name, Any), f"{at}.{name}") for name, item in given.items()})
    validate = getattr(annotation, "model_validate", None)
    return validate(value) if callable(validate) else value


def _shaped_generic(value: Any, annotation: Any, origin: Any, at: str) -> object:
    arguments = get_args(annotation)
    if origin in (Union, types.UnionType):
        return _shaped_union(value, arguments, at)
    if origin is typing.Annotated:
        return _shaped(value, arguments[0], at)
    if origin is typing.Literal:
        if value not in arguments:
            raise ValueError(f"{at} is {value!r} and must be one of {', '.join(map(repr, arguments))}")
        return value
    if isinstance(origin, type) and issubclass(origin, Mapping):
        given = cast("dict[str, object]", _checked(value, dict, at))
        keys, items = arguments
        return {_key(key, keys): _shaped(item, items, f"{at}[{key!r}]") for key, item in given.items()}
    if origin is tuple and arguments[-1:] != (Ellipsis,):
        items = cast("list[object]", _checked(value, list, at))
        return tuple(
            _shaped(item, kind, f"{at}[{i}]") for i, (item, kind) in enumerate(zip(items, arguments, strict=True))
        )
    if isinstance(origin, type) and issubclass(origin, typing.Collection):
        items = cast("list[object]", _checked(value, list, at))
        shaped = [_shaped(item, arguments[0], f"{at}[{index}]") for index, item in enumerate(items)]
        return origin(shaped) if origin in (set, frozenset, tuple) else shaped
    return value


def _shaped_union(value: Any, arguments: tuple[Any, ...], at: str) -> object:
    if value is None and types.NoneType in arguments:
        return None
    error: Exception | None = None
    for each in arguments:
        if each is types.NoneType:
            continue
        try:
            return _shaped(value, each, at)
        except (TypeError, ValueError) as failed:
            error = failed
    raise error or TypeError(f"{at} must be None")


def _key(key: str, annotation: Any) -> object:
    return annotation(key) if annotation in (int, float) else _shaped(key, annotation, "key")


def _checked(value: object, kind: type, at: str) -> object:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise TypeError(f"{at} must be {kind.__name__} and is {type(value).__name__}")
    return value
