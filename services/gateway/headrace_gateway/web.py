"""The web application: who may enter, what errors look like, which headers every answer carries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Final

import grpc
from starlette.applications import Starlette
from starlette.datastructures import FormData
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from headrace.errors import from_rpc_error
from headrace_gateway.pages import Pages
from headrace_gateway.platform import Platform, ServiceMissingError
from headrace_gateway.sessions import COOKIE, LIFETIME_S, Session, Sessions, same_token
from headrace_kit.auth import Tokens, bearer
from headrace_kit.errors import InvalidArgument, KitError, Unauthenticated

STATIC: Final = Path(__file__).parent / "static"
OPEN: Final = ("/static/", "/enter", "/healthz")
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none';"
        " base-uri 'none'; form-action 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
MAX_FORM_BYTES: Final = 256 * 1024
_HTTP: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: HTTPStatus.CONFLICT,
    grpc.StatusCode.FAILED_PRECONDITION: HTTPStatus.CONFLICT,
    grpc.StatusCode.ABORTED: HTTPStatus.CONFLICT,
    grpc.StatusCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    grpc.StatusCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    grpc.StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
}

Next = Callable[[Request], Awaitable[Response]]


class Gate(BaseHTTPMiddleware):
    """Lets in whoever has a session or a token, and checks the CSRF token of what changes something."""

    def __init__(self, app: Starlette, *, sessions: Sessions, tokens: Tokens) -> None:
        super().__init__(app)
        self._sessions, self._tokens = sessions, tokens

    async def dispatch(self, request: Request, call_next: Next) -> Response:
        """One request."""
        refusal = None if request.url.path.startswith(OPEN) else await self._refusal(request)
        response = refusal or await call_next(request)
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    async def _refusal(self, request: Request) -> Response | None:
        if "authorization" in request.headers:
            try:
                self._tokens.principal(bearer(request.headers["authorization"]))
            except Unauthenticated as error:
                return JSONResponse({"error": error.message, "reason": error.reason}, HTTPStatus.UNAUTHORIZED)
            request.state.session = Session("token", "")
            return None
        session = self._sessions.session(request.cookies.get(COOKIE, ""))
        if session is None:
            if request.headers.get("accept", "").startswith("text/html"):
                return RedirectResponse("/enter", HTTPStatus.SEE_OTHER)
            return JSONResponse({"error": "enter by the link `headrace up` prints"}, HTTPStatus.UNAUTHORIZED)
        request.state.session = session
        if request.method not in ("GET", "HEAD") and not await _csrf_right(request, session):
            return JSONResponse({"error": "the form is too old: load the page again"}, HTTPStatus.FORBIDDEN)
        return None


def build_web(
    platform: Platform, pages: Pages, *, sessions: Sessions, tokens: Tokens, routes: list[BaseRoute]
) -> Starlette:
    """The application.

    Args:
        platform: The services, closed by whoever made it.
        pages: Renders templates.
        sessions: Who enters by a browser.
        tokens: Who enters by a token.
        routes: The pages.
    """

    async def enter(request: Request) -> Response:
        code = request.query_params.get("code", "")
        cookie = sessions.enter(code) if code else None
        if cookie is None:
            return pages.render(request, "enter.html", status=HTTPStatus.UNAUTHORIZED, tried=bool(code))
        response = RedirectResponse("/", HTTPStatus.SEE_OTHER)
        response.set_cookie(COOKIE, cookie, max_age=LIFETIME_S, httponly=True, samesite="strict", path="/")
        return response

    async def failed(request: Request, error: Exception) -> Response:
        status, title, message = _explained(error)
        if not request.headers.get("accept", "").startswith("text/html") and "hx-request" not in request.headers:
            return JSONResponse({"error": message}, status)
        return pages.render(request, "error.html", status=status, title=title, message=message)

    async def missing(request: Request, _error: Exception) -> Response:
        return await failed(request, InvalidArgument(f"there is no page {request.url.path}"))

    async def healthz(_request: Request) -> Response:
        return Response("alive\n", media_type="text/plain")

    return Starlette(
        routes=[
            Route("/enter", enter),
            Route("/healthz", healthz),
            Mount("/static", StaticFiles(directory=STATIC)),
            *routes,
        ],
        middleware=[Middleware(Gate, sessions=sessions, tokens=tokens)],
        exception_handlers={
            grpc.aio.AioRpcError: failed,
            KitError: failed,
            ServiceMissingError: failed,
            HTTPStatus.NOT_FOUND: missing,
        },
    )


async def form_of(request: Request) -> FormData:
    """The fields of a form, within limits."""
    return await request.form(max_files=0, max_fields=100, max_part_size=MAX_FORM_BYTES)


def field(form: FormData, name: str) -> str:
    """A text of a form; empty when it is missing."""
    value = form.get(name)
    return value.strip() if isinstance(value, str) else ""


async def _csrf_right(request: Request, session: Session) -> bool:
    given = request.headers.get("x-csrf-token", "")
    if not given:
        body = await request.body()
        if len(body) > MAX_FORM_BYTES:
            return False
        given = field(await form_of(request), "csrf")
    return same_token(given, session.csrf)


def _explained(error: Exception) -> tuple[HTTPStatus, str, str]:
    match error:
        case grpc.aio.AioRpcError():
            known = from_rpc_error(error)
            status = _HTTP.get(error.code(), HTTPStatus.INTERNAL_SERVER_ERROR)
            return status, status.phrase, str(known)
        case ServiceMissingError():
            return HTTPStatus.SERVICE_UNAVAILABLE, "Not running", f"the service {error} does not run here"
        case KitError():
            return HTTPStatus.NOT_FOUND, "Not found", error.message
        case _:
            return HTTPStatus.INTERNAL_SERVER_ERROR, "Failed", "the gateway's log says more"
