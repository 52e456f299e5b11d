"""The monitor over gRPC: request -> checks -> command or query -> response."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.monitor.v1 import service_pb2 as service
from headrace.api.monitor.v1.events_pb2 import AlertRaised
from headrace.api.monitor.v1.resources_pb2 import Alert, Monitor, MonitorConfig, ReferenceProfile, Window
from headrace.api.monitor.v1.service_pb2_grpc import MonitorServiceServicer
from headrace_kit.context import CommandContext
from headrace_kit.errors import AlreadyExists, DeadlineExceeded, InvalidArgument, NotFound
from headrace_kit.eventstore import EventStore, StoredEvent
from headrace_kit.masks import merged, picked, require_mask
from headrace_kit.names import ALERT, ENDPOINT, PROJECT, parse_id, require_text
from headrace_kit.names import MONITOR as MONITOR_NAME
from headrace_kit.objects import ObjectCorrupt, ObjectStore
from headrace_kit.paging import page_of
from headrace_kit.postgres import UniqueViolation
from headrace_kit.rpc import command_context
from headrace_kit.validate import require_object, require_range, require_time
from headrace_monitor import domain, requests
from headrace_monitor.detectors import distances
from headrace_monitor.layout import Layout, fault_of, layout_of
from headrace_monitor.store import MONITOR, MonitorStore, StoredWindow, project_of

R = TypeVar("R", bound=Message)
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # Any: the messages of whichever method
Decide = Callable[[Monitor | None, CommandContext], Sequence[Message]]

_END_US = 2**62
_LOG_PAGE = 200
_LOOK_S = 10.0
MAX_PROFILE_BYTES = 64 * 1024 * 1024


class MonitorServicer(MonitorServiceServicer):
    """Answers the monitor's calls.

    Args:
        store: The monitors' streams.
        monitors: The read models.
        objects: Where reference profiles lie.
    """

    def __init__(self, store: EventStore, monitors: MonitorStore, objects: ObjectStore) -> None:
        self._store, self._monitors, self._objects = store, monitors, objects

    async def CreateMonitor(
        self, request: service.CreateMonitorRequest, context: Context
    ) -> service.CreateMonitorResponse:
        project = MONITOR_NAME.parse(request.name, field="name")["project"]
        parse_id(request.endpoint, field="endpoint")
        config = requests.completed(request.config)
        await self._require_profile(config, project)
        watching = await self._monitors.monitor_of_endpoint(project, request.endpoint)
        if watching not in {"", request.name}:
            raise AlreadyExists(f"{watching} watches this endpoint", field="endpoint")
        try:
            return await self._command(
                request.name,
                request,
                lambda state, command: domain.decide_create(state, request, config, command),
                lambda monitor: service.CreateMonitorResponse(monitor=monitor),
            )
        except UniqueViolation as error:
            raise AlreadyExists("another monitor watches this endpoint", field="endpoint") from error

    async def GetMonitor(self, request: service.GetMonitorRequest, context: Context) -> service.GetMonitorResponse:
        MONITOR_NAME.parse(request.name, field="name")
        monitor = await self._monitor(request.name, field="name")
        await self._tell_progress([monitor])
        return service.GetMonitorResponse(monitor=monitor)

    async def ListMonitors(
        self, request: service.ListMonitorsRequest, context: Context
    ) -> service.ListMonitorsResponse:
        project = PROJECT.parse(request.parent, field="parent")["project"]
        page = page_of(request)
        monitors = await self._monitors.list_monitors(project, after=page.after, limit=page.limit)
        token = page.token(monitors[-1].name, count=len(monitors)) if monitors else ""
        await self._tell_progress(monitors)
        shown = picked(monitors, request.read_mask, kind=Monitor)
        return service.ListMonitorsResponse(monitors=shown, next_page_token=token)

    async def ConfigureMonitor(
        self, request: service.ConfigureMonitorRequest, context: Context
    ) -> service.ConfigureMonitorResponse:
        project = MONITOR_NAME.parse(request.name, field="name")["project"]
        require_mask(request.update_mask, MonitorConfig, field="update_mask")
        changed = request.update_mask.paths
        if not changed:
            requests.completed(request.config)
        if not changed or any(each.partition(".")[0] == "reference_profile" for each in changed):
            await self._require_profile(request.config, project)
        return await self._command(
            request.name,
            request,
            lambda state, _: domain.decide_configure(state, request.name, _settings(state, request)),
            lambda monitor: service.ConfigureMonitorResponse(monitor=monitor),
        )

    async def PauseMonitor(
        self, request: service.PauseMonitorRequest, context: Context
    ) -> service.PauseMonitorResponse:
        MONITOR_NAME.parse(request.name, field="name")
        require_text(request.reason, field="reason", least=0, most=2000, lines=True)
        return await self._command(
            request.name,
            request,
            lambda state, _: domain.decide_pause(state, request),
            lambda monitor: service.PauseMonitorResponse(monitor=monitor),
        )

    async def ListWindows(self, request: service.ListWindowsRequest, context: Context) -> service.ListWindowsResponse:
        MONITOR_NAME.parse(request.monitor, field="monitor")
        start = getattr(request, "from")
        from_us = _bound(start, request.HasField("from"), default=-_END_US, field="from")
        until_us = _bound(request.until, request.HasField("until"), default=_END_US, field="until")
        require_text(request.model_version, field="model_version", least=0, most=500)
        page = page_of(request, default=1000, most=10_000)
        monitor = await self._monitor(request.monitor, field="monitor")
        endpoint_id = await self._monitors.endpoint_id(project_of(monitor.name), monitor.endpoint)
        if endpoint_id is None:
            return service.ListWindowsResponse()
        windows = await self._monitors.windows(
            endpoint_id,
            from_us=from_us,
            until_us=until_us,
            version=request.model_version,
            after=_after_window(page.after),
            limit=page.limit,
        )
        profiles = await self._monitors.layouts(endpoint_id)
        layouts = {name: layout_of(ReferenceProfile.FromString(data)) for name, data in profiles.items()}
        last = f"{windows[-1].start_us}|{windows[-1].version}" if windows else ""
        return service.ListWindowsResponse(
            windows=[_window(each, layouts.get(each.version)) for each in windows],
            next_page_token=page.token(last, count=len(windows)),
        )

    async def ListAlerts(self, request: service.ListAlertsRequest, context: Context) -> service.ListAlertsResponse:
        project = PROJECT.parse(request.parent, field="parent")["project"]
        if request.monitor:
            MONITOR_NAME.parse(request.monitor, field="monitor")
        page = page_of(request)
        alerts = await self._monitors.list_alerts(project, monitor=request.monitor, after=page.after, limit=page.limit)
        token = page.token(alerts[-1].name, count=len(alerts)) if alerts else ""
        shown = picked(alerts, request.read_mask, kind=Alert)
        return service.ListAlertsResponse(alerts=shown, next_page_token=token)

    async def AcknowledgeAlert(
        self, request: service.AcknowledgeAlertRequest, context: Context
    ) -> service.AcknowledgeAlertResponse:
        ALERT.parse(request.alert, field="alert")
        require_text(request.note, field="note", least=0, most=2000, lines=True)
        name = await self._monitors.monitor_of_alert(request.alert)
        if not name:
            raise NotFound("alert", request.alert, field="alert")
        return await self._command(
            name,
            request,
            lambda state, command: domain.decide_acknowledge(state, request, name, command),
            lambda monitor: service.AcknowledgeAlertResponse(alert=domain.find_alert(monitor, request.alert)),
        )

    async def SubscribeAlerts(
        self, request: service.SubscribeAlertsRequest, context: Context
    ) -> AsyncIterator[service.SubscribeAlertsResponse]:
        project = PROJECT.parse(request.parent, field="parent")["project"]
        if request.monitor:
            MONITOR_NAME.parse(request.monitor, field="monitor")
        position = await self._position_of(request.cursor)
        while True:
            entries = await self._store.read_log(position + 1, _LOG_PAGE)
            for entry in entries:
                position = entry.position
                raised = _raised(entry.event, project=project, monitor=request.monitor)
                if raised is not None:
                    yield service.SubscribeAlertsResponse(alert=raised.alert, cursor=str(position))
            if len(entries) < _LOG_PAGE:
                try:
                    await self._store.wait_for_position(position + 1, timeout_s=_LOOK_S)
                except DeadlineExceeded:
                    continue

    async def GetCounts(self, request: service.GetCountsRequest, context: Context) -> service.GetCountsResponse:
        ids = ENDPOINT.parse(request.endpoint, field="endpoint")
        endpoint_id = await self._monitors.endpoint_id(ids["project"], ids["endpoint"])
        counts = {} if endpoint_id is None else await self._monitors.counts(endpoint_id)
        counts["records_quarantined"] = counts.pop("quarantined", 0)
        return service.GetCountsResponse(**counts)

    async def _position_of(self, cursor: str) -> int:
        if cursor == "now":
            return await self._store.head()
        if not cursor:
            return 0
        if not (cursor.isascii() and cursor.isdecimal() and len(cursor) <= 18):
            raise InvalidArgument("give a cursor of this stream, `now`, or nothing", field="cursor")
        return int(cursor)

    async def _monitor(self, name: str, *, field: str) -> Monitor:
        loaded = await self._store.load(MONITOR, name)
        if loaded is None:
            raise NotFound("monitor", name, field=field)
        return loaded[0]

    async def _require_profile(self, config: MonitorConfig, project: str) -> None:
        """A reference that can not be read would leave a monitor that never finds anything, and says nothing of it."""
        if not config.HasField("reference_profile"):
            return
        reference, field = config.reference_profile, "config.reference_profile"
        require_object(reference, project=project, field=field)
        require_range(reference.size_bytes, field=f"{field}.size_bytes", least=0, most=MAX_PROFILE_BYTES)
        try:
            fault = fault_of(ReferenceProfile.FromString(await self._objects.get(reference)))
        except (NotFound, ObjectCorrupt, DecodeError) as error:
            raise InvalidArgument(f"no profile can be read from {reference.uri}: {error}", field=field) from error
        if fault:
            raise InvalidArgument(f"the profile at {reference.uri} is not sound: {fault}", field=field)

    async def _tell_progress(self, monitors: Sequence[Monitor]) -> None:
        """Fills what is no part of their state."""
        until_us = await self._monitors.decided_until(monitors)
        for monitor in monitors:
            if monitor.name in until_us:
                monitor.decided_until.FromMicroseconds(until_us[monitor.name])

    async def _command(self, name: str, request: Message, decide: Decide, respond: Callable[[Monitor], R]) -> R:
        command_id: str = getattr(request, "command_id")  # noqa: B009 - every command has one
        command = command_context(command_id)
        return await self._store.execute(
            MONITOR,
            name,
            context=command,
            request=request,
            decide=lambda state: decide(state, command),
            respond=respond,
        )


def _raised(event: StoredEvent, *, project: str, monitor: str) -> AlertRaised | None:
    if event.type != "headrace.monitor.v1.AlertRaised":
        return None
    raised = AlertRaised.FromString(event.data)
    if project_of(raised.alert.name) != project or (monitor and raised.alert.monitor != monitor):
        return None
    return raised


def _settings(state: Monitor | None, request: service.ConfigureMonitorRequest) -> MonitorConfig:
    """The settings that are asked for; of no monitor those of the request, which are refused."""
    if state is None:
        return request.config
    return requests.completed(merged(state.config, request.config, request.update_mask))


def _bound(stamp: Timestamp, given: bool, *, default: int, field: str) -> int:  # noqa: FBT001 - presence
    if not given:
        return default
    require_time(stamp, field=field)
    return stamp.ToMicroseconds()


def _after_window(text: str) -> tuple[int, str]:
    start, _, version = text.partition("|")
    require_range(len(start), field="page_token", least=0, most=20)
    return (int(start), version) if start else (-_END_US - 1, "")


def _window(stored: StoredWindow, layout: Layout | None) -> Window:
    counts = stored.counts
    window = Window(
        model_version=stored.version,
        predictions=counts.rows,
        labels=counts.labels,
        mean_error=counts.mean_error,
        closed=stored.closed,
        statistics=[] if layout is None else distances(layout, counts),
    )
    window.start.FromMicroseconds(stored.start_us)
    return window
