"""The gRPC server of a service: health, reflection, limits, drain."""
# grpc's generated functions each take a servicer of their own: inside this module Any is one.

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from headrace.channel import MAX_MESSAGE_BYTES
from headrace_kit.auth import Tokens
from headrace_kit.errors import Unavailable
from headrace_kit.rpc.call import Clock, utc_now
from headrace_kit.rpc.interceptor import CallInterceptor

OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # below the clients' keepalive of 15 s
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.keepalive_time_ms", 60_000),  # a client that vanished holds no stream for longer
)
MAX_CONCURRENT_CALLS: Final = 4000
"""Calls under way at once, streams included; more are answered RESOURCE_EXHAUSTED."""

Servicer = tuple[Callable[[Any, Any], None], object]
"""``(add_XServicer_to_server, servicer)``."""


class Server:
    """Answers gRPC on one address.

    Every call is authenticated (but health checks), bounded in time, traced, counted, and answered with a
    google.rpc.Status when it fails; a message that does not parse, or that holds NUL in a text, is INVALID_ARGUMENT.

    Args:
        name: Name of the process, such as ``registry``.
        listen: ``host:port``; port 0 takes a free one.
        tokens: Who may call.
        servicers: What is served.
        reuse_port: Lets several processes answer on one port. Otherwise a second one fails at once.
        clock: The clock of ``command_context``.

    Raises:
        Unavailable: the address can not be listened on.
    """

    def __init__(
        self,
        name: str,
        *,
        listen: str,
        tokens: Tokens,
        servicers: Sequence[Servicer],
        reuse_port: bool = False,
        clock: Clock = utc_now,
    ) -> None:
        self._calls = CallInterceptor(name, tokens, clock)
        self._server = grpc.aio.server(
            interceptors=[self._calls],
            options=[*OPTIONS, ("grpc.so_reuseport", int(reuse_port))],
            maximum_concurrent_rpcs=MAX_CONCURRENT_CALLS,
        )
        self._health: Any = getattr(health, "aio").HealthServicer()  # noqa: B009 - grpc_health does not list it as public
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = _Names(self._server)
        for add, servicer in servicers:
            add(servicer, names)
        offered = [*names.names, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(offered, self._server)
        try:
            self.port: int = self._server.add_insecure_port(listen)
            """The port that is listened on."""
        except RuntimeError as error:
            raise Unavailable(f"{listen} can not be listened on: is it taken?", reason="ADDRESS_IN_USE") from error
        self.services: Sequence[str] = tuple(names.names)
        """Full names of what is served."""
        self._ready: bool | None = None

    async def start(self) -> None:
        """Answers calls; health says NOT_SERVING until ``set_ready``."""
        await self.set_ready(ready=False)
        await self._server.start()

    async def set_ready(self, *, ready: bool) -> None:
        """Tells health checks whether to send calls here."""
        if ready is self._ready:
            return
        self._ready = ready
        states = health_pb2.HealthCheckResponse.ServingStatus
        for name in ("", *self.services):
            await self._health.set(name, states.SERVING if ready else states.NOT_SERVING)

    async def drain(self, grace_s: float) -> None:
        """Takes no more calls, ends streams, waits up to ``grace_s`` seconds for the rest, then stops."""
        await self.set_ready(ready=False)
        stopping = asyncio.ensure_future(self._server.stop(grace_s))
        await asyncio.sleep(0)  # it refuses new calls from here on
        self._calls.end_streams()
        await asyncio.shield(stopping)


class _Names:
    """Stands before a server while servicers are added, and notes their names for reflection."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server
        self.names: list[str] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        self._server.add_generic_rpc_handlers(tuple(handlers))

    def add_registered_method_handlers(self, name: str, handlers: Any) -> None:
        self.names.append(name)
        self._server.add_registered_method_handlers(name, handlers)
