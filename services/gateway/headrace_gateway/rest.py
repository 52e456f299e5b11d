"""What programs ask the gateway that no single service knows, as JSON, with their own token."""

from __future__ import annotations

from http import HTTPStatus

import grpc
import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from headrace.lineage import openlineage, plain
from headrace.lineage.walking import DEPTH
from headrace_gateway.platform import Services
from headrace_gateway.walks import walked
from headrace_gateway.watching import MAX_LAST_BYTES, Watches, place_of
from headrace_gateway.web import explained
from headrace_kit.errors import InvalidArgument, KitError

JSON = "application/json"


def routes(services: Services, watches: Watches, parent: str) -> list[BaseRoute]:
    """What there is under ``/api/v1``.

    - ``lineage?entity=NAME&direction=both&depth=8&format=json``; ``format=openlineage`` for run events;
    - ``runs/{run}/watch?last_bytes=0``: a run as it goes on, see :mod:`headrace_gateway.watching`.
    """

    async def lineage(request: Request) -> Response:
        given = request.query_params
        try:
            form = given.get("format", "json")
            if form not in ("json", "openlineage"):
                raise InvalidArgument("give json or openlineage", field="format")
            found = await walked(
                services,
                given.get("entity", ""),
                direction=given.get("direction", "both"),
                depth=_depth(given.get("depth", str(DEPTH))),
                metadata=(("authorization", request.headers.get("authorization", "")),),
            )
        except (KitError, grpc.aio.AioRpcError) as error:
            return _refusal(error)
        if form == "openlineage":
            lines = b"".join(orjson.dumps(each) + b"\n" for each in openlineage(found))
            return Response(lines, media_type="application/x-ndjson")
        return Response(orjson.dumps(plain(found)), media_type=JSON)

    async def watch(request: Request) -> Response:
        given = request.headers.get("authorization", "")
        try:
            return await watches.open(
                f"{parent}/runs/{request.path_params['run']}",
                client=given,
                after_us=place_of(request.headers.get("last-event-id", "")),
                last_bytes=_bytes(request.query_params.get("last_bytes", "0")),
                metadata=(("authorization", given),),
            )
        except (KitError, grpc.aio.AioRpcError) as error:
            return _refusal(error)

    return [Route("/api/v1/lineage", lineage), Route("/api/v1/runs/{run}/watch", watch)]


def _depth(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 4):
        raise InvalidArgument("give 1 to 100", field="depth")
    return int(text)


def _bytes(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) <= MAX_LAST_BYTES):
        raise InvalidArgument(f"give 0 to {MAX_LAST_BYTES}", field="last_bytes")
    return int(text)


def _refusal(error: KitError | grpc.aio.AioRpcError) -> Response:
    status, message = explained(error)
    reason = error.reason if isinstance(error, KitError) else error.code().name
    if isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.UNAUTHENTICATED:
        status = HTTPStatus.UNAUTHORIZED
    headers = {"Retry-After": "5"} if status is HTTPStatus.TOO_MANY_REQUESTS else {}
    return Response(orjson.dumps({"reason": reason, "message": message}), status, headers, media_type=JSON)
