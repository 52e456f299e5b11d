"""A service's gRPC server on a free port of loopback, with callers that have tokens.

::

    async with serving([(add_RegistryServiceServicer_to_server, servicer)]) as running:
        stub = RegistryServiceStub(running.channel())
        await stub.GetModel(GetModelRequest(name="projects/default/models/delays"))
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
import orjson

from headrace_kit.auth import OPERATOR, SERVICE, Tokens
from headrace_kit.rpc import Server, Servicer, channel
from headrace_kit.rpc.call import Clock, utc_now


@dataclass(frozen=True, slots=True)
class Caller:
    """Someone with a token."""

    principal: str
    token: str
    roles: tuple[str, ...]


OPERATOR_CALLER = Caller("persons/operator", "token-of-the-operator", (OPERATOR,))
SERVICE_CALLER = Caller("services/monitor", "token-of-the-monitor", (SERVICE,))


def write_tokens(path: Path, callers: Iterable[Caller]) -> Path:
    """Writes a tokens file, as ``HEADRACE_TOKENS_FILE`` names one."""
    entries = [
        {
            "sha256": hashlib.sha256(each.token.encode()).hexdigest(),
            "principal": each.principal,
            "roles": list(each.roles),
        }
        for each in callers
    ]
    path.write_bytes(orjson.dumps(entries))
    return path


@dataclass(slots=True)
class RunningServer:
    """A server that answers.

    Attributes:
        server: The server.
        address: ``host:port``.
    """

    server: Server
    address: str
    _channels: list[grpc.aio.Channel] = field(default_factory=list[grpc.aio.Channel])

    def channel(self, caller: Caller = OPERATOR_CALLER) -> grpc.aio.Channel:
        """A channel as services use it, with the token of a caller; closed at the end."""
        return self._kept(channel(self.address, caller.token))

    def bare_channel(self) -> grpc.aio.Channel:
        """A channel without token, deadline or retries; closed at the end."""
        return self._kept(grpc.aio.insecure_channel(self.address))

    def _kept(self, made: grpc.aio.Channel) -> grpc.aio.Channel:
        self._channels.append(made)
        return made

    async def close(self) -> None:
        """Closes the channels and stops the server."""
        for each in self._channels:
            await each.close()
        await self.server.drain(0)


@asynccontextmanager
async def serving(
    servicers: Sequence[Servicer],
    *,
    callers: Iterable[Caller] = (OPERATOR_CALLER, SERVICE_CALLER),
    clock: Clock = utc_now,
    name: str = "test",
) -> AsyncIterator[RunningServer]:
    """Serves on a free port of loopback until the block ends.

    Args:
        servicers: As for ``Server``.
        callers: Who may call.
        clock: The clock of ``command_context``.
        name: The process's name, in its metrics.
    """
    with TemporaryDirectory(prefix="headrace-tokens-") as folder:
        tokens = Tokens(write_tokens(Path(folder) / "tokens.json", callers))
        server = Server(name, listen="127.0.0.1:0", tokens=tokens, servicers=servicers, clock=clock)
        await server.start()
        await server.set_ready(ready=True)
        running = RunningServer(server, f"127.0.0.1:{server.port}")
        try:
            yield running
        finally:
            await running.close()
