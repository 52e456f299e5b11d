"""Search of runs: MLflow's filters and orders in headrace's language."""

from __future__ import annotations

from typing import Final

from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.resources_pb2 import Run
from headrace_gateway.mlflow_api.asking import Ask
from headrace_gateway.mlflow_api.errors import MlflowError
from headrace_gateway.mlflow_api.filters import Comparison, Order, Value, parse_filter, parse_order
from headrace_gateway.mlflow_api.naming import dashed, experiment_name, experiment_number, view_of
from headrace_gateway.mlflow_api.table import V2, Endpoint
from headrace_gateway.mlflow_api.wire import USER_TAG, Json, run_json

MAX_RESULTS: Final = 50_000
_PAGE: Final = 1000
_TIMES: Final = ("start_time", "end_time")
_ATTRIBUTES: Final = {
    "run_id": "run",
    "run_name": "display_name",
    "Run name": "display_name",
    "run name": "display_name",
    "status": "status",
    "start_time": "start_time",
    "Created": "start_time",
    "created": "start_time",
    "end_time": "end_time",
    "user_id": f"tag.`{USER_TAG}`",
    "experiment_id": "",
    "artifact_uri": "",
}
_ORDERED: Final = ("=", "!=", "<", "<=", ">", ">=")


def endpoints() -> list[Endpoint]:
    """The search of runs."""
    return [
        Endpoint("POST", f"{V2}/runs/search", _search),
    ]


async def _search(ask: Ask) -> Json:
    identities = ask.texts("experiment_ids")
    wanted = ask.integer("max_results", 1000)
    if not 0 < wanted <= MAX_RESULTS:
        raise MlflowError(f"Invalid value {wanted} for parameter 'max_results': give 1 to {MAX_RESULTS}.")
    request = service.SearchRunsRequest(
        parent=ask.parent,
        filter=translate_filter(parse_filter(ask.text("filter"))),
        order_by=translate_order(parse_order(ask.texts("order_by"))),
        page_token=ask.text("page_token"),
    )
    request.view = view_of(ask, "run_view_type")  # type: ignore[assignment] # a number of View
    request.experiments.extend([await experiment_name(ask, each) for each in identities])
    found: list[Run] = []
    while identities and len(found) < wanted:
        request.page_size = min(_PAGE, wanted - len(found))
        page = await ask.call(ask.services.tracking.SearchRuns, request)
        found.extend(page.runs)
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    numbers = {name: await experiment_number(ask, name) for name in {run.experiment for run in found}}
    answer: Json = {"runs": [run_json(run, numbers[run.experiment]) for run in found]}
    return answer | ({"next_page_token": request.page_token} if identities and request.page_token else {})


def translate_filter(comparisons: list[Comparison]) -> str:
    """A filter in headrace's language. Raises MlflowError for what it can not say."""
    return " and ".join(_translated(each) for each in comparisons)


def translate_order(orders: list[Order]) -> str:
    """An order in headrace's language. Raises MlflowError."""
    return ", ".join(f"{_subject(each.kind, each.key)} {'desc' if each.descending else 'asc'}" for each in orders)


def _translated(comparison: Comparison) -> str:
    subject, operator, value = _subject(comparison.kind, comparison.key), comparison.operator, comparison.value
    if operator in ("is null", "is not null"):
        return f"{subject} {operator}"
    numeric = comparison.kind == "metric" or (comparison.kind == "attribute" and subject in _TIMES)
    if numeric and operator not in _ORDERED:
        raise MlflowError(f"Invalid comparator {operator.upper()!r} for '{comparison.key}': it is a number.")
    if not numeric and operator in ("<", "<=", ">", ">="):
        raise MlflowError(f"Invalid comparator {operator!r} for '{comparison.key}': it is a string.")
    if isinstance(value, tuple):
        listed = ", ".join(_literal(comparison, each, numeric=numeric) for each in value)
        found = f"{subject} in ({listed})"
        return f"not {found}" if operator == "not in" else found
    return f"{subject} {operator} {_literal(comparison, value, numeric=numeric)}"


def _subject(kind: str, key: str) -> str:
    if kind == "attribute":
        if not _ATTRIBUTES.get(key):
            known = ", ".join(name for name, ours in _ATTRIBUTES.items() if ours and " " not in name)
            raise MlflowError(f"Invalid attribute key '{key}' specified. Valid keys are: {known}.")
        return _ATTRIBUTES[key]
    if "`" in key:
        raise MlflowError(f"Invalid key {key!r}: it holds a backquote.")
    if kind == "dataset":
        if key not in ("name", "digest", "context"):
            raise MlflowError(f"Invalid dataset key '{key}' specified. Valid keys are: name, digest, context.")
        return f"dataset.{key}"
    if kind == "tag" and key == "mlflow.runName":
        return "display_name"
    return f"metric.`{key}`.last" if kind == "metric" else f"{kind}.`{key}`"


def _literal(comparison: Comparison, value: Value, *, numeric: bool) -> str:
    if numeric:
        if isinstance(value, str):
            raise MlflowError(f"Expected numeric value for '{comparison.key}', found {value!r}.")
        return repr(value / 1000) if comparison.kind == "attribute" else repr(value)
    if not isinstance(value, str):
        raise MlflowError(f"Expected a quoted string value for '{comparison.key}', found {value:g}.")
    text = dashed(value) if (comparison.kind, comparison.key) == ("attribute", "run_id") else value
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
