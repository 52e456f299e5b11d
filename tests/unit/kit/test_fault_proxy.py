"""The proxy's faults are those it says: what tests of a bad network stand on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from headrace_kit.testing import Conditions, FaultProxy


@asynccontextmanager
async def echoing() -> AsyncIterator[FaultProxy]:
    """A proxy before a server that sends everything back; ``hung_up`` tells how its connections ended."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(4096):
                writer.write(data)
                await writer.drain()
        except ConnectionResetError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    proxy = FaultProxy("127.0.0.1", server.sockets[0].getsockname()[1])
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
        server.close()


@asynccontextmanager
async def connected(proxy: FaultProxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> float:
    """Seconds until all of it was echoed."""
    began = time.monotonic()
    writer.write(data)
    assert await asyncio.wait_for(reader.readexactly(len(data)), 10) == data
    return time.monotonic() - began


async def test_it_passes_everything_on_in_order_and_the_end_too() -> None:
    sent = bytes(range(256)) * 4000
    async with echoing() as proxy, connected(proxy) as (reader, writer):
        proxy.conditions = Conditions(jitter_s=0.002)
        writer.write(sent)
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(-1), 20) == sent


async def test_latency_and_bandwidth_take_their_time() -> None:
    async with echoing() as proxy, connected(proxy) as (reader, writer):
        proxy.conditions = Conditions(latency_s=0.1)
        assert 0.2 <= await answered(reader, writer, b"x") < 2
        proxy.conditions = Conditions(bytes_per_s=20_000)
        assert 0.5 <= await answered(reader, writer, bytes(10_000)) < 5


async def test_a_reset_is_told_to_the_client() -> None:
    async with echoing() as proxy, connected(proxy) as (reader, writer):
        await answered(reader, writer, b"x")
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.readexactly(1), 5)
        async with connected(proxy) as again:
            proxy.conditions = Conditions(resets=1.0)
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await answered(*again, b"y")
        assert proxy.resets == 2


async def test_a_black_hole_keeps_what_is_under_way() -> None:
    async with echoing() as proxy, connected(proxy) as (reader, writer):
        proxy.conditions = Conditions(silent=True)
        writer.write(b"kept")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(4), 0.3)
        proxy.conditions = Conditions()
        assert await asyncio.wait_for(reader.readexactly(4), 5) == b"kept"


async def test_a_forsaken_client_hears_nothing_and_the_next_one_is_served() -> None:
    async with echoing() as proxy, connected(proxy) as (reader, writer):
        await answered(reader, writer, b"x")
        proxy.forsake("client")
        writer.write(b"y")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.3)
        async with connected(proxy) as again:
            await answered(*again, b"z")


async def test_a_slow_link_pushes_back_on_its_sender() -> None:
    async with echoing() as proxy, connected(proxy) as (_, writer):
        proxy.conditions = Conditions(silent=True)
        writer.write(bytes(64 << 20))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.drain(), 0.5)
        assert writer.transport.get_write_buffer_size() > 48 << 20  # the rest is in the proxy and in the kernel
