"""Runs: the table, one run, comparison, charts, artifacts."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import grpc
import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.resources_pb2 import ArtifactKind, Run, RunStatus
from headrace_gateway.pages import Pages, number
from headrace_gateway.platform import Platform
from headrace_gateway.web import explained
from headrace_kit.errors import InvalidArgument, NotFound
from headrace_kit.objects import ObjectStore

MAX_SHOWN: Final = 16 * 1024 * 1024
"""Largest artifact that is handed out here, bytes."""
CHART_POINTS: Final = 2000
"""Most points of one line."""
COMPARED: Final = 20
"""Most runs of one comparison."""
COLUMNS: Final = 4
"""Metrics that the table of runs shows when it is not told which."""
PICTURES: Final = ("image/svg+xml", "image/png", "image/jpeg", "image/webp", "image/gif")
PLAIN: Final = ("text/", "application/json")


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a comparison.

    Attributes:
        kind: ``param``, ``metric``, ``tag``, ``dataset`` or ``code``.
        name: What is compared.
        values: One a run; empty where a run has none.
        differs: Whether the runs differ in it.
    """

    kind: str
    name: str
    values: tuple[str, ...]
    differs: bool


def routes(platform: Platform, pages: Pages, objects: ObjectStore) -> list[BaseRoute]:
    """Every page about runs."""

    async def get(run_id: str) -> Run:
        request = service.GetRunRequest(name=f"{platform.parent}/runs/{run_id}")
        found: Run = (await platform.read.tracking.GetRun(request)).run
        return found

    async def search(request: Request) -> tuple[service.SearchRunsResponse, str, HTTPStatus]:
        query = request.query_params
        wanted = service.SearchRunsRequest(
            parent=platform.parent,
            filter=query.get("filter", ""),
            order_by=query.get("order", ""),
            page_size=100,
            page_token=query.get("page", ""),
        )
        if experiment := query.get("experiment", ""):
            wanted.experiment = f"{platform.parent}/experiments/{experiment}"
        try:
            return await platform.read.tracking.SearchRuns(wanted), "", HTTPStatus.OK
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                raise
            status, message = explained(error)
            return service.SearchRunsResponse(), message, status

    async def table(request: Request) -> Response:
        experiments = service.ListExperimentsRequest(parent=platform.parent, page_size=1000)
        (page, problem, status), listed = await asyncio.gather(
            search(request), platform.read.tracking.ListExperiments(experiments)
        )
        chosen = [each for each in request.query_params.getlist("metric") if each]
        part = "hx-request" in request.headers
        return pages.render(
            request,
            "_runs.html" if part else "runs.html",
            runs=page.runs,
            keys=chosen or frequent(page.runs),
            next=page.next_page_token,
            experiments=listed.experiments,
            problem=problem,
            status=HTTPStatus.OK if part else status,
            RunStatus=RunStatus,
        )

    async def show(request: Request) -> Response:
        run = await get(request.path_params["run"])
        template = "_run.html" if "hx-request" in request.headers else "run.html"
        keys = sorted(key for key, summary in run.metrics.items() if summary.count > 1)
        return pages.render(
            request,
            template,
            run=run,
            RunStatus=RunStatus,
            Kind=ArtifactKind,
            pictures=PICTURES,
            plain=PLAIN,
            keys=keys,
        )

    async def compare(request: Request) -> Response:
        ids = list(dict.fromkeys(request.query_params.getlist("run")))[:COMPARED]
        if len(ids) < 2:
            raise InvalidArgument("Choose at least two runs in the table of runs to compare them.", field="run")
        runs = await asyncio.gather(*(get(each) for each in ids))
        keys = sorted({key for run in runs for key, summary in run.metrics.items() if summary.count > 1})
        return pages.render(request, "compare.html", runs=runs, rows=comparison(runs), keys=keys, RunStatus=RunStatus)

    async def series(request: Request) -> Response:
        history = service.GetMetricHistoryRequest(
            run=f"{platform.parent}/runs/{request.path_params['run']}",
            key=request.query_params.get("key", ""),
            max_points=CHART_POINTS,
        )
        found = await platform.read.tracking.GetMetricHistory(history)
        seconds = np.asarray(found.times_us, np.float64) / 1e6
        return columns_response([np.asarray(found.steps, np.float64), seconds, np.asarray(found.values, np.float64)])

    async def artifact(request: Request) -> Response:
        run = await get(request.path_params["run"])
        path = request.path_params["path"]
        found = next((each for each in run.artifacts if each.path == path), None)
        if found is None:
            raise NotFound("artifact", path)
        if found.object.size_bytes > MAX_SHOWN:
            raise InvalidArgument(f"{path} is too large for the console: fetch it with the SDK", field="path")
        kind = found.object.media_type
        shown = kind in PICTURES or kind.startswith(PLAIN)
        # What a run stored is shown without any right of this site: no script in it runs, HTML is text.
        headers = {
            "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'",
            "Cache-Control": "private, max-age=3600",
        }
        if not shown:
            headers["Content-Disposition"] = "attachment"
        plain = "text/plain; charset=utf-8" if kind.startswith(PLAIN) else kind
        content = await objects.get(found.object)
        return Response(content, media_type=plain if shown else "application/octet-stream", headers=headers)

    return [
        Route("/runs", table),
        Route("/runs/compare", compare),
        Route("/runs/{run}", show),
        Route("/runs/{run}/series", series),
        Route("/runs/{run}/artifacts/{path:path}", artifact),
    ]


def frequent(runs: Sequence[Run]) -> list[str]:
    """The metrics that most of the runs have, by name."""
    counts: dict[str, int] = {}
    for run in runs:
        for key in run.metrics:
            counts[key] = counts.get(key, 0) + 1
    return sorted(sorted(counts, key=lambda key: (-counts[key], key))[:COLUMNS])


def columns_response(columns: Sequence[NDArray[np.float64]]) -> Response:
    """Columns of equal length as binary: two uint32 (columns, rows), then each column as little-endian Float64."""
    head = struct.pack("<II", len(columns), len(columns[0]) if columns else 0)
    body = b"".join(np.ascontiguousarray(column, "<f8").tobytes() for column in columns)
    return Response(head + body, media_type="application/octet-stream", headers={"Cache-Control": "no-store"})


def comparison(runs: Sequence[Run]) -> list[Row]:
    """Parameters, metrics (last values), tags, datasets and code of the runs, side by side."""
    rows: list[Row] = []

    def add(kind: str, name: str, values: Sequence[str]) -> None:
        rows.append(Row(kind, name, tuple(values), len(set(values)) > 1))

    for key in sorted({key for run in runs for key in run.params}):
        add("param", key, [run.params.get(key, "") for run in runs])
    for key in sorted({key for run in runs for key in run.metrics}):
        add("metric", key, [number(run.metrics[key].last) if key in run.metrics else "" for run in runs])
    for key in sorted({key for run in runs for key in run.tags}):
        add("tag", key, [run.tags.get(key, "") for run in runs])
    for name in sorted({each.name for run in runs for each in run.datasets}):
        digests = [next((each.digest[:19] for each in run.datasets if each.name == name), "") for run in runs]
        add("dataset", name, digests)
    add("code", "commit", [run.code.commit[:12] + (" + changes" if run.code.dirty else "") for run in runs])
    add("code", "packages", [run.environment.packages_digest[:12] for run in runs])
    return rows
