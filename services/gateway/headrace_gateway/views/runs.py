"""Runs: the table, one run, comparison, charts, artifacts."""

from __future__ import annotations

import asyncio
import struct
from http import HTTPStatus
from typing import Final

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.resources_pb2 import Run, RunStatus
from headrace_gateway.pages import Pages, number
from headrace_gateway.platform import Platform
from headrace_kit.errors import InvalidArgument
from headrace_kit.objects import ObjectStore

MAX_SHOWN: Final = 16 * 1024 * 1024
CHART_POINTS: Final = 2000
PICTURES: Final = ("image/svg+xml", "image/png", "image/jpeg", "image/webp")
PLAIN: Final = ("text/", "application/json")


def routes(platform: Platform, pages: Pages, objects: ObjectStore) -> list[BaseRoute]:
    """Every page about runs."""

    async def get(run_id: str) -> Run:
        request = service.GetRunRequest(name=f"{platform.parent}/runs/{run_id}")
        found: Run = (await platform.read.tracking.GetRun(request)).run
        return found

    async def table(request: Request) -> Response:
        query = request.query_params
        search = service.SearchRunsRequest(
            parent=platform.parent,
            filter=query.get("filter", ""),
            order_by=query.get("order", ""),
            page_size=100,
            page_token=query.get("page", ""),
        )
        if experiment := query.get("experiment", ""):
            search.experiment = f"{platform.parent}/experiments/{experiment}"
        experiments = service.ListExperimentsRequest(parent=platform.parent, page_size=1000)
        page, listed = await asyncio.gather(
            platform.read.tracking.SearchRuns(search), platform.read.tracking.ListExperiments(experiments)
        )
        keys = sorted({key for run in page.runs for key in run.metrics})[:6]
        template = "_runs.html" if "hx-request" in request.headers else "runs.html"
        return pages.render(
            request,
            template,
            runs=page.runs,
            keys=keys,
            next=page.next_page_token,
            experiments=listed.experiments,
            status=HTTPStatus.OK,
            RunStatus=RunStatus,
        )

    async def show(request: Request) -> Response:
        run = await get(request.path_params["run"])
        return pages.render(request, "run.html", run=run, RunStatus=RunStatus, pictures=PICTURES)

    async def compare(request: Request) -> Response:
        ids = request.query_params.getlist("run")[:20]
        if not ids:
            raise InvalidArgument("choose runs to compare", field="run")
        runs = await asyncio.gather(*(get(each) for each in ids))
        rows = _comparison(runs)
        keys = sorted({key for run in runs for key, summary in run.metrics.items() if summary.count > 1})
        return pages.render(request, "compare.html", runs=runs, rows=rows, keys=keys)

    async def series(request: Request) -> Response:
        history = service.GetMetricHistoryRequest(
            run=f"{platform.parent}/runs/{request.path_params['run']}",
            key=request.query_params.get("key", ""),
            max_points=CHART_POINTS,
        )
        found = await platform.read.tracking.GetMetricHistory(history)
        return columns_response([np.asarray(found.steps, np.float64), np.asarray(found.values, np.float64)])

    async def artifact(request: Request) -> Response:
        run = await get(request.path_params["run"])
        path = request.path_params["path"]
        found = next((each for each in run.artifacts if each.path == path), None)
        if found is None or found.object.size_bytes > MAX_SHOWN:
            raise InvalidArgument(f"{path} is not there, or too large to be shown here", field="path")
        content = await objects.get(found.object)
        kind = found.object.media_type
        shown = kind in PICTURES or kind.startswith(PLAIN)
        # What a run stored is shown without any right of this site: no script in it runs.
        headers = {"Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'"}
        if not shown:
            headers["Content-Disposition"] = "attachment"
        plain = "text/plain; charset=utf-8" if kind.startswith("text/") else kind
        return Response(content, media_type=plain if shown else "application/octet-stream", headers=headers)

    return [
        Route("/runs", table),
        Route("/runs/compare", compare),
        Route("/runs/{run}", show),
        Route("/runs/{run}/series", series),
        Route("/runs/{run}/artifacts/{path:path}", artifact),
    ]


def columns_response(columns: list[np.ndarray]) -> Response:
    """Columns of equal length as binary: two uint32 (columns, rows), then each column as little-endian Float64."""
    head = struct.pack("<II", len(columns), len(columns[0]) if columns else 0)
    body = b"".join(np.ascontiguousarray(column, "<f8").tobytes() for column in columns)
    return Response(head + body, media_type="application/octet-stream", headers={"Cache-Control": "no-store"})


def _comparison(runs: list[Run]) -> list[tuple[str, str, list[str], bool]]:
    """Rows ``(kind, name, value of each run, whether they differ)``."""
    rows: list[tuple[str, str, list[str], bool]] = []

    def add(kind: str, name: str, values: list[str]) -> None:
        rows.append((kind, name, values, len(set(values)) > 1))

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
