"""Drift: what the monitors saw over event time, and the alerts they raised."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from headrace.api.monitor.v1 import resources_pb2 as resources
from headrace.api.monitor.v1 import service_pb2 as service
from headrace_gateway.pages import Pages, short
from headrace_gateway.platform import Platform
from headrace_gateway.web import field, form_of

WINDOWS: Final = 20_000
"""Newest windows of a monitor that its charts show."""
_PAGE: Final = 1000


def routes(platform: Platform, pages: Pages) -> list[BaseRoute]:
    """Every page about drift."""
    read = platform.read

    async def listing(request: Request) -> Response:
        monitors, alerts = await asyncio.gather(
            read.monitor.ListMonitors(service.ListMonitorsRequest(parent=platform.parent, page_size=1000)),
            read.monitor.ListAlerts(service.ListAlertsRequest(parent=platform.parent, page_size=100)),
        )
        template = "_drift.html" if "hx-request" in request.headers else "drift.html"
        return pages.render(
            request, template, monitors=monitors.monitors, alerts=alerts.alerts, Kind=resources.AlertKind
        )

    async def show(request: Request) -> Response:
        name = f"{platform.parent}/monitors/{request.path_params['monitor']}"
        monitor = (await read.monitor.GetMonitor(service.GetMonitorRequest(name=name))).monitor
        endpoint = f"{platform.parent}/endpoints/{monitor.endpoint}"
        counts, alerts = await asyncio.gather(
            read.monitor.GetCounts(service.GetCountsRequest(endpoint=endpoint)),
            read.monitor.ListAlerts(_alerts_of(platform, name)),
        )
        template = "_monitor.html" if "hx-request" in request.headers else "monitor.html"
        return pages.render(
            request,
            template,
            monitor=monitor,
            counts=counts,
            alerts=alerts.alerts,
            Kind=resources.AlertKind,
            Task=resources.TaskKind,
            Action=resources.DriftAction,
        )

    async def windows(request: Request) -> Response:
        name = f"{platform.parent}/monitors/{request.path_params['monitor']}"
        found, alerts = await asyncio.gather(
            _windows(platform, name), read.monitor.ListAlerts(_alerts_of(platform, name))
        )
        return Response(
            orjson.dumps(chart_data(found, alerts.alerts)),
            media_type="application/json",
            headers={"Cache-Control": "no-store"},
        )

    async def acknowledge(request: Request) -> Response:
        form = await form_of(request)
        name = f"{platform.parent}/alerts/{request.path_params['alert']}"
        command = service.AcknowledgeAlertRequest(
            command_id=field(form, "command_id"), alert=name, note=field(form, "note")
        )
        await platform.act.monitor.AcknowledgeAlert(command)
        return RedirectResponse("/drift", HTTPStatus.SEE_OTHER)

    return [
        Route("/drift", listing),
        Route("/drift/{monitor}", show),
        Route("/drift/{monitor}/windows", windows),
        Route("/alerts/{alert}/acknowledge", acknowledge, methods=["POST"]),
    ]


def chart_data(windows: Sequence[resources.Window], alerts: Sequence[resources.Alert]) -> dict[str, object]:
    """Series over slots: error and predictions by version, each channel's statistic, and the alerts' times (seconds).

    A value is None where there is none: a slot without labels, a channel that was not tested, NaN.
    """
    starts = sorted({window.start.seconds for window in windows})
    place = {start: index for index, start in enumerate(starts)}
    errors: dict[str, list[float | None]] = {}
    predictions: dict[str, list[int]] = {}
    channels: dict[str, list[float | None]] = {}
    thresholds: dict[str, list[float | None]] = {}
    for window in windows:
        index, label = place[window.start.seconds], f"version {short(window.model_version)}"
        predictions.setdefault(label, [0] * len(starts))[index] += window.predictions
        if window.labels and math.isfinite(window.mean_error):
            errors.setdefault(label, [None] * len(starts))[index] = window.mean_error
        for finding in window.statistics:
            if math.isfinite(finding.value):
                channels.setdefault(finding.channel, [None] * len(starts))[index] = finding.value
                thresholds.setdefault(finding.channel, [None] * len(starts))[index] = finding.threshold
    marks = [
        {
            "time": alert.slot.seconds,
            "onset": alert.onset.seconds,
            "kind": resources.AlertKind.Name(alert.kind).removeprefix("ALERT_KIND_").lower().replace("_", " "),
            "summary": alert.summary,
        }
        for alert in alerts
    ]
    return {
        "times": starts,
        "errors": errors,
        "predictions": predictions,
        "channels": channels,
        "thresholds": thresholds,
        "alerts": marks,
    }


def _alerts_of(platform: Platform, monitor: str) -> service.ListAlertsRequest:
    return service.ListAlertsRequest(parent=platform.parent, monitor=monitor, page_size=200)


async def _windows(platform: Platform, monitor: str) -> list[resources.Window]:
    found: list[resources.Window] = []
    token = ""
    while len(found) < WINDOWS:
        query = service.ListWindowsRequest(monitor=monitor, page_size=_PAGE, page_token=token)
        page = await platform.read.monitor.ListWindows(query)
        found.extend(page.windows)
        token = page.next_page_token
        if not token:
            break
    return found
