"""Search of traces: MLflow's filters and orders in headrace's language."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from headrace_gateway.mlflow_api.errors import MlflowError
from headrace_gateway.mlflow_api.filters import KINDS_OF_TRACES, Comparison, Value, parse_filter, parse_order
from headrace_gateway.mlflow_api.naming import dashed
from headrace_gateway.mlflow_api.tracewire import NAME_TAG, RUN_KEY

_ATTRIBUTES: Final = {
    "request_id": "trace",
    "trace_id": "trace",
    **dict.fromkeys(("timestamp", "timestamp_ms"), "start_time"),
    **dict.fromkeys(("end_time", "end_time_ms"), "end_time"),
    **dict.fromkeys(("execution_time", "execution_time_ms"), "duration_s"),
    "status": "status",
    "state": "status",
    "name": "name",
    "client_request_id": "client_request_id",
    "run_id": "run",
}
_NUMBERS: Final = ("start_time", "end_time", "duration_s")
_ORDERED: Final = ("=", "!=", "<", "<=", ">", ">=")
_OF_SPANS: Final = ("name", "type", "status")


def translated_filter(text: str) -> str:
    """A filter in headrace's language. Raises MlflowError for what it can not say."""
    return " and ".join(_translated(each) for each in parse_filter(text, KINDS_OF_TRACES))


def translated_order(texts: Sequence[str]) -> str:
    """An order in headrace's language. Raises MlflowError."""
    orders = parse_order(texts, KINDS_OF_TRACES)
    return ", ".join(f"{_subject(each.kind, each.key)} {'desc' if each.descending else 'asc'}" for each in orders)


def _translated(comparison: Comparison) -> str:
    subject, operator, value = _subject(comparison.kind, comparison.key), comparison.operator, comparison.value
    if operator in ("is null", "is not null"):
        return f"{subject} {operator}"
    numeric = subject in _NUMBERS
    if numeric and operator not in _ORDERED:
        raise MlflowError(f"Invalid comparator {operator.upper()!r} for '{comparison.key}': it is a number.")
    if not numeric and operator in ("<", "<=", ">", ">="):
        raise MlflowError(f"Invalid comparator {operator!r} for '{comparison.key}': it is a string.")
    if isinstance(value, tuple):
        found = f"{subject} in ({', '.join(_literal(subject, comparison.key, each) for each in value)})"
        return f"not {found}" if operator == "not in" else found
    return f"{subject} {operator} {_literal(subject, comparison.key, value)}"


def _subject(kind: str, key: str) -> str:
    if "`" in key:
        raise MlflowError(f"Invalid key {key!r}: it holds a backquote.")
    match kind:
        case "attribute":
            if key not in _ATTRIBUTES:
                known = ", ".join(_ATTRIBUTES)
                raise MlflowError(f"Invalid attribute key '{key}' specified. Valid keys are: {known}.")
            return _ATTRIBUTES[key]
        case "tag" if key == NAME_TAG:
            return "name"
        case "metadata" if key == RUN_KEY:
            return "run"
        case "tag" | "metadata":
            return f"{kind}.`{key}`"
        case "span" if key in _OF_SPANS:
            return f"span.{key}"
        case "span" if key.startswith("attributes.") and key != "attributes.":
            return f"span.attribute.`{key.removeprefix('attributes.')}`"
        case "span":
            known = ", ".join(_OF_SPANS)
            raise MlflowError(f"Invalid span key '{key}' specified. Valid keys are: {known}, attributes.<name>.")
        case _:
            raise MlflowError(f"Invalid filter: traces can not be searched by {kind} here.")


def _literal(subject: str, key: str, value: Value) -> str:
    if subject in _NUMBERS:
        if isinstance(value, str):
            raise MlflowError(f"Expected numeric value for '{key}', found {value!r}.")
        return repr(value / 1000)
    if not isinstance(value, str):
        raise MlflowError(f"Expected a quoted string value for '{key}', found {value:g}.")
    text = dashed(value) if subject == "run" else value.removeprefix("tr-") if subject == "trace" else value
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
