"""Endpoints: which versions answer, with what share, how fast."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from headrace.api.serving.v1 import resources_pb2 as resources
from headrace.api.serving.v1 import service_pb2 as service
from headrace_gateway.pages import Pages
from headrace_gateway.platform import Platform

Served = tuple[resources.Endpoint, service.GetTrafficResponse]


def routes(platform: Platform, pages: Pages) -> list[BaseRoute]:
    """The page of all endpoints; its live part when htmx asks."""

    async def with_traffic(endpoint: resources.Endpoint) -> Served:
        request = service.GetTrafficRequest(endpoint=endpoint.name)
        return endpoint, await platform.read.serving.GetTraffic(request)

    async def show(request: Request) -> Response:
        query = service.ListEndpointsRequest(parent=platform.parent, page_size=1000)
        endpoints = (await platform.read.serving.ListEndpoints(query)).endpoints
        found = await asyncio.gather(*(with_traffic(each) for each in endpoints))
        template = "_endpoints.html" if "hx-request" in request.headers else "endpoints.html"
        return pages.render(
            request, template, endpoints=found, Mode=resources.TelemetryMode, serving_url=platform.serving_url
        )

    return [Route("/endpoints", show)]
