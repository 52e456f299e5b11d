"""Drift: what the monitors saw over event time, and the alerts they raised."""

from __future__ import annotations

from http import HTTPStatus
from uuid import uuid4

import numpy as np
import orjson
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from headrace.api.monitor.v1 import resources_pb2 as resources
from headrace.api.monitor.v1 import service_pb2 as service
from headrace_gateway.pages import Pages, short
from headrace_gateway.platform import Platform
from headrace_gateway.web import field, form_of


def routes(platform: Platform, pages: Pages) -> list[BaseRoute]:
    """Every page about drift."""

    async def listing(request: Request) -> Response:
        query = service.ListMonitorsRequest(parent=platform.parent, page_size=1000)
        monitors = (await platform.read.monitor.ListMonitors(query)).monitors
        alerts = (await platform.read.monitor.ListAlerts(service.ListAlertsRequest(parent=platform.parent))).alerts
        return pages.render(request, "drift.html", monitors=monitors, alerts=alerts, Kind=resources.AlertKind)

    async def show(request: Request) -> Response:
        name = f"{platform.parent}/monitors/{request.path_params['monitor']}"
        monitor = (await platform.read.monitor.GetMonitor(service.GetMonitorRequest(name=name))).monitor
        alerts = service.ListAlertsRequest(parent=platform.parent, monitor=name)
        endpoint = f"{platform.parent}/endpoints/{monitor.endpoint}"
        counts = await platform.read.monitor.GetCounts(service.GetCountsRequest(endpoint=endpoint))
        return pages.render(
            request,
            "monitor.html",
            monitor=monitor,
            counts=counts,
            alerts=(await platform.read.monitor.ListAlerts(alerts)).alerts,
            Kind=resources.AlertKind,
        )

    async def windows(request: Request) -> Response:
        name = f"{platform.parent}/monitors/{request.path_params['monitor']}"
        found = await platform.read.monitor.ListWindows(service.ListWindowsRequest(monitor=name, page_size=10000))
        alerts = await platform.read.monitor.ListAlerts(service.ListAlertsRequest(parent=platform.parent, monitor=name))
        return Response(
            orjson.dumps(chart_data(list(found.windows), list(alerts.alerts)), option=orjson.OPT_SERIALIZE_NUMPY),
            media_type="application/json",
            headers={"Cache-Control": "no-store"},
        )

    async def acknowledge(request: Request) -> Response:
        form = await form_of(request)
        name = f"{platform.parent}/alerts/{request.path_params['alert']}"
        command = service.AcknowledgeAlertRequest(
            command_id=field(form, "command_id") or str(uuid4()), alert=name, note=field(form, "note")
        )
        await platform.act.monitor.AcknowledgeAlert(command)
        return RedirectResponse("/drift", HTTPStatus.SEE_OTHER)

    return [
        Route("/drift", listing),
        Route("/drift/{monitor}", show),
        Route("/drift/{monitor}/windows", windows),
        Route("/alerts/{alert}/acknowledge", acknowledge, methods=["POST"]),
    ]


def chart_data(windows: list[resources.Window], alerts: list[resources.Alert]) -> dict[str, object]:
    """Series over slots: error and predictions by version, each channel's statistic, and the alerts' times (seconds)."""
    starts = sorted({window.start.seconds for window in windows})
    place = {start: index for index, start in enumerate(starts)}
    errors: dict[str, list[float | None]] = {}
    predictions: list[int] = [0] * len(starts)
    channels: dict[str, list[float | None]] = {}
    thresholds: dict[str, float] = {}
    for window in windows:
        index = place[window.start.seconds]
        predictions[index] += window.predictions
        if window.labels and not np.isnan(window.mean_error):
            label = f"version {short(window.model_version)}"
            errors.setdefault(label, [None] * len(starts))[index] = window.mean_error
        for finding in window.statistics:
            channels.setdefault(finding.channel, [None] * len(starts))[index] = finding.value
            thresholds[finding.channel] = finding.threshold
    marks = [
        {"time": alert.slot.seconds, "kind": resources.AlertKind.Name(alert.kind), "summary": alert.summary}
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
