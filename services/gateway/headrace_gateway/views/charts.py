"""Charts of metrics: of one run, of those chosen, or of all that a search finds; thinned where they are stored."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from headrace.api.tracking.v1 import service_pb2 as service
from headrace_gateway.pages import Pages, label, short
from headrace_gateway.platform import Platform
from headrace_gateway.selecting import Selection
from headrace_gateway.views.runs import whole
from headrace_kit.errors import InvalidArgument

CHART_POINTS: Final = 2000
"""Most points of one line, unless an address asks for more."""
ALL_POINTS: Final = 200_000
"""Most points of all lines of a chart, and of one line when an address asks for them."""
LEAST_POINTS: Final = 10
FRESH_S: Final = 5.0
CHUNK: Final = 1000
"""Runs asked for at once."""


def routes(platform: Platform, pages: Pages) -> list[BaseRoute]:
    """The page of charts, and the points in them."""
    known = _Names(platform)

    async def show(request: Request) -> Response:
        return pages.render(request, "charts.html", selection=Selection.of(request.query_params))

    async def charted(request: Request) -> Response:
        selection = Selection.of(request.query_params)
        runs, keys = await asyncio.gather(
            selection.runs(platform, fields=["name", "display_name"]), keys_of(platform, selection)
        )
        told = [[short(run.name), run.display_name or label(run.name)] for run in runs]
        return JSONResponse({"runs": told, "keys": keys}, headers={"Cache-Control": "no-store"})

    async def series(request: Request) -> Response:
        query = request.query_params
        names = await known.names(Selection.of(query))
        share = min(max(ALL_POINTS // max(len(names), 1), LEAST_POINTS), CHART_POINTS)
        wanted = min(whole(query, "points") or share, ALL_POINTS)
        lines: list[service.MetricSeries] = []
        for at in range(0, len(names), CHUNK):
            asked = service.GetMetricHistoriesRequest(
                runs=names[at : at + CHUNK],
                key=query.get("key", ""),
                max_points=wanted,
                x_key=query.get("x", ""),
                thinning=thinning_of(query.get("downsample", "")),
            )
            lines.extend((await platform.read.tracking.GetMetricHistories(asked)).series)
        return lines_response(lines, beside=bool(query.get("x")))

    return [Route("/runs/charts", show), Route("/runs/charted", charted), Route("/runs/series", series)]


def thinning_of(text: str) -> service.Thinning.ValueType:
    """How an address says points are thinned: ``minmax``, which is the default, or ``lttb``. Raises InvalidArgument."""
    known = {"": service.THINNING_MIN_MAX, "minmax": service.THINNING_MIN_MAX, "lttb": service.THINNING_LTTB}
    if text not in known:
        raise InvalidArgument("give minmax or lttb", field="downsample")
    return known[text]


class _Names:
    """Names of selected runs: the charts of a page ask for the same ones within moments, so one search serves them."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._asked: dict[Selection, tuple[float, asyncio.Task[list[str]]]] = {}

    async def names(self, selection: Selection) -> list[str]:
        """Resource names of the runs, as they were at most ``FRESH_S`` ago."""
        if selection.ids:
            return await selection.names(self._platform)
        now = asyncio.get_running_loop().time()
        self._asked = {each: held for each, held in self._asked.items() if now - held[0] < FRESH_S}
        if selection not in self._asked:
            self._asked[selection] = now, asyncio.create_task(selection.names(self._platform))
        return await asyncio.shield(self._asked[selection][1])


async def keys_of(platform: Platform, selection: Selection) -> list[str]:
    """Keys of the metrics that the runs have, by name."""
    if selection.ids:
        runs = await selection.runs(platform, most=CHUNK, fields=["metrics"])
        return sorted({key for run in runs for key, summary in run.metrics.items() if summary.count > 1})
    found = await platform.read.tracking.GetRunKeys(
        service.GetRunKeysRequest(
            parent=platform.parent, filter=selection.filter, experiments=selection.experiments(platform)
        )
    )
    return sorted(each.key for each in found.metrics)


def lines_response(lines: Sequence[service.MetricSeries], *, beside: bool) -> Response:
    """Lines as binary.

    A uint32 tells the length of the JSON that follows, ``[[run id, points], ...]``, filled up with spaces so that what
    comes after begins at a multiple of 8; then the columns steps, seconds, values (and, when ``beside``, the other
    metric's values) as little-endian Float64, each of all lines one after the other.
    """
    head = orjson.dumps([[short(each.run), len(each.values)] for each in lines])
    head += b" " * (-(4 + len(head)) % 8)
    columns = [
        np.fromiter((value for each in lines for value in each.steps), np.float64),
        np.fromiter((value for each in lines for value in each.times_us), np.float64) / 1e6,
        np.fromiter((value for each in lines for value in each.values), np.float64),
    ]
    if beside:
        columns.append(np.fromiter((value for each in lines for value in each.x_values), np.float64))
    body = b"".join(np.ascontiguousarray(column, "<f8").tobytes() for column in columns)
    return Response(
        struct.pack("<I", len(head)) + head + body,
        media_type="application/octet-stream",
        headers={"Cache-Control": "no-store"},
    )
