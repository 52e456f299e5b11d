"""The gRPC server of a service: health, reflection, limits, drain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from headrace_kit.auth import Tokens
from headrace_kit.rpc.interceptor import CallInterceptor

MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.so_reuseport", 0),  # two processes on one port by mistake must fail loudly
)

Servicer = tuple[Callable[[Any, Any], None], object]  # Any: each generated function has its own servicer
"""``(add_XServicer_to_server, servicer)``."""


class Server:
    """Answers gRPC on one address.

    Args:
        name: Name of the process, such as ``registry``.
        listen: ``host:port``; port 0 takes a free one.
        tokens: Who may call.
        servicers: What is served.
    """

    def __init__(self, name: str, *, listen: str, tokens: Tokens, servicers: Sequence[Servicer]) -> None:
        self._server = grpc.aio.server(interceptors=[CallInterceptor(name, tokens)], options=OPTIONS)
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = _Names(self._server)
        for add, servicer in servicers:
            add(servicer, names)
        offered = [*names.names, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(offered, self._server)
        self.port = self._server.add_insecure_port(listen)
        """The port that is listened on."""

    async def start(self) -> None:
        """Answers calls; health says NOT_SERVING until ``set_ready``."""
        await self.set_ready(ready=False)
        await self._server.start()

    async def set_ready(self, *, ready: bool) -> None:
        """Tells health checks whether to send calls here."""
        states = health_pb2.HealthCheckResponse.ServingStatus
        await self._health.set("", states.SERVING if ready else states.NOT_SERVING)

    async def drain(self, grace_s: float) -> None:
        """Takes no more calls, waits for those under way, then stops."""
        await self.set_ready(ready=False)
        await asyncio.shield(self._server.stop(grace_s))


class _Names:
    """Stands before a server while servicers are added, and notes their names for reflection."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server
        self.names: list[str] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:  # Any: grpc's generic handlers
        self._server.add_generic_rpc_handlers(tuple(handlers))

    def add_registered_method_handlers(self, name: str, handlers: Any) -> None:  # Any: as above
        self.names.append(name)
        self._server.add_registered_method_handlers(name, handlers)
