"""What happens around every call: authentication, deadline, trace, metrics, log line, errors."""
# grpc's handlers come in four shapes that only grpc knows: inside this module Any is one, a request or a response.

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

import grpc
import structlog
from grpc.aio import ServerInterceptor
from opentelemetry import context as otel_context
from opentelemetry import trace

from headrace_kit import metrics
from headrace_kit.auth import Tokens, bearer, set_principal, set_seal_key
from headrace_kit.errors import KitError, Unavailable
from headrace_kit.rpc.call import Clock, set_metadata, utc_now
from headrace_kit.rpc.guard import lenient, require_sound
from headrace_kit.rpc.status import as_kit_error, bounded, rich_status, status_code
from headrace_kit.tracing import parent_of, start_server_span

_log = structlog.get_logger(__name__)

OPEN_SERVICES: Final = ("grpc.health.v1.Health",)
"""Services that answer without a token: they say nothing but whether they serve."""
DEFAULT_DEADLINE_S: Final = 60.0
"""What a unary call gets when it names no deadline."""
MAX_DEADLINE_S: Final = 600.0
"""Most a unary call may take."""
DETAILS_KEY: Final = "grpc-status-details-bin"

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class CallInterceptor(ServerInterceptor):
    """Wraps every handler of a server.

    Args:
        service: Name of the process, for metrics.
        tokens: Who may call.
        clock: The clock of ``command_context``.
    """

    def __init__(self, service: str, tokens: Tokens, clock: Clock = utc_now) -> None:
        self._service, self._tokens, self._clock = service, tokens, clock
        self._handlers: dict[str, Handler] = {}
        self._streams: set[asyncio.Task[Any]] = set()
        self._draining = False

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Called by grpc once a call."""
        method = str(handler_call_details.method)
        known = self._handlers.get(method)
        if known is not None:
            return known
        handler = await continuation(handler_call_details)
        if handler is None:  # an unknown method: grpc answers UNIMPLEMENTED
            return handler
        open_to_all = method.strip("/").partition("/")[0] in OPEN_SERVICES
        self._handlers[method] = handler if open_to_all else self._wrapped(handler, _Method(self._service, method))
        return self._handlers[method]

    def end_streams(self) -> None:
        """Ends streamed answers with UNAVAILABLE, since they may have no end of their own. Clients come again."""
        self._draining = True
        for task in self._streams:
            task.cancel()

    def _wrapped(self, handler: Handler, method: _Method) -> Handler:
        raw: Any = handler
        codec: Any = {
            "request_deserializer": lenient(raw.request_deserializer),
            "response_serializer": raw.response_serializer,
        }
        if raw.unary_unary:
            return grpc.unary_unary_rpc_method_handler(self._unary(raw.unary_unary, method), **codec)
        if raw.stream_unary:
            return grpc.stream_unary_rpc_method_handler(self._unary(_sound(raw.stream_unary), method), **codec)
        if raw.unary_stream:
            return grpc.unary_stream_rpc_method_handler(self._stream(raw.unary_stream, method), **codec)
        return grpc.stream_stream_rpc_method_handler(self._stream(_sound(raw.stream_stream), method), **codec)

    def _unary(self, behaviour: Any, method: _Method) -> Any:
        async def answer(request: Any, context: Context) -> Any:
            call = _Call(method, context)
            try:
                with call:
                    self._admit(call)
                    require_sound(request)
                    async with asyncio.timeout(_deadline_s(context)):
                        return await behaviour(request, context)
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a status and no stack trace
                await call.abort(context, error)

        return answer

    def _stream(self, behaviour: Any, method: _Method) -> Any:
        async def answer(request: Any, context: Context) -> AsyncIterator[Any]:
            call, task = _Call(method, context), asyncio.current_task()
            try:
                with call:
                    self._admit(call)
                    require_sound(request)
                    async for response in self._until_drained(behaviour(request, context), task):
                        yield response
            except Exception as error:  # noqa: BLE001 - as above
                await call.abort(context, error)

        return answer

    async def _until_drained(self, responses: AsyncIterator[Any], task: asyncio.Task[Any] | None) -> AsyncIterator[Any]:
        if task is not None:
            self._streams.add(task)
        try:
            async for response in responses:
                yield response
        except asyncio.CancelledError:
            if not self._draining or task is None:
                raise
            task.uncancel()
            raise Unavailable("the service is stopping; call again", reason="DRAINING") from None
        finally:
            if task is not None:
                self._streams.discard(task)

    def _admit(self, call: _Call) -> None:
        set_metadata(call.metadata, self._clock, method=call.method)
        call.authenticate(self._tokens)


class _Method:
    """A method and its metrics."""

    def __init__(self, service: str, name: str) -> None:
        self.service, self.name = service, name
        self.seconds = metrics.RPC_SECONDS.labels(service, name)
        self.in_flight = metrics.RPC_IN_FLIGHT.labels(service)

    def handled(self, code: grpc.StatusCode) -> None:
        metrics.RPC_HANDLED.labels(self.service, self.name, code.name).inc()


class _Call:
    """One call being answered, in a task of its own: its span, its metrics, its log line."""

    def __init__(self, method: _Method, context: Context) -> None:
        given = context.invocation_metadata() or ()
        self.metadata: Mapping[str, str] = {key: value for key, value in given if isinstance(value, str)}
        self._method = method
        self._principal = ""

    @property
    def method(self) -> str:
        return self._method.name

    def __enter__(self) -> None:
        self._began = time.perf_counter()
        self._span = start_server_span(self._method.name, parent_of(self.metadata))
        # Nothing is detached at the end: the task ends with the call, and its context with it.
        otel_context.attach(trace.set_span_in_context(self._span))
        structlog.contextvars.bind_contextvars(method=self._method.name)
        self._method.in_flight.inc()

    def __exit__(self, kind: object, error: BaseException | None, trace_back: object) -> None:
        code, reason = grpc.StatusCode.OK, ""
        if isinstance(error, Exception):
            known = as_kit_error(error)
            code, reason = status_code(known), known.reason
        elif error is not None:
            code = grpc.StatusCode.CANCELLED
        taken = time.perf_counter() - self._began
        self._method.in_flight.dec()
        self._method.seconds.observe(taken)
        self._method.handled(code)
        self._span.set_attribute("rpc.grpc.status_code", code.value[0])
        self._span.end()
        write = _log.info if reason else _log.debug
        write("rpc", code=code.name, reason=reason, ms=round(taken * 1e3, 2))

    def authenticate(self, tokens: Tokens) -> None:
        principal = tokens.principal(bearer(self.metadata.get("authorization", "")))
        structlog.contextvars.bind_contextvars(principal=principal.id)
        set_principal(principal)
        set_seal_key(tokens.seal_key)

    async def abort(self, context: Context, error: Exception) -> None:
        """Answers with the error's status. Raises, as grpc's abort does."""
        if isinstance(error, grpc.aio.AbortError):
            raise error
        known: KitError = as_kit_error(error)
        if status_code(known) is grpc.StatusCode.INTERNAL:
            _log.error("rpc_failed", exc_info=error)
        details = ((DETAILS_KEY, rich_status(known).SerializeToString()),)
        await context.abort(status_code(known), bounded(known.message), trailing_metadata=details)


def _deadline_s(context: Context) -> float:
    remaining: Any = context.time_remaining()  # None where the caller gave none, whatever its type says
    return DEFAULT_DEADLINE_S if remaining is None else min(remaining, MAX_DEADLINE_S)


def _sound(behaviour: Any) -> Any:
    """The behaviour of a method with streamed requests, each of which is checked as it comes."""

    async def requests(given: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in given:
            require_sound(request)
            yield request

    def answer(given: AsyncIterator[Any], context: Context) -> Any:
        return behaviour(requests(given), context)

    return answer
