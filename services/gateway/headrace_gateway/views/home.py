"""The loop at a glance, live."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from headrace.api.audit.v1.service_pb2 import GetLogStatusRequest, ReadLogRequest
from headrace.api.monitor.v1 import service_pb2 as monitor
from headrace.api.orchestrator.v1 import service_pb2 as orchestrator
from headrace.api.registry.v1 import service_pb2 as registry
from headrace.api.serving.v1 import service_pb2 as serving
from headrace.api.tracking.v1 import service_pb2 as tracking
from headrace.story import order_of
from headrace_gateway.live import Hub
from headrace_gateway.pages import Pages
from headrace_gateway.platform import Platform, ServiceMissingError

RECENT = 40


@dataclass(slots=True)
class Loop:
    """What each stage of the loop shows; a service that does not answer leaves its part empty."""

    runs: list[Any] = field(default_factory=list[Any])  # Any: messages for the template
    models: list[Any] = field(default_factory=list[Any])
    endpoints: list[Any] = field(default_factory=list[Any])
    traffic: dict[str, Any] = field(default_factory=dict[str, Any])
    counts: dict[str, Any] = field(default_factory=dict[str, Any])
    monitors: list[Any] = field(default_factory=list[Any])
    alerts: list[Any] = field(default_factory=list[Any])
    pipeline_runs: list[Any] = field(default_factory=list[Any])
    missing: set[str] = field(default_factory=set[str])


async def read_loop(platform: Platform) -> Loop:
    """Asks every service; those that do not answer are named in ``missing``."""
    loop = Loop()

    async def guarded(name: str, part: Any) -> None:  # Any: a coroutine function
        try:
            await part()
        except (grpc.aio.AioRpcError, ServiceMissingError):
            loop.missing.add(name)

    async def runs() -> None:
        request = tracking.SearchRunsRequest(parent=platform.parent, page_size=5)
        loop.runs.extend((await platform.read.tracking.SearchRuns(request)).runs)

    async def models() -> None:
        request = registry.ListModelsRequest(parent=platform.parent)
        loop.models.extend((await platform.read.registry.ListModels(request)).models)

    async def endpoints() -> None:
        request = serving.ListEndpointsRequest(parent=platform.parent)
        loop.endpoints.extend((await platform.read.serving.ListEndpoints(request)).endpoints)
        for endpoint in loop.endpoints:
            traffic = serving.GetTrafficRequest(endpoint=endpoint.name)
            loop.traffic[endpoint.name] = await platform.read.serving.GetTraffic(traffic)

    async def watched() -> None:
        alerts = monitor.ListAlertsRequest(parent=platform.parent, page_size=5)
        loop.alerts.extend((await platform.read.monitor.ListAlerts(alerts)).alerts)
        monitors = monitor.ListMonitorsRequest(parent=platform.parent)
        loop.monitors.extend((await platform.read.monitor.ListMonitors(monitors)).monitors)
        for each in loop.monitors:
            name = f"{platform.parent}/endpoints/{each.endpoint}"
            loop.counts[name] = await platform.read.monitor.GetCounts(monitor.GetCountsRequest(endpoint=name))

    async def pipeline_runs() -> None:
        request = orchestrator.ListPipelineRunsRequest(parent=platform.parent, page_size=5)
        loop.pipeline_runs.extend((await platform.read.orchestrator.ListPipelineRuns(request)).runs)

    await asyncio.gather(
        guarded("tracking", runs),
        guarded("registry", models),
        guarded("serving", endpoints),
        guarded("monitor", watched),
        guarded("orchestrator", pipeline_runs),
    )
    return loop


async def recent_entries(platform: Platform, count: int) -> list[Any]:
    """The newest entries of all logs, newest first."""

    async def of(name: str) -> list[Any]:
        try:
            status = await platform.read.log(name).GetLogStatus(GetLogStatusRequest())
            start = max(status.last_position - count + 1, 1)
            request = ReadLogRequest(from_position=start, page_size=count, stream_prefix=f"{platform.parent}/")
            return list((await platform.read.log(name).ReadLog(request)).entries)
        except grpc.aio.AioRpcError:
            return []

    found = await asyncio.gather(*(of(name) for name in platform.read.names))
    merged = sorted((entry for entries in found for entry in entries), key=order_of, reverse=True)
    return merged[:count]


def routes(platform: Platform, pages: Pages, hub: Hub) -> list[BaseRoute]:
    """``/``, its live part and the stream of events."""

    async def home(request: Request) -> Response:
        loop, entries = await asyncio.gather(read_loop(platform), recent_entries(platform, RECENT))
        return pages.render(request, "home.html", loop=loop, entries=entries)

    async def stages(request: Request) -> Response:
        return pages.render(request, "_stages.html", loop=await read_loop(platform))

    async def live(_request: Request) -> Response:
        return StreamingResponse(
            _stream(hub, pages), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    return [Route("/", home), Route("/parts/stages", stages), Route("/live", live)]


async def _stream(hub: Hub, pages: Pages) -> AsyncIterator[bytes]:
    """Server-sent events: ``entry`` with the row of an event, ``lost`` when some were left out."""
    yield b": open\n\n"
    entries = hub.entries()
    waiting = asyncio.ensure_future(anext(entries))
    try:
        while True:
            done, _ = await asyncio.wait([waiting], timeout=15)
            if not done:
                yield b": still here\n\n"
                continue
            entry = waiting.result()
            waiting = asyncio.ensure_future(anext(entries))
            if entry is None:
                yield b"event: lost\ndata: {}\n\n"
                continue
            data = orjson.dumps({"html": pages.fragment("_entry.html", entry=entry), "type": entry.type})
            yield b"event: entry\nid: " + entry.event_id.encode() + b"\ndata: " + data + b"\n\n"
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await entries.aclose()  # type: ignore[attr-defined] # an async generator
