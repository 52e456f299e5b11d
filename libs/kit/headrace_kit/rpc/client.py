"""Calls from one service to another: token, cause, trace, deadline, retries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import grpc
import orjson
from grpc.aio import ClientCallDetails, UnaryStreamClientInterceptor, UnaryUnaryClientInterceptor
from opentelemetry.propagate import inject

from headrace_kit.rpc.server import MAX_MESSAGE_BYTES

DEFAULT_DEADLINE_S: Final = 10.0
_RETRY: Final = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
}


def channel(address: str, token: Callable[[], str] | str) -> grpc.aio.Channel:
    """A channel to another service. Unary calls without a deadline get ``DEFAULT_DEADLINE_S``.

    Args:
        address: ``host:port``.
        token: This service's token, or what reads it.
    """
    read = token if callable(token) else lambda: token
    options = (
        ("grpc.service_config", orjson.dumps(_RETRY).decode()),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
    )
    interceptors = [_UnaryInterceptor(read), _StreamInterceptor(read)]
    return grpc.aio.insecure_channel(address, options=options, interceptors=interceptors)


class _UnaryInterceptor(UnaryUnaryClientInterceptor):
    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:  # Any: grpc's
        return await continuation(_detailed(client_call_details, self._token(), DEFAULT_DEADLINE_S), request)


class _StreamInterceptor(UnaryStreamClientInterceptor):
    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    async def intercept_unary_stream(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:  # Any: grpc's
        return await continuation(_detailed(client_call_details, self._token(), None), request)


def _detailed(details: Any, token: str, deadline_s: float | None) -> ClientCallDetails:  # Any: grpc's
    carrier: dict[str, str] = {}
    inject(carrier)
    metadata = grpc.aio.Metadata(*(details.metadata or ()))
    metadata.add("authorization", f"Bearer {token}")
    for key, value in carrier.items():
        metadata.add(key, value)
    return ClientCallDetails(
        method=details.method,
        timeout=details.timeout if details.timeout is not None else deadline_s,
        metadata=metadata,
        credentials=details.credentials,
        wait_for_ready=details.wait_for_ready,
    )
