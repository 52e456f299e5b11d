"""headrace beside a real MLflow server on the same PostgreSQL, by the same clients.

Alone: ``python -m tests.bench.beside_mlflow``.

MLflow's server runs as it comes, with the loop and the parser that uvicorn takes where they are installed: without them
each of its answers waits for 40 ms. Both servers stay up, and every work is done on one and then on the other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, Final
from uuid import uuid4

import psutil

from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.resources_pb2 import PointSeries
from headrace.client import Client
from headrace.connection import find
from headrace_local.stack import Stack
from headrace_local.testing import Infrastructure, temporary_folder
from tests.bench.figures import Figure
from tests.support.mlflow import mlflow_server
from tests.support.needs import mlflow_python

DRIVER: Final = Path(__file__).with_name("mlflow_driver.py")
CLIENTS: Final = 8
POINTS: Final = 1000
SERVICES: Final = ("tracking", "registry", "gateway")


@dataclass(frozen=True, slots=True)
class Server:
    """One of the two: where clients find it."""

    uri: str
    token: str = ""


@dataclass(frozen=True, slots=True)
class Work:
    """A work whose rate is measured: so many things a call, and how much better it should be."""

    name: str
    what: str
    each: int = 1
    aim: str = ""


WORKS: Final = (
    Work("log_metric", "log_metric calls/s", aim="6x"),
    Work("log_batch", "log_batch(1000), metrics/s", POINTS, aim="5x"),
    Work("create_run", "create_run/s", aim="5x"),
)


def measure(*, quick: bool) -> Iterator[Figure]:
    """On infrastructure of its own."""
    with temporary_folder() as folder, _both(folder) as (ours, theirs, infrastructure):
        yield from _idle(infrastructure)
        seconds, rounds = (2.0, 1) if quick else (5.0, 2)
        for work in WORKS:
            for by in ("http", "mlflow"):
                given = {"work": work.name, "by": by, "clients": CLIENTS, "seconds": seconds}
                found = _alternately((theirs, ours), given, rounds)
                before, after = (fmean(each) * work.each for each in found)
                client = "MLflow's client" if by == "mlflow" else "plain HTTP"
                yield Figure(
                    f"{work.what}, {CLIENTS} clients by {client}: MLflow's server, headrace",
                    f"{before:,.0f}, {after:,.0f}: {after / before:.1f}x",
                    work.aim,
                    "the client, in Python, on the same cores" if by == "mlflow" else "gateway and tracking",
                )
        yield from _reads(ours, theirs, quick=quick)
        with Client(find(infrastructure.stack.folder.path, {})) as ours_too:
            yield Figure(
                f"metric points/s by gRPC stream, {POINTS} a message, {CLIENTS} clients",
                f"{_streamed(ours_too, seconds):,.0f}",
                "200,000",
                "tracking's one core",
            )


@contextmanager
def _both(folder: Path) -> Iterator[tuple[Server, Server, Infrastructure]]:
    """Both servers."""
    infrastructure = Infrastructure(Stack(folder / "data", only=SERVICES))
    infrastructure.start()
    try:
        with (
            infrastructure.database() as database,
            mlflow_server(
                folder, store=database.migration_dsn.replace("postgresql:", "postgresql+psycopg2:"), workers=4
            ) as uri,
        ):
            connection = find(infrastructure.stack.folder.path, {})
            ours, theirs = Server(connection.gateway_url, connection.token), Server(uri)
            for server in (theirs, ours):
                _drive(server, work="create_run", by="http", clients=CLIENTS, seconds=1)
            yield ours, theirs, infrastructure
    finally:
        infrastructure.stop()


def _sqlalchemy(dsn: str) -> str:
    return dsn.replace("postgresql:", "postgresql+psycopg2:", 1)


def _idle(infrastructure: Infrastructure) -> Iterator[Figure]:
    """Before any load: memory, and how soon our services start again beside servers that are up."""
    ours = sum(_memory_mb(f"headrace_{name}") for name in SERVICES)
    yield Figure(
        "idle memory (PSS): MLflow's server; headrace's tracking, registry and gateway",
        f"{_memory_mb('mlflow server'):,.0f}, {ours:,.0f} MB",
        "300 MB",
    )
    yield Figure(
        "tracking, registry and gateway start, PostgreSQL and Kafka being up",
        f"{_start_s(infrastructure):.1f} s",
        "1.5 s",
        "imports",
    )


def _alternately(
    servers: tuple[Server, Server], work: Mapping[str, object], rounds: int
) -> tuple[list[float], list[float]]:
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for server, results in zip(servers, found, strict=True):
            results.append(_drive(server, **work))
    return found


def _drive(server: Server, **work: object) -> Any:  # Any: JSON
    """What a work of the driver gives."""
    given = {"uri": server.uri, "token": server.token, **work}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PYTHON"))}
    done = subprocess.run(
        [str(mlflow_python()), str(DRIVER)],
        input=json.dumps(given) + "\n",
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**environment, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"},
        timeout=600,
    )
    return json.loads(done.stdout)


def _reads(ours: Server, theirs: Server, *, quick: bool) -> Iterator[Figure]:
    runs, times = (200, 3) if quick else (2000, 10)
    reads: list[tuple[str, str, dict[str, Any]]] = [
        ("history of 100,000 points, whole", "250 ms", {"work": "history", "expected": 100_000}),
        (f"search of {runs:,} runs, one threshold, sorted, 100 back", "", {"work": "search", "most": 100}),
        (f"search of {runs:,} runs, the same, all that match back", "", {"work": "search", "most": 1000}),
    ]
    for what, aim, work in reads:
        found: list[float] = []
        for server in (theirs, ours):
            if "run" not in (seeded := _SEEDED.setdefault(server.uri, {})):
                seeded["run"] = _drive(server, work="seed", runs=runs)
            matching = sum((number * 7919) % 1000 / 10 < 60 for number in range(runs))
            expected = work.get("expected") or min(work["most"], matching)
            taken = _drive(server, **{**work, "expected": expected}, run=seeded["run"], times=times)
            found.append(median(taken) * 1000)
        before, after = found
        yield Figure(
            f"{what}, by MLflow's client: MLflow's server, headrace",
            f"{before:,.0f}, {after:,.0f} ms: {before / after:.1f}x",
            aim,
            "the client reads JSON into Python's objects",
        )


_SEEDED: Final[dict[str, dict[str, str]]] = {}


def _streamed(client: Client, seconds: float) -> float:
    """Points a second that are acknowledged on streams."""
    stop = threading.Event()

    def stream() -> int:
        name = f"projects/default/runs/{uuid4()}"
        client.tracking.StartRun(
            service.StartRunRequest(command_id=str(uuid4()), name=name, experiment="projects/default/experiments/bench")
        )
        values = [place * 0.1 for place in range(POINTS)]

        def messages() -> Iterator[service.StreamMetricsRequest]:
            first = 0
            while not stop.is_set():
                now = time.time_ns() // 1000
                steps, times = range(first, first + POINTS), range(now, now + POINTS)
                series = PointSeries(key="loss", steps=steps, times_us=times, values=values)
                yield service.StreamMetricsRequest(command_id=str(uuid4()), run=name, series=[series])
                first += POINTS

        return sum(answer.count for answer in client.tracking.StreamMetrics(messages()))

    with ThreadPoolExecutor(CLIENTS) as pool:
        began = time.monotonic()
        streams = [pool.submit(stream) for _ in range(CLIENTS)]
        stop.wait(seconds)
        stop.set()
        return sum(each.result() for each in streams) / (time.monotonic() - began)


def _start_s(infrastructure: Infrastructure) -> float:
    """From the birth of the first of our services to when all three answer, the servers being up."""
    killed = {name: infrastructure.kill(name) for name in SERVICES}
    started = [(infrastructure.wait_ready(name, other_than=before), time.time()) for name, before in killed.items()]
    return max(ready for _, ready in started) - min(psutil.Process(pid).create_time() for pid, _ in started)


def _memory_mb(words: str) -> float:
    """What a process of ours whose command has these words takes, with its descendants; shared memory shared out."""
    for process in psutil.Process().children(recursive=True):
        if words in " ".join(process.cmdline()):
            family = [process, *process.children(recursive=True)]
            return float(sum(each.memory_full_info().pss for each in family)) / 1e6
    raise LookupError(words)


if __name__ == "__main__":
    for figure in measure(quick="--quick" in sys.argv):
        print(f"{figure.what}: {figure.value}", flush=True)
