"""A TCP proxy that makes a bad network of loopback.

::

    proxy = FaultProxy("127.0.0.1", 5432)
    await proxy.start()
    ...                                            # clients connect to proxy.address
    proxy.conditions = Conditions(latency_s=0.05, jitter_s=0.1, bytes_per_s=64_000)
    proxy.conditions = Conditions(silent=True)     # a black hole: connections stay, and nothing passes
    proxy.reset()                                  # every connection ends by RST
    proxy.forsake("client")                        # the server's end is gone, and the client learns nothing of it
    await proxy.stop()

At most ``QUEUED_CHUNKS`` of ``CHUNK_BYTES`` are under way in one direction of a connection, so a slow link pushes back
on its sender as a real one does.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

CHUNK_BYTES: Final = 16 * 1024
QUEUED_CHUNKS: Final = 64
_LOOK_S: Final = 0.01

Side = Literal["client", "server"]


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the network does to all connections, those of today and those to come. Without faults unless told.

    Attributes:
        latency_s: How long each chunk is under way, one way.
        jitter_s: Further delay of a chunk, uniform from 0; their order stays.
        bytes_per_s: What one direction of one connection carries; no limit when None.
        resets: Chance, 0 to 1, that a chunk is lost and its connection reset instead.
        silent: Nothing passes, nobody is told; what was under way arrives when it is over.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float | None = None
    resets: float = 0.0
    silent: bool = False


class FaultProxy:
    """Listens on a free port of loopback and passes everything on to a target. For one event loop.

    ``conditions`` may be set at any time, from any thread.

    Args:
        host: Host of the target.
        port: Port of the target; may be set later, before the first connection.
        seed: Of the dice.
    """

    def __init__(self, host: str, port: int, *, seed: int = 0) -> None:
        self.target = (host, port)
        self.conditions = Conditions()
        self.accepted = 0
        """Connections so far."""
        self.resets = 0
        """Connections reset so far, by the dice or by ``reset``."""
        self.port = 0
        """Where it listens, once started."""
        self._chance = random.Random(seed)  # noqa: S311 - faults to be repeated, not secrets
        self._links: set[_Link] = set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """``host:port`` for clients."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listens."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=CHUNK_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Ends every connection and stops listening."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def reset(self) -> None:
        """Ends all connections of today by RST, at both ends."""
        for link in list(self._links):
            self.resets += 1
            link.reset()

    def forsake(self, side: Side) -> None:
        """Leaves one end of all connections of today half-open: it stays, and hears no more; the other end is reset."""
        for link in list(self._links):
            link.forsake(side)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("a connection is served by a task")
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # an end that went away, or the proxy does
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self.target, limit=CHUNK_BYTES)
        link = _Link(writer, server_writer)
        link.ways = [
            asyncio.ensure_future(self._pass(link, reader, server_writer)),
            asyncio.ensure_future(self._pass(link, server_reader, writer)),
        ]
        self._links.add(link)
        try:
            await asyncio.wait(link.ways, return_when=asyncio.FIRST_EXCEPTION)
            if link.forsaken:
                await asyncio.Event().wait()  # until the proxy stops
        finally:
            self._links.discard(link)
            server_writer.transport.abort()  # before anything is waited for: that may be cancelled once more
            for way in link.ways:
                way.cancel()
            await asyncio.gather(*link.ways, return_exceptions=True)

    async def _pass(self, link: _Link, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        """One direction of a connection, until its source ends."""
        under_way: asyncio.Queue[_Chunk | None] = asyncio.Queue(QUEUED_CHUNKS)
        feeding = asyncio.ensure_future(self._feed(under_way, source))
        try:
            while (chunk := await under_way.get()) is not None:
                await self._arrive(chunk.due)
                if self._chance.random() < self.conditions.resets:
                    self.resets += 1
                    link.reset()
                    return
                target.write(chunk.data)
                await target.drain()
            if target.can_write_eof():
                target.write_eof()
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)

    async def _feed(self, under_way: asyncio.Queue[_Chunk | None], source: asyncio.StreamReader) -> None:
        loop = asyncio.get_running_loop()
        due = 0.0
        with suppress(OSError):  # a source that was reset has ended
            while data := await source.read(CHUNK_BYTES):
                now = self.conditions
                delay = now.latency_s + self._chance.random() * now.jitter_s
                due = max(loop.time() + delay, due)
                if now.bytes_per_s is not None:
                    due += len(data) / now.bytes_per_s
                await under_way.put(_Chunk(data, due))
        await under_way.put(None)

    async def _arrive(self, due: float) -> None:
        loop = asyncio.get_running_loop()
        while self.conditions.silent or loop.time() < due:  # noqa: ASYNC110 - conditions are set from any thread
            await asyncio.sleep(_LOOK_S if self.conditions.silent else due - loop.time())


@dataclass(frozen=True, slots=True)
class _Chunk:
    data: bytes
    due: float


@dataclass(eq=False, slots=True)
class _Link:
    """The two ends of a connection, and the tasks that carry between them."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    ways: Sequence[asyncio.Task[None]] = ()
    forsaken: bool = False

    def reset(self) -> None:
        for end in (self.client, self.server):
            _reset(end)

    def forsake(self, side: Side) -> None:
        self.forsaken = True
        for way in self.ways:
            way.cancel()
        _reset(self.server if side == "client" else self.client)


def _reset(end: asyncio.StreamWriter) -> None:
    raw: socket.socket | None = end.get_extra_info("socket")
    if raw is not None:
        with suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.transport.abort()
