"""What happens around every call: authentication, deadline, trace, metrics, log line, errors."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

import grpc
import structlog
from google.protobuf.message import DecodeError
from grpc.aio import ServerInterceptor
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.propagate import extract

from headrace_kit import metrics
from headrace_kit.auth import Tokens, bearer, set_principal
from headrace_kit.errors import DeadlineExceeded, InvalidArgument, KitError
from headrace_kit.rpc.call import set_metadata
from headrace_kit.rpc.status import rich_status, status_code

_log = structlog.get_logger(__name__)
_tracer = trace.get_tracer("headrace.rpc")

OPEN_SERVICES: Final = ("grpc.health.v1.Health",)
"""Services that answer without a token: they say nothing but whether they serve."""
MAX_DEADLINE_S: Final = 60.0
"""Most a unary call may take, and what it gets when it names no deadline."""

Context = grpc.aio.ServicerContext[Any, Any]  # Any: the messages of whichever method


class CallInterceptor(ServerInterceptor):
    """Wraps every handler of a server.

    Args:
        service: Name of the process, for metrics.
        tokens: Who may call.
    """

    def __init__(self, service: str, tokens: Tokens) -> None:
        self._service, self._tokens = service, tokens

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Called by grpc once a call."""
        handler = await continuation(handler_call_details)
        if handler is None:  # an unknown method: grpc answers UNIMPLEMENTED
            return handler
        name = str(handler_call_details.method)
        if name.strip("/").partition("/")[0] in OPEN_SERVICES:
            return handler
        given = handler_call_details.invocation_metadata or ()
        metadata = {key: value if isinstance(value, str) else "" for key, value in given}
        return self._wrapped(handler, name, metadata)

    def _wrapped(
        self, handler: grpc.RpcMethodHandler[Any, Any], method: str, metadata: Mapping[str, str]
    ) -> grpc.RpcMethodHandler[Any, Any]:
        # Any: the four shapes of a handler are known to grpc only.
        raw: Any = handler
        codec = {"request_deserializer": raw.request_deserializer, "response_serializer": raw.response_serializer}
        if raw.unary_unary:
            return grpc.unary_unary_rpc_method_handler(self._unary(raw.unary_unary, method, metadata), **codec)
        if raw.stream_unary:
            return grpc.stream_unary_rpc_method_handler(self._unary(raw.stream_unary, method, metadata), **codec)
        if raw.unary_stream:
            return grpc.unary_stream_rpc_method_handler(self._stream(raw.unary_stream, method, metadata), **codec)
        return grpc.stream_stream_rpc_method_handler(self._stream(raw.stream_stream, method, metadata), **codec)

    def _unary(self, behaviour: Any, method: str, metadata: Mapping[str, str]) -> Any:  # Any: see _wrapped
        async def answer(request: Any, context: Context) -> Any:
            call = _Call(self._service, method, metadata)
            try:
                with call:
                    call.authenticate(self._tokens)
                    async with asyncio.timeout(min(context.time_remaining() or MAX_DEADLINE_S, MAX_DEADLINE_S)):
                        return await behaviour(request, context)
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a status and no stack trace
                await call.abort(context, error)

        return answer

    def _stream(self, behaviour: Any, method: str, metadata: Mapping[str, str]) -> Any:  # Any: see _wrapped
        async def answer(request: Any, context: Context) -> AsyncIterator[Any]:
            call = _Call(self._service, method, metadata)
            try:
                with call:
                    call.authenticate(self._tokens)
                    async for response in behaviour(request, context):
                        yield response
            except Exception as error:  # noqa: BLE001 - as above
                await call.abort(context, error)

        return answer


class _Call:
    """One call being answered: its span, its metrics, its log line."""

    def __init__(self, service: str, method: str, metadata: Mapping[str, str]) -> None:
        self._service, self._method, self._metadata = service, method, metadata
        self._code = grpc.StatusCode.OK
        self._principal = ""

    def __enter__(self) -> None:
        self._began = time.perf_counter()
        self._token = otel_context.attach(extract(self._metadata))
        self._span = _tracer.start_span(self._method, kind=trace.SpanKind.SERVER)
        self._span_token = otel_context.attach(trace.set_span_in_context(self._span))
        set_metadata(self._metadata)
        metrics.RPC_IN_FLIGHT.labels(self._service).inc()

    def __exit__(self, kind: object, error: BaseException | None, trace_back: object) -> None:
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            self._code = grpc.StatusCode.CANCELLED
        elif isinstance(error, Exception):
            self._code = status_code(as_kit_error(error))
        taken = time.perf_counter() - self._began
        metrics.RPC_IN_FLIGHT.labels(self._service).dec()
        metrics.RPC_SECONDS.labels(self._service, self._method).observe(taken)
        metrics.RPC_HANDLED.labels(self._service, self._method, self._code.name).inc()
        self._span.set_attribute("rpc.grpc.status_code", self._code.value[0])
        self._span.end()
        for token in (self._span_token, self._token):
            try:
                otel_context.detach(token)
            except ValueError:  # a stream that was closed from another task
                break
        _log.debug(
            "rpc", method=self._method, code=self._code.name, principal=self._principal, ms=round(taken * 1e3, 2)
        )

    def authenticate(self, tokens: Tokens) -> None:
        principal = tokens.principal(bearer(self._metadata.get("authorization", "")))
        self._principal = principal.id
        set_principal(principal)

    async def abort(self, context: Context, error: Exception) -> None:
        if isinstance(error, grpc.aio.AbortError):
            raise error
        known = as_kit_error(error)
        if status_code(known) is grpc.StatusCode.INTERNAL:
            _log.error("rpc_failed", method=self._method, exc_info=error)
        status = rich_status(known)
        details = ("grpc-status-details-bin", status.SerializeToString())
        await context.abort(status_code(known), known.message[:2000], trailing_metadata=(details,))


def as_kit_error(error: Exception) -> KitError:
    """The error as one of the kit's; a fault of the program itself says nothing of its inside."""
    match error:
        case KitError():
            return error
        case TimeoutError():
            return DeadlineExceeded("the deadline passed; repeat with the same command id")
        case DecodeError() | UnicodeError():
            return InvalidArgument("a message can not be read")
        case _:
            return KitError("internal error; the service's log says more", reason="INTERNAL")
