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
from headrace_gateway.web import explained
from headrace_kit.errors import InvalidArgument, KitError

JSON = "application/json"


def routes(services: Services) -> list[BaseRoute]:
    """``GET /api/v1/lineage?entity=NAME&direction=both&depth=8&format=json``; ``format=openlineage`` for run events."""

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

    return [Route("/api/v1/lineage", lineage)]


def _depth(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 4):
        raise InvalidArgument("give 1 to 100", field="depth")
    return int(text)


def _refusal(error: KitError | grpc.aio.AioRpcError) -> Response:
    status, message = explained(error)
    reason = error.reason if isinstance(error, KitError) else error.code().name
    if isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.UNAUTHENTICATED:
        status = HTTPStatus.UNAUTHORIZED
    return Response(orjson.dumps({"reason": reason, "message": message}), status, media_type=JSON)
