"""A server that is gone: it was killed, and its supervisor may not start it again yet."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from headrace_local.part import Part, Timing
from headrace_local.process import Command
from headrace_local.testing import Infrastructure


class _Held:
    """A part that is not prepared before it is let go."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.let_go = threading.Event()

    @property
    def name(self) -> str:
        return self.part.name

    @property
    def timing(self) -> Timing:
        return self.part.timing

    @property
    def address(self) -> str:
        return self.part.address

    async def prepare(self) -> Command:
        while not self.let_go.is_set():
            await asyncio.sleep(0.05)
        return await self.part.prepare()

    async def is_ready(self) -> bool:
        return await self.part.is_ready()

    async def stopped(self) -> None:
        await self.part.stopped()


@contextmanager
def absent(servers: Infrastructure, name: str) -> Iterator[None]:
    """A part is gone for the length of a ``with`` block, and ready again after it."""
    kept = servers.stack.supervised[name]
    held = _Held(kept.part)
    kept.part = held
    killed = servers.kill(name)
    try:
        yield
    finally:
        held.let_go.set()
        servers.wait_ready(name, other_than=killed, within_s=120)
        kept.part = held.part
