"""The event log: newest first, one event, the chain of its causes."""

from __future__ import annotations

import asyncio
from typing import Final

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
from headrace_gateway.views.home import Causes, recent_entries
from headrace_kit.errors import NotFound

SHOWN: Final = 200
SEARCHED: Final = 1000
"""Newest entries of each log among which a search looks."""
LINKS: Final = 500
"""Links of a chain that a page shows."""
_PAGE: Final = 1000


def routes(platform: Platform, pages: Pages) -> list[BaseRoute]:
    """Every page about events."""

    async def listing(request: Request) -> Response:
        wanted = request.query_params.get("q", "").strip()
        entries = await recent_entries(platform, SEARCHED if wanted else SHOWN)
        shown = [entry for entry in entries if matches(entry, wanted)][:SHOWN]
        template = "_entries.html" if "hx-request" in request.headers else "events.html"
        return pages.render(request, template, entries=shown, causes=Causes(shown), searched=SEARCHED, shown=SHOWN)

    async def show(request: Request) -> Response:
        entry = await _find(platform, request.path_params["event"])
        links = chain([*await _everything(platform), entry], entry.event_id)
        message = decode(entry)
        text = MessageToJson(message, preserving_proto_field_name=True) if message else entry.data.hex()
        return pages.render(
            request, "event.html", entry=entry, links=links[:LINKS], left_out=max(len(links) - LINKS, 0), text=text
        )

    return [Route("/events", listing), Route("/events/{event}", show)]


def matches(entry: LogEntry, wanted: str) -> bool:
    """Whether every word stands in the type, the stream, the actor or the ids of an event, in any case."""
    meta = entry.meta
    text = f"{entry.type} {entry.stream_id} {meta.actor} {entry.event_id} {meta.correlation_id}".lower()
    return all(word in text for word in wanted.lower().split())


async def _find(platform: Platform, event_id: str) -> LogEntry:
    silent: list[str] = []
    for name in platform.read.names:
        try:
            found: LogEntry = (await platform.read.log(name).GetEvent(GetEventRequest(event_id=event_id))).entry
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                silent.append(name)
            elif error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT):
                raise
        else:
            return found
    doubt = f" ({', '.join(silent)} did not answer)" if silent else ""
    raise NotFound(f"no log has an event {event_id}{doubt}")


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
