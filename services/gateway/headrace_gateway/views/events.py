"""The event log: newest first, one event, the chain of its causes."""

from __future__ import annotations

import asyncio

import grpc
from google.protobuf.json_format import MessageToJson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.audit.v1.service_pb2 import GetEventRequest, ReadLogRequest
from headrace.story import chain, decode
from headrace_gateway.pages import Pages
from headrace_gateway.platform import Platform
from headrace_gateway.views.home import recent_entries
from headrace_kit.errors import NotFound

SHOWN = 200
_PAGE = 1000


def routes(platform: Platform, pages: Pages) -> list[BaseRoute]:
    """Every page about events."""

    async def listing(request: Request) -> Response:
        wanted = request.query_params.get("type", "")
        entries = await recent_entries(platform, SHOWN if not wanted else 5 * SHOWN)
        shown = [entry for entry in entries if wanted.lower() in entry.type.lower()][:SHOWN]
        template = "_entries.html" if "hx-request" in request.headers else "events.html"
        return pages.render(request, template, entries=shown)

    async def show(request: Request) -> Response:
        entry = await _find(platform, request.path_params["event"])
        links = chain(await _everything(platform), entry.event_id)
        message = decode(entry)
        text = MessageToJson(message, preserving_proto_field_name=True) if message else entry.data.hex()
        return pages.render(request, "event.html", entry=entry, links=links, text=text)

    return [Route("/events", listing), Route("/events/{event}", show)]


async def _find(platform: Platform, event_id: str) -> LogEntry:
    for name in platform.read.names:
        try:
            found: LogEntry = (await platform.read.log(name).GetEvent(GetEventRequest(event_id=event_id))).entry
        except grpc.aio.AioRpcError as error:
            if error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE):
                raise
        else:
            return found
    raise NotFound("event", event_id)


async def _everything(platform: Platform) -> list[LogEntry]:
    """The logs of all services that answer, from the start."""

    async def of(name: str) -> list[LogEntry]:
        entries: list[LogEntry] = []
        position = 1
        while True:
            request = ReadLogRequest(from_position=position, page_size=_PAGE, stream_prefix=f"{platform.parent}/")
            try:
                page = await platform.read.log(name).ReadLog(request)
            except grpc.aio.AioRpcError:
                return entries
            entries.extend(page.entries)
            position = page.next_position
            if page.end_of_log or not page.entries:
                return entries

    return [entry for entries in await asyncio.gather(*(of(name) for name in platform.read.names)) for entry in entries]
