"""The door of the console: who may pass, and that what changes something was meant by the person who entered."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace_gateway.sessions import COOKIE, Session, Sessions, same_token
from headrace_kit.auth import OPERATOR, Tokens, bearer
from headrace_kit.errors import KitError, Unavailable

OPEN: Final = ("/static/", "/enter", "/healthz", "/health", "/version")
"""Paths that need no session."""
API: Final = ("/api/", "/v1/", "/projects/", "/get-artifact", "/model-versions/get-artifact")
"""Paths for programs: a token of anybody's opens them and no cookie does, and the services say what its owner may."""
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""What every answer carries unless it says otherwise itself."""
MAX_FORM_BYTES: Final = 256 * 1024


class Gate:
    """Lets in whoever has a session, or an operator's token; a change by a session needs the session's CSRF token.

    Plain ASGI, so that streams pass without being copied.
    """

    def __init__(self, app: ASGIApp, *, sessions: Sessions, tokens: Tokens) -> None:
        self._app, self._sessions, self._tokens = app, sessions, tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body: bytes | None = None
        refusal: Response | None = None
        if scope["path"].startswith(API):
            refusal = self._unknown(Request(scope))
        elif not _is_open(scope["path"]):
            request = Request(scope, receive)
            refusal = self._stranger(request)
            if refusal is None and request.method not in ("GET", "HEAD"):
                body = await _body(receive)
                refusal = _forged(request, body)
        following = receive if body is None else _again(body, receive)
        await (refusal or self._app)(scope, following, _with_headers(send))

    def _unknown(self, request: Request) -> Response | None:
        """The answer to a program whose token is nobody's, in the form that MLflow's clients know; else None."""
        try:
            self._tokens.principal(bearer(request.headers.get("authorization", "")))
        except KitError as error:
            unavailable = isinstance(error, Unavailable)
            status = HTTPStatus.SERVICE_UNAVAILABLE if unavailable else HTTPStatus.UNAUTHORIZED
            code = "TEMPORARILY_UNAVAILABLE" if unavailable else "UNAUTHENTICATED"
            return JSONResponse({"error_code": code, "message": error.message, "reason": error.reason}, status)
        return None

    def _stranger(self, request: Request) -> Response | None:
        """Who it is goes into ``request.state.session``; the answer to whoever may not pass, else None."""
        if "authorization" in request.headers:
            try:
                principal = self._tokens.principal(bearer(request.headers["authorization"]))
            except KitError as error:
                return JSONResponse({"error": error.message, "reason": error.reason}, HTTPStatus.UNAUTHORIZED)
            if OPERATOR not in principal.roles:
                return JSONResponse({"error": "the console is for operators"}, HTTPStatus.FORBIDDEN)
            request.state.session = None
            return None
        session = self._sessions.session(request.cookies.get(COOKIE, ""))
        if session is not None:
            request.state.session = session
            return None
        if wants_page(request.headers):
            return RedirectResponse("/enter", HTTPStatus.SEE_OTHER)
        return JSONResponse({"error": "enter by the link `headrace up` prints"}, HTTPStatus.UNAUTHORIZED)


def wants_page(headers: Headers) -> bool:
    """Whether a person's browser asks for a whole page, not a program or a script of the page."""
    return "text/html" in headers.get("accept", "") and "hx-request" not in headers


def _is_open(path: str) -> bool:
    return any(path == each or (each.endswith("/") and path.startswith(each)) for each in OPEN)


def _forged(request: Request, body: bytes) -> Response | None:
    session: Session | None = request.state.session
    if len(body) > MAX_FORM_BYTES:
        return JSONResponse({"error": f"more than {MAX_FORM_BYTES} bytes"}, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    if session is None:
        return None
    given = request.headers.get("x-csrf-token", "") or _field(body, "csrf")
    if same_token(given, session.csrf):
        return None
    return JSONResponse({"error": "the form is too old: load the page again"}, HTTPStatus.FORBIDDEN)


def _field(body: bytes, name: str) -> str:
    """A field of a form as browsers send it by default; empty when it is missing."""
    try:
        return parse_qs(body.decode("ascii"), max_num_fields=100).get(name, [""])[0]
    except ValueError:
        return ""


async def _body(receive: Receive) -> bytes:
    """The whole body; reading ends after the first byte too many."""
    found = bytearray()
    while len(found) <= MAX_FORM_BYTES:
        message = await receive()
        if message["type"] != "http.request":
            break
        found += message.get("body", b"")
        if not message.get("more_body", False):
            break
    return bytes(found)


def _again(body: bytes, receive: Receive) -> Receive:
    given = False

    async def next_message() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return next_message


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending
