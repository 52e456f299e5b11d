"""The web application: how a person enters, and what errors look like."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Final

import grpc
from starlette.applications import Starlette
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from headrace.errors import from_rpc_error
from headrace_gateway.gate import MAX_FORM_BYTES, Gate, wants_page
from headrace_gateway.pages import Pages
from headrace_gateway.platform import ServiceMissingError
from headrace_gateway.sessions import COOKIE, LIFETIME_S, Sessions
from headrace_kit.auth import Tokens
from headrace_kit.errors import FailedPrecondition, InvalidArgument, KitError, NotFound, ResourceExhausted

STATIC: Final = Path(__file__).parent / "static"
_HTTP: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    grpc.StatusCode.FAILED_PRECONDITION: HTTPStatus.CONFLICT,
    grpc.StatusCode.ABORTED: HTTPStatus.CONFLICT,
    grpc.StatusCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    grpc.StatusCode.UNAUTHENTICATED: HTTPStatus.BAD_GATEWAY,
    grpc.StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    grpc.StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
    grpc.StatusCode.UNIMPLEMENTED: HTTPStatus.NOT_IMPLEMENTED,
}
_KIT: Final = {
    InvalidArgument: HTTPStatus.BAD_REQUEST,
    NotFound: HTTPStatus.NOT_FOUND,
    FailedPrecondition: HTTPStatus.CONFLICT,
    ResourceExhausted: HTTPStatus.TOO_MANY_REQUESTS,
}
_TITLES: Final = {
    HTTPStatus.BAD_REQUEST: "That can not be asked",
    HTTPStatus.NOT_FOUND: "Nothing here",
    HTTPStatus.CONFLICT: "That is not possible now",
    HTTPStatus.SERVICE_UNAVAILABLE: "A service does not answer",
    HTTPStatus.GATEWAY_TIMEOUT: "A service is too slow",
}


def build_web(pages: Pages, *, sessions: Sessions, tokens: Tokens, routes: list[BaseRoute]) -> Starlette:
    """The application.

    Args:
        pages: Renders templates.
        sessions: Who enters by a browser.
        tokens: Who enters by a token.
        routes: The pages.
    """

    async def enter(request: Request) -> Response:
        code = request.query_params.get("code", "")
        # A HEAD comes from a program that looks at links: it does not use the code up.
        cookie = sessions.enter(code) if code and request.method == "GET" else None
        if cookie is None:
            return pages.render(request, "enter.html", status=HTTPStatus.UNAUTHORIZED, tried=bool(code))
        response = RedirectResponse("/", HTTPStatus.SEE_OTHER, headers={"Cache-Control": "no-store"})
        response.set_cookie(COOKIE, cookie, max_age=LIFETIME_S, httponly=True, samesite="strict", path="/")
        return response

    async def leave(_request: Request) -> Response:
        response = RedirectResponse("/enter", HTTPStatus.SEE_OTHER)
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
        return response

    async def failed(request: Request, error: Exception) -> Response:
        status, message = explained(error)
        if not wants_page(request.headers) and "hx-request" not in request.headers:
            return JSONResponse({"error": message}, status)
        absent = isinstance(error, ServiceMissingError)
        title = "Not part of this stack" if absent else _TITLES.get(status, status.phrase)
        template = "_problem.html" if "hx-request" in request.headers else "error.html"
        return pages.render(
            request, template, status=status, title=title, message=message, code=0 if absent else int(status)
        )

    async def healthz(_request: Request) -> Response:
        return Response("alive\n", media_type="text/plain")

    return Starlette(
        routes=[
            Route("/enter", enter),
            Route("/leave", leave, methods=["POST"]),
            Route("/healthz", healthz),
            Mount("/static", _Static(directory=STATIC)),
            *routes,
        ],
        middleware=[Middleware(Gate, sessions=sessions, tokens=tokens)],
        exception_handlers={
            grpc.aio.AioRpcError: failed,
            KitError: failed,
            ServiceMissingError: failed,
            HTTPException: failed,
            HTTPStatus.INTERNAL_SERVER_ERROR: failed,
        },
    )


class _Static(StaticFiles):
    """Files that browsers ask about each time (304 when unchanged), so that a new version shows at once."""

    def file_response(self, *args: object, **values: object) -> Response:
        """One file."""
        response = super().file_response(*args, **values)  # type: ignore[arg-type] # handed through
        response.headers["Cache-Control"] = "no-cache"
        return response


async def form_of(request: Request) -> FormData:
    """The fields of a form, within limits."""
    return await request.form(max_files=0, max_fields=100, max_part_size=MAX_FORM_BYTES)


def field(form: FormData, name: str) -> str:
    """A text of a form; empty when it is missing."""
    value = form.get(name)
    return value.strip() if isinstance(value, str) else ""


def explained(error: Exception) -> tuple[HTTPStatus, str]:
    """Status and sentence for an error of whatever layer."""
    match error:
        case grpc.aio.AioRpcError():
            return _HTTP.get(error.code(), HTTPStatus.INTERNAL_SERVER_ERROR), str(from_rpc_error(error))
        case ServiceMissingError():
            return (
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"This page needs the service {error}, and the stack was started without it.",
            )
        case KitError():
            status = next((each for kind, each in _KIT.items() if isinstance(error, kind)), HTTPStatus.CONFLICT)
            return status, error.message
        case HTTPException(status_code=HTTPStatus.NOT_FOUND):
            return HTTPStatus.NOT_FOUND, "There is no such page."
        case HTTPException():
            return HTTPStatus(error.status_code), error.detail
        case _:
            return HTTPStatus.INTERNAL_SERVER_ERROR, "The gateway failed; its log says more: headrace logs gateway"
