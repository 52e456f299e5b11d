"""The Open Inference Protocol over REST: Starlette under uvicorn, thin over ``Inference`` and ``Router``."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Generator
from importlib.metadata import version
from typing import Any, Final

import orjson
import structlog
import uvicorn
from google.protobuf.json_format import MessageToDict
from starlette.applications import Starlette
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from headrace_kit import errors
from headrace_kit.auth import Tokens, bearer, set_principal
from headrace_serving import inference_rpc, json_codec
from headrace_serving.inference import Inference
from headrace_serving.router import Router

_log = structlog.get_logger(__name__)

MAX_BODY: Final = 64 * 1024 * 1024
DEADLINE_S: Final = 60.0
HEADER_LENGTH: Final = "Inference-Header-Content-Length"
_STATUS: Final[tuple[tuple[type[errors.KitError], int], ...]] = (
    (errors.InvalidArgument, 400),
    (errors.NotFound, 404),
    (errors.AlreadyExists, 409),
    (errors.FailedPrecondition, 412),
    (errors.Aborted, 409),
    (errors.PermissionDenied, 403),
    (errors.Unauthenticated, 401),
    (errors.ResourceExhausted, 429),
    (errors.Unavailable, 503),
    (errors.DeadlineExceeded, 504),
)
Answer = Callable[[Request], Awaitable[Response]]


class Rest:
    """The routes of the protocol.

    Args:
        inference: Answers inferences.
        router: Knows the models.
        tokens: Who may call.
    """

    def __init__(self, inference: Inference, router: Router, tokens: Tokens) -> None:
        self._inference, self._router, self._tokens = inference, router, tokens

    def application(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/v2", self._guarded(self._server)),
            Route("/v2/health/live", self._guarded(self._live)),
            Route("/v2/health/ready", self._guarded(self._live)),
            Route("/v2/repository/index", self._guarded(self._index), methods=["POST"]),
        ]
        register_url_convertor("endpoint", _EndpointConvertor())
        for model in ("{endpoint}", "{project}/{endpoint:endpoint}"):
            at = f"/v2/models/{model}"
            routes += [
                Route(f"/v2/repository/models/{model}/load", self._guarded(self._load), methods=["POST"]),
                Route(f"/v2/repository/models/{model}/unload", self._guarded(self._unload), methods=["POST"]),
            ]
            for path in (f"{at}/versions/{{version}}", at):
                routes += [
                    Route(f"{path}/infer", self._guarded(self._infer), methods=["POST"]),
                    Route(f"{path}/ready", self._guarded(self._ready)),
                    Route(path, self._guarded(self._metadata)),
                ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _http_error, Exception: _failed})

    def _guarded(self, answer: Answer) -> Answer:
        async def guarded(request: Request) -> Response:
            try:
                set_principal(self._tokens.principal(bearer(request.headers.get("authorization", ""))))
                async with asyncio.timeout(DEADLINE_S):
                    return await answer(request)
            except TimeoutError:
                return error_response(errors.DeadlineExceeded(f"not answered within {DEADLINE_S:g} s"))
            except errors.KitError as error:
                return error_response(error)

        return guarded

    async def _server(self, _request: Request) -> Response:
        return _json(
            {
                "name": inference_rpc.SERVER,
                "version": version("headrace-serving"),
                "extensions": list(inference_rpc.EXTENSIONS),
            }
        )

    async def _live(self, _request: Request) -> Response:
        return _json({"live": True, "ready": True})

    async def _ready(self, request: Request) -> Response:
        name, number = _model(request)
        self._router.choose(name, number, "")
        return _json({"name": name, "ready": True})

    async def _metadata(self, request: Request) -> Response:
        found = inference_rpc.metadata(self._router, *_model(request))
        tensors = {
            kind: [{"name": each.name, "datatype": each.datatype, "shape": list(each.shape)} for each in specs]
            for kind, specs in (("inputs", found.inputs), ("outputs", found.outputs))
        }
        head = {"name": found.name, "versions": list(found.versions), "platform": found.platform}
        return _json({**head, **tensors})

    async def _infer(self, request: Request) -> Response:
        name, number = _model(request)
        header = request.headers.get(HEADER_LENGTH)
        if header is not None and not (header.isascii() and header.isdecimal() and len(header) < 12):
            raise errors.InvalidArgument("give a number of bytes", field=HEADER_LENGTH)
        length = int(header) if header is not None else None
        body = json_codec.decode_request(await _body(request), model=name, version=number, header_length=length)
        content, json_length = json_codec.encode_response(await self._inference.infer(body.request), body)
        if json_length is None:
            return Response(content, media_type="application/json")
        return Response(content, media_type="application/octet-stream", headers={HEADER_LENGTH: str(json_length)})

    async def _index(self, request: Request) -> Response:
        content = await _body(request)
        try:
            document: Any = orjson.loads(content) if content else {}  # Any: what a JSON parser gives
        except orjson.JSONDecodeError as error:
            raise errors.InvalidArgument(f"the body is no JSON: {error}"[:300], field="body") from None
        ready = document.get("ready", False) if isinstance(document, dict) else None
        if not isinstance(ready, bool):
            raise errors.InvalidArgument('give {"ready": true} or {"ready": false}', field="ready")
        found = inference_rpc.index(self._router, ready=ready)
        return _json([MessageToDict(each, always_print_fields_with_no_presence=True) for each in found])

    async def _load(self, request: Request) -> Response:
        await self._router.reload(_model(request)[0])
        return _json({})

    async def _unload(self, request: Request) -> Response:
        self._router.unload(_model(request)[0])
        return _json({})


class _EndpointConvertor(StringConvertor):
    """The second part of ``project/endpoint``; not what the protocol has after a model's name."""

    regex = "(?!(?:infer|ready|load|unload)(?:/|$))[^/]+"


class RestServer:
    """Runs the application on one address; drains when its task is cancelled."""

    def __init__(self, application: Starlette, *, listen: str, drain_s: float) -> None:
        host, _, port = listen.rpartition(":")
        config = uvicorn.Config(
            application,
            host=host,
            port=int(port),
            loop="none",
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=max(int(drain_s) - 1, 1),
        )
        self._server = _Server(config)

    async def run(self) -> None:
        """Serves until cancelled, then lets requests under way end."""
        serving = asyncio.create_task(self._server.serve(), name="uvicorn")
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            self._server.should_exit = True
            await serving
            raise


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leaves signals to the application."""
        yield


def error_response(error: errors.KitError) -> Response:
    """The protocol's error, with reason and field beside it."""
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    headers: dict[str, str] = {}
    if isinstance(error, errors.ResourceExhausted):
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return _json(
        {"error": error.message[:2000], "reason": error.reason, "field": error.field}, status=status, headers=headers
    )


async def _body(request: Request) -> bytes:
    """The body, at most ``MAX_BODY`` bytes of it."""
    parts: list[bytes] = []
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > MAX_BODY:
                raise errors.InvalidArgument(
                    f"a body has at most {MAX_BODY} bytes", field="body", reason="BODY_TOO_LARGE"
                )
            parts.append(part)
    except ClientDisconnect:
        raise errors.InvalidArgument("the body ended early", field="body") from None
    return b"".join(parts)


def _model(request: Request) -> tuple[str, str]:
    """Name and version of the path."""
    found = request.path_params
    project, endpoint = found.get("project"), str(found["endpoint"])
    return (f"{project}/{endpoint}" if project else endpoint), str(found.get("version", ""))


def _json(content: object, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, "application/json")


async def _http_error(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = error.detail if isinstance(error, HTTPException) else "internal error"
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    return _json(
        {"error": detail, "reason": detail.upper().replace(" ", "_"), "field": ""}, status=status, headers=headers
    )


async def _failed(request: Request, error: Exception) -> Response:
    _log.error("rest_failed", path=request.url.path, exc_info=error)
    return error_response(errors.KitError("internal error; the service's log says more", reason="INTERNAL"))
