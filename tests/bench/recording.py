"""Tracking: calls and points a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from http.client import HTTPConnection
from statistics import fmean, quantiles
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import orjson
import pytest

import headrace
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.resources_pb2 import MetricPoint
from headrace.client import Client
from headrace_local.testing import temporary_folder
from tests.bench.figures import Figure
from tests.support.platform import Platform

CLIENTS = 8
Caller = Callable[[Client, int, Callable[[], bool]], int]


def measure(platform: Platform, *, quick: bool) -> Iterator[Figure]:
    """One point a call, and a thousand a call, from eight clients with a run each."""
    seconds = 2.0 if quick else 6.0
    single = _rate(platform, points=1, seconds=seconds)
    yield Figure("log_metric calls/s, 8 clients", f"{single:,.0f}", "", "one gRPC server process, one commit a group")
    many = _rate(platform, points=1000, seconds=seconds) * 1000
    rest = _rate(platform, points=1, seconds=seconds, call=_call_rest)
    yield Figure("log-metric calls/s over MLflow's REST API, 8 clients", f"{rest:,.0f}", "", "through the gateway")
    median, mean, late = _step_us(platform, steps=1000 if quick else 5000)
    yield Figure(
        "10 metrics logged by a training step of 1 ms, in its thread: p50, mean, p99",
        f"{median:.0f}, {mean:.0f}, {late:,.0f} µs",
        "50 µs",
        "protobuf, one write to the spool; late ones wait for the interpreter's lock, which the sender holds",
    )
    yield Figure("metric points/s, 1,000 a call, 8 clients", f"{many:,.0f}", "", "Python objects of points")


def _step_us(platform: Platform, *, steps: int) -> tuple[float, float, float]:
    """What the SDK costs a step that logs ten metrics while all are sent: median, mean and 99th percentile."""
    metrics = {f"train/metric_{each}": each * 1.1 for each in range(10)}
    taken_us: list[float] = []
    with temporary_folder() as spool, pytest.MonkeyPatch.context() as environment:
        environment.setenv("HEADRACE_DATA", str(platform.folder))
        environment.setenv("HEADRACE_SPOOL", str(spool))
        with headrace.start_run("bench", flush_timeout_s=60) as run:
            for step in range(steps):
                began = time.perf_counter_ns()
                run.log_metrics(metrics, step=step)
                taken_us.append((time.perf_counter_ns() - began) / 1000)
                time.sleep(0.001)
    cuts = quantiles(taken_us, n=100)
    return cuts[49], fmean(taken_us), cuts[98]


def _rate(platform: Platform, *, points: int, seconds: float, call: Caller | None = None) -> float:
    """Calls a second of all clients together."""
    call = call or _call
    stop = threading.Event()
    with platform.client() as client, ThreadPoolExecutor(CLIENTS) as pool:
        counts = [pool.submit(call, client, points, stop.is_set) for _ in range(CLIENTS)]
        began = time.monotonic()
        stop.wait(seconds)
        stop.set()
        return sum(each.result() for each in counts) / (time.monotonic() - began)


def _call_rest(client: Client, points: int, stopped: Callable[[], bool]) -> int:
    """As ``_call``, one point a call, as MLflow's client sends it."""
    where = urlsplit(client.connection.gateway_url)
    headers = {"authorization": f"Bearer {client.connection.token}", "content-type": "application/json"}
    connection = HTTPConnection(where.hostname or "", where.port or 0, timeout=30)

    def post(path: str, body: dict[str, object]) -> dict[str, Any]:
        connection.request("POST", f"/api/2.0/mlflow/{path}", body=orjson.dumps(body), headers=headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != HTTPStatus.OK:
            raise RuntimeError(content.decode())
        found: dict[str, Any] = orjson.loads(content)
        return found

    run = post("runs/create", {"experiment_id": "0"})["run"]["info"]["run_id"]
    calls = 0
    while not stopped():
        now = time.time_ns() // 1_000_000
        post("runs/log-metric", {"run_id": run, "key": "loss", "value": 0.5, "timestamp": now, "step": calls})
        calls += points
    connection.close()
    return calls


def _call(client: Client, points: int, stopped: Callable[[], bool]) -> int:
    name = f"projects/default/runs/{uuid4()}"
    client.tracking.StartRun(
        service.StartRunRequest(command_id=str(uuid4()), name=name, experiment="projects/default/experiments/bench")
    )
    calls = 0
    while not stopped():
        values = [MetricPoint(key="loss", value=index, step=calls * points + index) for index in range(points)]
        client.tracking.LogMetrics(service.LogMetricsRequest(command_id=str(uuid4()), run=name, points=values))
        calls += 1
    return calls
