"""Endpoints: which versions answer, with what share, how fast."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from headrace.api.serving.v1 import service_pb2 as service
from headrace_gateway.pages import Pages
from headrace_gateway.platform import Platform


def routes(platform: Platform, pages: Pages) -> list[BaseRoute]:
    """The page of all endpoints, and the part of it that is read again."""

    async def read() -> list[tuple[object, object]]:
        request = service.ListEndpointsRequest(parent=platform.parent, page_size=1000)
        endpoints = (await platform.read.serving.ListEndpoints(request)).endpoints
        return [
            (each, await platform.read.serving.GetTraffic(service.GetTrafficRequest(endpoint=each.name)))
            for each in endpoints
        ]

    async def show(request: Request) -> Response:
        return pages.render(request, "endpoints.html", endpoints=await read())

    async def part(request: Request) -> Response:
        return pages.render(request, "_endpoints.html", endpoints=await read())

    return [Route("/endpoints", show), Route("/parts/endpoints", part)]
