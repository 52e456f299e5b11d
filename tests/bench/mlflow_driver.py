"""Works that clients of an MLflow API do, in MLflow's environment: reads a work as JSON, prints what it took.

``{"uri": ..., "token": ..., "work": ..., "by": "mlflow" or "http", "clients": 8, "seconds": 5}``. By ``mlflow`` it is
MLflow's own client, by ``http`` one kept-alive connection that sends what that client would.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from http import HTTPStatus
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

BATCH = 1000
POINTS = 100_000


class Http:
    """The calls of the works, without MLflow's client."""

    def __init__(self, uri: str, token: str) -> None:
        where = urlsplit(uri)
        self._connection = HTTPConnection(where.hostname or "", where.port, timeout=120)
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def post(self, path: str, body: dict[str, Any]) -> Any:
        self._connection.request("POST", f"/api/2.0/mlflow/{path}", json.dumps(body), self._headers)
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != HTTPStatus.OK:
            raise RuntimeError(content.decode())
        return json.loads(content)

    def create_run(self) -> str:
        body = {"experiment_id": "0", "start_time": time.time_ns() // 1_000_000}
        return str(self.post("runs/create", body)["run"]["info"]["run_id"])

    def log_metric(self, run: str, key: str, value: float, step: int) -> None:
        now = time.time_ns() // 1_000_000
        self.post("runs/log-metric", {"run_id": run, "key": key, "value": value, "timestamp": now, "step": step})

    def log_batch(self, run: str, values: list[float], first: int) -> None:
        now = time.time_ns() // 1_000_000
        metrics = [
            {"key": "loss", "value": value, "timestamp": now, "step": first + place}
            for place, value in enumerate(values)
        ]
        self.post("runs/log-batch", {"run_id": run, "metrics": metrics})


class Mlflow:
    """The same by MLflow's client."""

    def __init__(self, uri: str, token: str) -> None:
        mlflow = importlib.import_module("mlflow")  # only here: plain HTTP does without
        self._client, self._metric = mlflow.MlflowClient(uri), mlflow.entities.Metric

    def create_run(self) -> str:
        return str(self._client.create_run("0").info.run_id)

    def log_metric(self, run: str, key: str, value: float, step: int) -> None:
        self._client.log_metric(run, key, value, step=step)

    def log_batch(self, run: str, values: list[float], first: int) -> None:
        now = time.time_ns() // 1_000_000
        metrics = [self._metric("loss", value, now, first + place) for place, value in enumerate(values)]
        self._client.log_batch(run, metrics=metrics)

    def history(self, run: str) -> int:
        return len(self._client.get_metric_history(run, "loss"))

    def search(self, most: int) -> int:
        found = self._client.search_runs(["0"], "metrics.rmse < 60", order_by=["metrics.rmse ASC"], max_results=most)
        return len(found)


def keep_on(given: dict[str, Any], ends: float, counts: Any) -> None:
    """One client: the work until the time is up; the number of calls it was done."""
    client = (Mlflow if given["by"] == "mlflow" else Http)(given["uri"], given["token"])
    run = client.create_run()
    values = [place * 0.1 for place in range(BATCH)]
    done = 0
    while time.time() < ends:
        if given["work"] == "log_metric":
            client.log_metric(run, "loss", 0.5, done)
        elif given["work"] == "log_batch":
            client.log_batch(run, values, done * BATCH)
        else:
            client.create_run()
        done += 1
    counts.put(done)


def rate(given: dict[str, Any]) -> float:
    """Calls a second of all clients together."""
    if given["by"] == "mlflow":
        importlib.import_module("mlflow")  # before the processes are forked
    context = multiprocessing.get_context("fork")
    counts = context.Queue()
    begins = time.time()
    ends = begins + given["seconds"]
    clients = [context.Process(target=keep_on, args=(given, ends, counts)) for _ in range(given["clients"])]
    for each in clients:
        each.start()
    total = sum(counts.get(timeout=300) for _ in clients)
    for each in clients:
        each.join()
    return float(total / (time.time() - begins))


def seed(given: dict[str, Any]) -> str:
    """A hundred thousand points of one run, and runs to be searched; returns the run."""
    client = Http(given["uri"], given["token"])
    values = [place * 0.1 for place in range(BATCH)]
    run = client.create_run()
    for first in range(0, POINTS, BATCH):
        client.log_batch(run, values, first)
    for number in range(given["runs"]):
        other = client.create_run()
        metrics = [
            {"key": key, "value": (number * 7919) % 1000 / 10, "timestamp": 1, "step": 0}
            for key in ("rmse", "loss", "accuracy", "f1", "auc")
        ]
        params = [{"key": f"p{place}", "value": str(number)} for place in range(10)]
        client.post("runs/log-batch", {"run_id": other, "metrics": metrics, "params": params})
    return run


def timed(given: dict[str, Any]) -> list[float]:
    """Seconds of each of some reads."""
    client = Mlflow(given["uri"], given["token"])
    taken = []
    for _ in range(given["times"]):
        began = time.perf_counter()
        found = client.history(given["run"]) if given["work"] == "history" else client.search(given["most"])
        taken.append(time.perf_counter() - began)
        assert found == given["expected"], found
    return taken


def main() -> None:
    given = json.loads(sys.stdin.readline())
    if given["token"]:
        os.environ["MLFLOW_TRACKING_TOKEN"] = given["token"]
    works: dict[str, Callable[[dict[str, Any]], object]] = {"seed": seed, "history": timed, "search": timed}
    print(json.dumps(works.get(given["work"], rate)(given)))


if __name__ == "__main__":
    main()
