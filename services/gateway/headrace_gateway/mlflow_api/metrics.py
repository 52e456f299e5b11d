"""Metrics: single points, batches, history."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final, NamedTuple

import grpc

from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from headrace_gateway.mlflow_api.asking import Arguments, Ask, content_id
from headrace_gateway.mlflow_api.errors import MlflowError
from headrace_gateway.mlflow_api.naming import model_name, run_name
from headrace_gateway.mlflow_api.runs import get_run, log_params, set_tags
from headrace_gateway.mlflow_api.table import V2, Endpoint
from headrace_gateway.mlflow_api.wire import Json, number

MAX_METRICS: Final = 1000
MAX_PARAMS: Final = 100
MAX_TAGS: Final = 100
MAX_ENTITIES: Final = 1000
MAX_RUNS: Final = 100
MAX_HISTORY: Final = 1_000_000
_LATEST_MS: Final = 253_402_300_799_999
"""The end of the year 9999."""


def endpoints() -> list[Endpoint]:
    """Every endpoint on metrics."""
    return [
        Endpoint("POST", f"{V2}/runs/log-metric", _log_metric),
        Endpoint("POST", f"{V2}/runs/log-batch", _log_batch),
        Endpoint("GET", f"{V2}/metrics/get-history", _history),
        Endpoint("GET", f"{V2}/metrics/get-history-bulk-interval", _bulk_history),
    ]


async def _log_metric(ask: Ask) -> Json:
    await _log(ask, ask.required("run_id", "run_uuid"), [ask])
    return {}


async def _log_batch(ask: Ask) -> Json:
    identity = ask.required("run_id")
    metrics, params, tags = ask.items("metrics"), ask.items("params"), ask.pairs("tags")
    for name, count, most in (
        ("metrics", len(metrics), MAX_METRICS),
        ("params", len(params), MAX_PARAMS),
        ("tags", len(tags), MAX_TAGS),
        ("entities", len(metrics) + len(params) + len(tags), MAX_ENTITIES),
    ):
        if count > most:
            raise MlflowError(f"A batch logging request can contain at most {most} {name}. Got {count} {name}.")
    if params:
        await log_params(ask, identity, params)
    if metrics:
        await _log(ask, identity, metrics)
    if tags:
        await set_tags(ask, identity, tags)
    if not (params or metrics or tags):
        await get_run(ask, identity)
    return {}


async def _log(ask: Ask, identity: str, given: list[Arguments] | list[Ask]) -> None:
    """Logs points. The command's id is made of them: a client that repeats a call it got no answer to adds nothing."""
    points = [_point(each) for each in given]
    request = service.LogMetricsRequest(run=run_name(ask, identity), series=_series_of(points))
    request.command_id = content_id(request)
    await ask.call(ask.services.tracking.LogMetrics, request)
    measured: dict[str, list[resources.ModelMetric]] = {}
    for each, point in zip(given, points, strict=True):
        if each.given("model_id") and (model := each.text("model_id")):
            metric = resources.ModelMetric(
                key=point.key,
                value=point.value,
                step=point.step,
                run=request.run,
                dataset_name=each.text("dataset_name"),
                dataset_digest=each.text("dataset_digest"),
            )
            metric.time.FromMilliseconds(point.time_ms)
            measured.setdefault(model_name(ask, model), []).append(metric)
    for model, metrics in measured.items():
        annotate = service.AnnotateLoggedModelRequest(model=model, metrics=metrics)
        await ask.command(ask.services.tracking.AnnotateLoggedModel, annotate)


class _Point(NamedTuple):
    key: str
    value: float
    time_ms: int
    step: int


def _point(given: Arguments) -> _Point:
    point = _Point(given.required("key"), given.number("value"), given.integer("timestamp"), given.integer("step"))
    if not given.given("timestamp"):
        raise MlflowError("Missing value for required parameter 'timestamp'.")
    if not -_LATEST_MS <= point.time_ms <= _LATEST_MS:
        raise MlflowError("Invalid value for parameter 'timestamp': expected milliseconds since 1970.")
    return point


def _series_of(points: Iterable[_Point]) -> list[resources.PointSeries]:
    """Points of each key together, in their order."""
    found: dict[str, tuple[list[int], list[int], list[float]]] = {}
    for key, value, time_ms, step in points:
        columns = found.get(key)
        if columns is None:
            columns = found[key] = ([], [], [])
        columns[0].append(step)
        columns[1].append(time_ms * 1000)
        columns[2].append(value)
    return [
        resources.PointSeries(key=key, steps=steps, times_us=times_us, values=values)
        for key, (steps, times_us, values) in found.items()
    ]


async def _points(ask: Ask, identity: str, key: str, *, most: int = 0) -> service.GetMetricHistoryResponse:
    """The points of a metric, none when the run has no such metric. Raises MlflowError when there is no such run."""
    request = service.GetMetricHistoryRequest(run=run_name(ask, identity), key=key, max_points=most)
    try:
        found: service.GetMetricHistoryResponse = await ask.call(ask.services.tracking.GetMetricHistory, request)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        await get_run(ask, identity)
        return service.GetMetricHistoryResponse()
    return found


def _series(key: str, found: service.GetMetricHistoryResponse, begin: int, end: int) -> list[Json]:
    columns = zip(found.steps[begin:end], found.times_us[begin:end], found.values[begin:end], strict=True)
    return [
        {"key": key, "value": number(value), "timestamp": time_us // 1000, "step": step}
        for step, time_us, value in columns
    ]


async def _history(ask: Ask) -> Json:
    identity, key = ask.required("run_id", "run_uuid"), ask.required("metric_key")
    token, size = ask.text("page_token"), ask.integer("max_results") or MAX_HISTORY
    if token and not (token.isascii() and token.isdecimal() and len(token) < 12):
        raise MlflowError("Invalid value for parameter 'page_token'.")
    if size < 0:
        raise MlflowError("Invalid value for parameter 'max_results'.")
    begin = int(token or 0)
    found = await _points(ask, identity, key)
    answer: Json = {"metrics": _series(key, found, begin, begin + size)}
    if begin + size < len(found.values):
        answer["next_page_token"] = str(begin + size)
    return answer


async def _bulk_history(ask: Ask) -> Json:
    identities, key = ask.texts("run_ids"), ask.required("metric_key")
    if not 0 < len(identities) <= MAX_RUNS:
        raise MlflowError(f"GetMetricHistoryBulkInterval request must specify 1 to {MAX_RUNS} run_ids.")
    most = ask.integer("max_results") or 320
    if not 0 < most <= 2500:
        raise MlflowError("max_results must be between 1 and 2500.")
    found = await asyncio.gather(*(_points(ask, each, key, most=most) for each in identities))
    metrics = [
        {**point, "run_id": identity}
        for identity, each in zip(identities, found, strict=True)
        for point in _series(key, each, 0, len(each.values))
    ]
    return {"metrics": metrics}
