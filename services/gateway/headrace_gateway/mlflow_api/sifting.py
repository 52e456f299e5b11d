"""Lists that are filtered, sorted and cut into pages here: experiments, logged models, registered models, versions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from headrace_gateway.mlflow_api.errors import MlflowError
from headrace_gateway.mlflow_api.filters import Comparison, Order, Value, holds

T = TypeVar("T")
ValueOf = Callable[[T, str, str], Value | None]
"""``(entity, kind, key) -> value``; None where it has none. Raises MlflowError for a key that no entity has."""

PROMPT_TAG: Final = "mlflow.prompt.is_prompt"


def sifted(entities: Sequence[T], comparisons: Sequence[Comparison], value_of: ValueOf[T]) -> list[T]:
    """Those for which every comparison holds."""
    return [each for each in entities if all(_holds(one, each, value_of) for one in comparisons)]


def ordered(entities: Sequence[T], orders: Sequence[Order], value_of: ValueOf[T]) -> list[T]:
    """Sorted by several keys, what has no value last."""
    found = list(entities)
    for order in reversed(orders):
        there = [each for each in found if value_of(each, order.kind, order.key) is not None]
        absent = [each for each in found if value_of(each, order.kind, order.key) is None]
        there.sort(key=lambda each: value_of(each, order.kind, order.key), reverse=order.descending)  # type: ignore[arg-type,return-value]
        found = there + absent
    return found


def page(entities: Sequence[T], *, token: str, size: int, most: int) -> tuple[list[T], str]:
    """A page and the token of the next. Raises MlflowError for a size or token out of range."""
    if not 0 < size <= most:
        raise MlflowError(f"Invalid value {size} for parameter 'max_results': give 1 to {most}.")
    if token and not (token.isascii() and token.isdecimal() and len(token) < 12):
        raise MlflowError("Invalid value for parameter 'page_token'.")
    begin = int(token) if token else 0
    found = list(entities[begin : begin + size])
    return found, str(begin + size) if begin + size < len(entities) else ""


def _holds(comparison: Comparison, entity: T, value_of: ValueOf[T]) -> bool:
    value = value_of(entity, comparison.kind, comparison.key)
    if value is None and comparison.kind == "tag" and comparison.key == PROMPT_TAG and comparison.operator == "!=":
        return True  # what says nothing is no prompt: so clients leave prompts out
    return holds(comparison, value)
