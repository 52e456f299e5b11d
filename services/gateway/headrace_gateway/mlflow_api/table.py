"""What an endpoint is, and how its answers become HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import orjson
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from headrace_gateway.mlflow_api.asking import Ask, Backend, arguments_of
from headrace_gateway.mlflow_api.errors import translated
from headrace_gateway.mlflow_api.wire import Json

_log = structlog.get_logger(__name__)

V2: Final = "/api/2.0/mlflow"
V3: Final = "/api/3.0/mlflow"
FILES: Final = "/api/2.0/mlflow-artifacts"
PROJECT: Final = "/projects/{project}"
"""Prefix of a tracking URI that names another project than the gateway's own."""

Answer = Callable[[Ask], Awaitable[Json | Response]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method and path of the API.

    Attributes:
        method: GET, POST, PUT, PATCH or DELETE.
        path: With placeholders, such as ``/api/2.0/mlflow/logged-models/{model_id}``.
        answer: Answers it with JSON, or with a whole response.
        raw: Whether the body is bytes, which ``answer`` reads itself.
    """

    method: str
    path: str
    answer: Answer
    raw: bool = False


def routes_of(endpoint: Endpoint, backend: Backend) -> list[BaseRoute]:
    """The endpoint in the gateway's own project, and below ``/projects/{project}``."""

    async def answered(request: Request) -> Response:
        try:
            values: dict[str, object] = dict(request.query_params) if endpoint.raw else await arguments_of(request)
            found = await endpoint.answer(Ask(request, values, backend))
        except Exception as error:  # noqa: BLE001 - whatever it was, the client gets an answer of the form it knows
            return _refusal(error)
        if isinstance(found, Response):
            return found
        return Response(orjson.dumps(found), media_type="application/json")

    return [
        Route(endpoint.path, answered, methods=[endpoint.method]),
        Route(PROJECT + endpoint.path, answered, methods=[endpoint.method]),
    ]


def refusal(status: HTTPStatus, code: str, message: str) -> Response:
    """An error as MLflow's clients read it."""
    return Response(orjson.dumps({"error_code": code, "message": message}), status, media_type="application/json")


def _refusal(error: Exception) -> Response:
    found = translated(error)
    if found.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.error("mlflow_call_failed", exc_info=error)
    return refusal(found.status, found.code, found.message)
