"""Calls from one service to another: token, cause, trace, deadline, retries."""
# grpc's interceptors have no types worth having: inside this module Any is what they take and give.

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Self

import grpc
from grpc.aio import (
    ClientCallDetails,
    ClientInterceptor,
    Metadata,
    StreamStreamClientInterceptor,
    StreamUnaryClientInterceptor,
    UnaryStreamClientInterceptor,
    UnaryUnaryClientInterceptor,
)

from headrace.channel import CALLS, STREAMS
from headrace_kit.rpc.call import outgoing_metadata
from headrace_kit.tracing import traceparent

DEFAULT_DEADLINE_S: Final = 10.0
"""What a call without a deadline of its own gets, unless its answer is a stream."""


def channel(
    address: str, token: Callable[[], str] | str, *, deadline_s: float = DEFAULT_DEADLINE_S
) -> grpc.aio.Channel:
    """A channel to another service; UNAVAILABLE is retried, up to four attempts, unless the answer is a stream.

    Calls carry this process's token, the trace, and their cause: that of ``causing``, else that of the call being
    answered. Metadata given with a call go before.

    Args:
        address: ``host:port``.
        token: This process's token, or what reads it.
        deadline_s: What a call without a deadline of its own gets, unless its answer is a stream.
    """
    call = _Outgoing(token if callable(token) else lambda: token)
    interceptors: list[ClientInterceptor] = [
        _UnaryUnary(call, deadline_s),
        _UnaryStream(call, None),
        _StreamUnary(call, deadline_s),
        _StreamStream(call, None),
    ]
    return _Channel(address, interceptors)


class _Channel(grpc.aio.Channel):
    """Two channels in one, since calls are repeated and streams are not. Each connects when it is first used."""

    def __init__(self, address: str, interceptors: list[ClientInterceptor]) -> None:
        self._calls = grpc.aio.insecure_channel(address, options=list(CALLS), interceptors=interceptors)
        self._streams = grpc.aio.insecure_channel(address, options=list(STREAMS), interceptors=interceptors)

    def unary_unary(self, *method: Any, **given: Any) -> Any:
        return self._calls.unary_unary(*method, **given)

    def stream_unary(self, *method: Any, **given: Any) -> Any:
        return self._calls.stream_unary(*method, **given)

    def unary_stream(self, *method: Any, **given: Any) -> Any:
        return self._streams.unary_stream(*method, **given)

    def stream_stream(self, *method: Any, **given: Any) -> Any:
        return self._streams.stream_stream(*method, **given)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002 - grpc's own
        return self._calls.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._calls.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._calls.channel_ready()

    async def close(self, grace: float | None = None) -> None:
        await self._calls.close(grace)
        await self._streams.close(grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Outgoing:
    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    def detailed(self, details: Any, deadline_s: float | None) -> ClientCallDetails:
        metadata: Any = Metadata(*(details.metadata or ()))
        if "authorization" not in metadata:
            metadata.add("authorization", f"Bearer {self._token()}")
        for key, value in (("traceparent", traceparent()), *outgoing_metadata()):
            if value and key not in metadata:
                metadata.add(key, value)
        return ClientCallDetails(
            method=details.method,
            timeout=details.timeout if details.timeout is not None else deadline_s,
            metadata=metadata,
            credentials=details.credentials,
            wait_for_ready=details.wait_for_ready,
        )


class _Interceptor:
    def __init__(self, call: _Outgoing, deadline_s: float | None) -> None:
        self._call, self._deadline_s = call, deadline_s

    def _detailed(self, details: Any) -> ClientCallDetails:
        return self._call.detailed(details, self._deadline_s)


class _UnaryUnary(_Interceptor, UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(self._detailed(client_call_details), request)


class _UnaryStream(_Interceptor, UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(self._detailed(client_call_details), request)


class _StreamUnary(_Interceptor, StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await continuation(self._detailed(client_call_details), request_iterator)


class _StreamStream(_Interceptor, StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await continuation(self._detailed(client_call_details), request_iterator)
