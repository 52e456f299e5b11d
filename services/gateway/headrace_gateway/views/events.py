"""The event log: newest first, one event with the chain of its causes, its bytes, and proof of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import grpc
import orjson
from google.protobuf.json_format import MessageToDict, MessageToJson
from google.protobuf.message import DecodeError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.audit.v1.service_pb2 import ListVerifyingKeysRequest, ProveInclusionRequest
from headrace.errors import error_details
from headrace.story import decode
from headrace.verifier import CanNotCheck, Checkpoint, Key, NotProved, Proof
from headrace_gateway.logs import causes_of, find, read_page, tell
from headrace_gateway.pages import Pages
from headrace_gateway.platform import Platform
from headrace_gateway.views.home import Causes
from headrace_kit.errors import FailedPrecondition

SHOWN: Final = 200
SEARCHED: Final = 1000
"""Entries of each log among which a page of a search looks."""
LINKS: Final = 500
"""Links of a chain that a page shows."""
HEX_BYTES: Final = 2048
"""Bytes of an event that a page shows; the rest is downloaded."""


def routes(platform: Platform, pages: Pages) -> list[BaseRoute]:
    """Every page about events."""

    async def listing(request: Request) -> Response:
        wanted, before = request.query_params.get("q", "").strip(), request.query_params.get("before", "")
        page = await read_page(
            platform,
            SHOWN,
            cursor=before,
            scan=SEARCHED if wanted else SHOWN,
            accept=(lambda entry: matches(entry, wanted)) if wanted else None,
        )
        causes = Causes((await causes_of(platform, page.entries)).values())
        template = "_entries.html" if "hx-request" in request.headers else "events.html"
        return pages.render(
            request,
            template,
            entries=page.entries,
            causes=causes,
            older=page.older,
            silent=page.silent,
            searched=SEARCHED,
            shown=SHOWN,
        )

    async def show(request: Request) -> Response:
        event_id = request.path_params["event"]
        entry, told = await asyncio.gather(find(platform, event_id), tell(platform, event_id, most=LINKS))
        return pages.render(request, "event.html", entry=entry, told=told, text=text_of(entry), hex=hex_of(entry.data))

    async def raw(request: Request) -> Response:
        entry = await find(platform, request.path_params["event"])
        return _download(entry.data, "application/octet-stream", f"{_file(entry)}.binpb")

    async def as_json(request: Request) -> Response:
        entry = await find(platform, request.path_params["event"])
        plain = MessageToDict(entry, preserving_proto_field_name=True)
        plain |= {
            "leaf": entry.leaf.hex(),
            "data": orjson.loads(text) if (text := text_of(entry)) else entry.data.hex(),
        }
        return _download(orjson.dumps(plain, option=orjson.OPT_INDENT_2), "application/json", f"{_file(entry)}.json")

    async def proof(request: Request) -> Response:
        entry = await find(platform, request.path_params["event"])
        return pages.render(request, "_proof.html", entry=entry, verdict=await _verify(platform, entry))

    async def proof_file(request: Request) -> Response:
        entry = await find(platform, request.path_params["event"])
        try:
            text = (await _proof_of(platform, entry)).to_json()
        except NotProved as error:
            raise FailedPrecondition(f"the log gave no proof: {error}") from error
        return _download(text.encode(), "application/json", f"{_file(entry)}.proof.json")

    return [
        Route("/events", listing),
        Route("/events/{event}", show),
        Route("/events/{event}/data", raw),
        Route("/events/{event}/json", as_json),
        Route("/events/{event}/proof", proof),
        Route("/events/{event}/proof/json", proof_file),
    ]


def matches(entry: LogEntry, wanted: str) -> bool:
    """Whether every word stands in the type, the stream, the actor or the ids of an event, in any case."""
    meta = entry.meta
    text = f"{entry.type} {entry.stream_id} {meta.actor} {entry.event_id} {meta.correlation_id}".lower()
    return all(word in text for word in wanted.lower().split())


def text_of(entry: LogEntry) -> str:
    """The content of an event as JSON; empty when its type is not known here, or its bytes are not of it."""
    try:
        message = decode(entry)
    except DecodeError:
        return ""
    return MessageToJson(message, preserving_proto_field_name=True) if message is not None else ""


def hex_of(data: bytes) -> str:
    """The first bytes in hexadecimal, 16 to a line: offset, bytes, and as text where they are ASCII."""
    lines: list[str] = []
    for offset in range(0, min(len(data), HEX_BYTES), 16):
        part = data[offset : min(offset + 16, HEX_BYTES)]
        shown = "".join(chr(each) if 32 <= each < 127 else "." for each in part)
        lines.append(f"{offset:06x}  {part.hex(' '):<47}  {shown}")
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a verification: ``proved`` with its checkpoint, or why not in a sentence."""

    proved: bool
    sentence: str
    checkpoint: Checkpoint | None = None
    key: str = ""


async def _verify(platform: Platform, entry: LogEntry) -> Verdict:
    """Holds an event, as it is shown, to the newest checkpoint that its service signed."""
    log = platform.read.log(_service(entry))
    try:
        proof = await _proof_of(platform, entry)
        keys = [Key.parse(each.key) for each in (await log.ListVerifyingKeys(ListVerifyingKeysRequest())).keys]
        proved, key = await asyncio.to_thread(proof.check, keys)
    except grpc.aio.AioRpcError as error:
        reason = error_details(error)[1].reason
        if reason == "NOT_SIGNED_YET":
            return Verdict(False, "No signed checkpoint covers it yet: one is signed every few seconds.")
        return Verdict(False, f"The log gives no proof: {error.details()}")
    except (NotProved, CanNotCheck) as error:
        return Verdict(False, f"It is not proved: {error}")
    if (proved.event_id, proved.data) != (entry.event_id, entry.data):
        return Verdict(False, "It is not proved: what is signed there is another event.")
    return Verdict(True, "It stands in the log as it was signed.", proof.checkpoint, key.name)


async def _proof_of(platform: Platform, entry: LogEntry) -> Proof:
    log = platform.read.log(_service(entry))
    answer = await log.ProveInclusion(ProveInclusionRequest(event_id=entry.event_id))
    return Proof(answer.leaf_bytes, list(answer.path), Checkpoint.parse(answer.checkpoint.note))


def _service(entry: LogEntry) -> str:
    return entry.source.rpartition("/")[2]


def _file(entry: LogEntry) -> str:
    return f"{entry.type.rpartition('.')[2]}-{entry.event_id}"


def _download(content: bytes, media_type: str, name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return Response(content, HTTPStatus.OK, headers, media_type)
