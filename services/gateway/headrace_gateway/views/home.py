"""The loop at a glance, live."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeVar

import grpc
import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.monitor.v1 import resources_pb2 as watching
from headrace.api.monitor.v1 import service_pb2 as monitor
from headrace.api.orchestrator.v1 import resources_pb2 as running
from headrace.api.orchestrator.v1 import service_pb2 as orchestrator
from headrace.api.registry.v1 import resources_pb2 as registered
from headrace.api.registry.v1 import service_pb2 as registry
from headrace.api.serving.v1 import resources_pb2 as served
from headrace.api.serving.v1 import service_pb2 as serving
from headrace.api.tracking.v1 import resources_pb2 as tracked
from headrace.api.tracking.v1 import service_pb2 as tracking
from headrace_gateway.live import Feed, Hub, Notice
from headrace_gateway.logs import read_page
from headrace_gateway.pages import Pages
from headrace_gateway.platform import NAMES, Platform, ServiceMissingError

RECENT: Final = 30
_Request = TypeVar("_Request")
_REMEMBERED: Final = 2000
_WITHIN_S: Final = 3.0
"""How long the picture waits for a service."""
_ALIVE_S: Final = 15.0
"""How often a silent stream says that it is alive."""


@dataclass(slots=True)
class Loop:
    """What each stage of the loop shows; a service that does not answer leaves its part empty."""

    runs: list[tracked.Run] = field(default_factory=list[tracked.Run])
    experiments: list[tracked.Experiment] = field(default_factory=list[tracked.Experiment])
    models: list[registered.Model] = field(default_factory=list[registered.Model])
    endpoints: list[served.Endpoint] = field(default_factory=list[served.Endpoint])
    traffic: list[served.VersionTraffic] = field(default_factory=list[served.VersionTraffic])
    counts: list[monitor.GetCountsResponse] = field(default_factory=list[monitor.GetCountsResponse])
    monitors: list[watching.Monitor] = field(default_factory=list[watching.Monitor])
    alerts: list[watching.Alert] = field(default_factory=list[watching.Alert])
    pipeline_runs: list[running.PipelineRun] = field(default_factory=list[running.PipelineRun])
    missing: set[str] = field(default_factory=set[str])
    """Services that are part of the stack and do not answer."""
    absent: set[str] = field(default_factory=set[str])
    """Services that are not part of the stack."""

    @property
    def run_count(self) -> int:
        """Runs there are."""
        return sum(each.run_count for each in self.experiments)

    @property
    def active_runs(self) -> list[tracked.Run]:
        """Of the newest runs, those under way."""
        return [each for each in self.runs if each.status == tracked.RUN_STATUS_RUNNING]

    @property
    def active_pipeline_runs(self) -> list[running.PipelineRun]:
        """Of the newest pipeline runs, those under way."""
        under_way = (running.PIPELINE_RUN_STATUS_QUEUED, running.PIPELINE_RUN_STATUS_RUNNING)
        return [each for each in self.pipeline_runs if each.status in under_way]

    @property
    def open_alerts(self) -> list[watching.Alert]:
        """Of the newest alerts, those nobody has acknowledged."""
        return [each for each in self.alerts if not each.acknowledged_by]

    @property
    def rows(self) -> int:
        """Rows that the endpoints answered."""
        return sum(each.rows for each in self.traffic)

    @property
    def p99_ms(self) -> float:
        """Slowest 99th percentile of the versions that answer."""
        return max((each.p99_ms for each in self.traffic), default=0.0)

    @property
    def predictions(self) -> int:
        """Predictions that the monitors counted."""
        return sum(each.predictions for each in self.counts)

    @property
    def labels(self) -> int:
        """Labels that the monitors joined to predictions."""
        return sum(each.labels_joined for each in self.counts)


async def read_loop(platform: Platform) -> Loop:
    """Asks every service; those that do not answer are named in ``missing``."""
    loop, read, parent = Loop(), platform.read, platform.parent
    loop.absent.update(name for name in NAMES if name not in read.names)

    async def of_tracking() -> None:
        loop.experiments.extend(
            (await read.tracking.ListExperiments(_all(tracking.ListExperimentsRequest, parent))).experiments
        )
        loop.runs.extend((await read.tracking.SearchRuns(tracking.SearchRunsRequest(parent=parent, page_size=20))).runs)

    async def of_registry() -> None:
        loop.models.extend((await read.registry.ListModels(_all(registry.ListModelsRequest, parent))).models)

    async def of_serving() -> None:
        loop.endpoints.extend((await read.serving.ListEndpoints(_all(serving.ListEndpointsRequest, parent))).endpoints)
        for endpoint in loop.endpoints:
            request = serving.GetTrafficRequest(endpoint=endpoint.name)
            loop.traffic.extend((await read.serving.GetTraffic(request)).versions)

    async def of_monitor() -> None:
        loop.alerts.extend(
            (await read.monitor.ListAlerts(monitor.ListAlertsRequest(parent=parent, page_size=20))).alerts
        )
        loop.monitors.extend((await read.monitor.ListMonitors(_all(monitor.ListMonitorsRequest, parent))).monitors)
        for endpoint in sorted({each.endpoint for each in loop.monitors}):
            request = monitor.GetCountsRequest(endpoint=f"{parent}/endpoints/{endpoint}")
            loop.counts.append(await read.monitor.GetCounts(request))

    async def of_orchestrator() -> None:
        request = orchestrator.ListPipelineRunsRequest(parent=parent, page_size=20)
        loop.pipeline_runs.extend((await read.orchestrator.ListPipelineRuns(request)).runs)

    await asyncio.gather(
        _guarded("tracking", of_tracking, loop),
        _guarded("registry", of_registry, loop),
        _guarded("serving", of_serving, loop),
        _guarded("monitor", of_monitor, loop),
        _guarded("orchestrator", of_orchestrator, loop),
    )
    return loop


class Causes:
    """What the causes of a page's events are called: those of the newest events that it has shown."""

    def __init__(self, entries: Iterable[LogEntry] = ()) -> None:
        self._names: dict[str, str] = {}
        for entry in entries:
            self.note(entry)

    def note(self, entry: LogEntry) -> None:
        """The event may be a cause of later ones."""
        self._names[entry.event_id] = entry.type.rpartition(".")[2]
        if len(self._names) > _REMEMBERED:
            del self._names[next(iter(self._names))]

    def get(self, event_id: str, default: str) -> str:
        """Type of an event without its package, or ``default`` when it was not shown."""
        return self._names.get(event_id, default)


def routes(platform: Platform, pages: Pages, hub: Hub) -> list[BaseRoute]:
    """``/``, its live part and the stream of events."""

    async def home(request: Request) -> Response:
        loop, page = await asyncio.gather(read_loop(platform), read_page(platform, RECENT))
        entries = page.entries
        return pages.render(
            request, "home.html", loop=loop, entries=entries, causes=Causes(entries), Status=running.PipelineRunStatus
        )

    async def stages(request: Request) -> Response:
        loop = await read_loop(platform)
        return pages.render(request, "_stages.html", loop=loop, Status=running.PipelineRunStatus)

    async def live(request: Request) -> Response:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        if request.method == "HEAD":
            return Response(media_type="text/event-stream", headers=headers)
        return StreamingResponse(_stream(hub, pages), media_type="text/event-stream", headers=headers)

    return [Route("/", home), Route("/parts/stages", stages), Route("/live", live)]


async def _guarded(name: str, part: Callable[[], Awaitable[None]], loop: Loop) -> None:
    if name in loop.absent:
        return
    try:
        async with asyncio.timeout(_WITHIN_S):
            await part()
    except (grpc.aio.AioRpcError, ServiceMissingError, TimeoutError):
        loop.missing.add(name)


def _all(request: Callable[..., _Request], parent: str) -> _Request:
    return request(parent=parent, page_size=1000)


async def _stream(hub: Hub, pages: Pages) -> AsyncIterator[bytes]:
    """Server-sent events: ``entry`` with the row of an event, ``lost`` when some were left out."""
    causes = Causes()
    with hub.feed() as feed:
        yield b"retry: 1000\n: open\n\n"
        while True:
            item = await _next(feed)
            match item:
                case None:
                    yield b": still here\n\n"
                case Notice.END:
                    return
                case Notice.LOST:
                    yield b"event: lost\ndata: {}\n\n"
                case entry:
                    causes.note(entry)
                    yield _event(entry, pages, causes)


async def _next(feed: Feed) -> LogEntry | Notice | None:
    try:
        async with asyncio.timeout(_ALIVE_S):
            return await feed.get()
    except TimeoutError:
        return None


def _event(entry: LogEntry, pages: Pages, causes: Causes) -> bytes:
    html = pages.fragment("_entry.html", entry=entry, causes=causes)
    area = entry.source.rpartition("/")[2]
    data = orjson.dumps({"html": html, "type": entry.type, "stream": entry.stream_id, "area": area})
    return b"event: entry\nid: " + entry.event_id.encode() + b"\ndata: " + data + b"\n\n"
