"""gRPC channels to the platform, with the caller's token, deadlines and retries.

Errors stay grpc's; ``with rpc_errors(): ...`` makes them the SDK's::

    connection = find()
    with connect("registry", connection) as channel, rpc_errors():
        model = RegistryServiceStub(channel).GetModel(GetModelRequest(name="projects/default/models/delays"))
"""
# grpc's interceptors and stubs of calls have no types worth having: inside this module Any is what they take and give.
# ruff: noqa: ANN401

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Self

import grpc
import orjson

from headrace.connection import Connection, find

MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
"""Largest message either side takes."""
DEFAULT_DEADLINE_S: Final = 30.0
"""What a call without a deadline of its own gets, unless its answer is a stream."""

_REPEATS: Final = orjson.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                # UNAVAILABLE alone: the call was not taken, or its command id makes the repeat harmless.
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            },
        ],
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
    }
).decode()

_CAUSES: Final = (
    ("HEADRACE_CAUSATION_ID", "headrace-causation-id"),
    ("HEADRACE_CORRELATION_ID", "headrace-correlation-id"),
    ("HEADRACE_ON_BEHALF_OF", "headrace-on-behalf-of"),
)

_EITHER: Final = (
    ("grpc.enable_http_proxy", 0),  # a company's proxy never knows the way to loopback
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 15_000),  # a half-open connection is found within 20 s
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # of all other pings: 60 s, and while one is under way no keepalive is sent
    ("grpc.keepalive_permit_without_calls", 1),
    # A service that was killed is back within two seconds; so is the channel.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
CALLS: Final[Sequence[tuple[str, Any]]] = (*_EITHER, ("grpc.service_config", _REPEATS), ("grpc.enable_retries", 1))
"""Options of a channel that repeats calls."""
STREAMS: Final[Sequence[tuple[str, Any]]] = (*_EITHER, ("grpc.enable_retries", 0))
"""Options of a channel that repeats nothing: whoever reads a stream begins again where he was.

gRPC 1.83 loses streams that it repeats: one that is begun while the service goes is neither answered nor failed, even
when no policy asks for repeats (it repeats of itself what the service did not see).
"""


def connect(
    service: str, connection: Connection | None = None, *, deadline_s: float = DEFAULT_DEADLINE_S
) -> grpc.Channel:
    """A channel to a service; the caller closes it. Nothing is sent before the first call.

    Args:
        service: ``tracking``, ``registry``, ``orchestrator``, ``serving`` or ``monitor``.
        connection: Where the platform is; found by ``find()`` when it is not given.
        deadline_s: What a call without a deadline of its own gets, unless its answer is a stream.

    Raises:
        NotConnected: no platform was found.
    """
    where = connection or find()
    return open_channel(where.address(service), where.token, deadline_s=deadline_s)


def open_channel(address: str, token: str, *, deadline_s: float = DEFAULT_DEADLINE_S) -> grpc.Channel:
    """A channel to an address.

    Args:
        address: ``host:port``.
        token: The caller's token; empty sends none.
        deadline_s: As for ``connect``.
    """
    return grpc.intercept_channel(_Channel(address), _Caller(token, deadline_s))


def _cause() -> Sequence[tuple[str, str]]:
    """The event that caused this process to run, as the worker of a pipeline step names it in the environment."""
    return tuple((key, value) for name, key in _CAUSES if (value := os.environ.get(name, "")))


class _Channel(grpc.Channel):
    """Two channels in one, since calls are repeated and streams are not. Each connects when it is first used."""

    def __init__(self, address: str) -> None:
        self._calls = grpc.insecure_channel(address, options=CALLS)
        self._streams = grpc.insecure_channel(address, options=STREAMS)

    def unary_unary(self, *method: Any, **given: Any) -> Any:
        return self._calls.unary_unary(*method, **given)

    def stream_unary(self, *method: Any, **given: Any) -> Any:
        return self._calls.stream_unary(*method, **given)

    def unary_stream(self, *method: Any, **given: Any) -> Any:
        return self._streams.unary_stream(*method, **given)

    def stream_stream(self, *method: Any, **given: Any) -> Any:
        return self._streams.stream_stream(*method, **given)

    def subscribe(
        self,
        callback: Callable[[grpc.ChannelConnectivity], None],
        try_to_connect: bool = False,  # noqa: FBT001, FBT002 - grpc's own signature
    ) -> None:
        self._calls.subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        self._calls.unsubscribe(callback)

    def close(self) -> None:
        self._calls.close()
        self._streams.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _CallDetails(NamedTuple):
    method: str
    timeout: float | None
    metadata: Sequence[tuple[str, str | bytes]]
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: Any


class _Caller(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Adds the token, a deadline, and what caused the calls of this process."""

    def __init__(self, token: str, deadline_s: float) -> None:
        own = (("authorization", f"Bearer {token}"),) if token else ()
        self._headers = (*own, *_cause())
        self._deadline_s = deadline_s

    def intercept_unary_unary(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        return continuation(self._detailed(client_call_details, self._deadline_s), request)

    def intercept_unary_stream(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        return continuation(self._detailed(client_call_details, None), request)

    def intercept_stream_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any
    ) -> Any:
        return continuation(self._detailed(client_call_details, self._deadline_s), request_iterator)

    def intercept_stream_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any
    ) -> Any:
        return continuation(self._detailed(client_call_details, None), request_iterator)

    def _detailed(self, details: Any, deadline_s: float | None) -> _CallDetails:
        return _CallDetails(
            method=details.method,
            timeout=details.timeout if details.timeout is not None else deadline_s,
            metadata=(*(details.metadata or ()), *self._headers),
            credentials=details.credentials,
            wait_for_ready=details.wait_for_ready,
            compression=details.compression,
        )
