"""Leases: one leader at a time, and a fencing epoch that outlives the belief to be it.

A holder that stopped for longer than its lease still thinks it leads. So whoever writes as the leader names its
``Fence``, and the database checks the epoch inside the very statement or transaction of the write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

import structlog

from headrace_kit.errors import Deposed, KitError, Unavailable
from headrace_kit.postgres import Connection, ConnectionLost, Database

_log = structlog.get_logger(__name__)

# A lease that ends later than any could is what a clock left that was set back since.
_TAKE = """
INSERT INTO leases AS l (name, epoch, holder, expires_at) VALUES ($1, 1, $2, clock_timestamp() + $3)
ON CONFLICT (name) DO UPDATE SET epoch = l.epoch + 1, holder = $2, expires_at = clock_timestamp() + $3
WHERE l.expires_at < clock_timestamp() OR l.expires_at > clock_timestamp() + 2 * $3 OR l.holder = $2
RETURNING epoch
"""
_RENEW = "UPDATE leases SET expires_at = clock_timestamp() + $3 WHERE name = $1 AND epoch = $2"
_GIVE_UP = "UPDATE leases SET expires_at = clock_timestamp() WHERE name = $1 AND epoch = $2"
_CHECK = "SELECT 1 FROM leases WHERE name = $1 AND epoch = $2 FOR SHARE"


@dataclass(frozen=True, slots=True)
class Fence:
    """The right to write as the leader of ``name``, while ``epoch`` is the newest one."""

    name: str
    epoch: int


async def check_fence(connection: Connection, fence: Fence) -> None:
    """Holds the epoch still until the caller's transaction ends.

    Raises:
        Deposed: the epoch is not the newest.
    """
    if await connection.fetchval(_CHECK, fence.name, fence.epoch) is None:
        raise Deposed(f"epoch {fence.epoch} of {fence.name} is over: another process leads")


class Leadership:
    """Campaigns for one lease and runs work while it is held. Times are the database's."""

    def __init__(self, database: Database, name: str, *, ttl_s: float = 5.0) -> None:
        self.name = name
        self.fence: Fence | None = None
        """The fence held now, None for a standby."""
        self._database = database
        self._holder = str(uuid4())
        self._ttl = timedelta(seconds=ttl_s)
        self._ttl_s = ttl_s

    async def take(self) -> Fence | None:
        """Takes the lease when it is free, expired, or already this object's; each success is a new epoch."""
        epoch = await self._database.fetchval(_TAKE, self.name, self._holder, self._ttl)
        self.fence = None if epoch is None else Fence(self.name, int(epoch))
        return self.fence

    async def renew(self) -> None:
        """Prolongs the lease.

        Raises:
            Deposed: it went to another holder.
        """
        fence = self.fence
        if fence is None or not await self._database.execute(_RENEW, fence.name, fence.epoch, self._ttl):
            self.fence = None
            raise Deposed(f"the lease of {self.name} went to another process")

    async def give_up(self) -> None:
        """Lets the next one in at once."""
        fence, self.fence = self.fence, None
        if fence is not None:
            await self._database.execute(_GIVE_UP, fence.name, fence.epoch)

    async def run(self, work: Callable[[Fence], Awaitable[None]]) -> None:
        """Leads whenever it can, for ever: ``work`` is cancelled when the lease is lost and begun anew with the next.

        Returns when ``work`` does. After a retryable error (deposed, the database away or full) it campaigns again; any
        other goes to the caller.
        """
        while True:
            try:
                fence = await self.take()
                if fence is not None:
                    _log.info("leading", lease=self.name, epoch=fence.epoch)
                    await self._lead(fence, work)
                    return
            except KitError as error:
                if not error.retryable:
                    raise
                _log.warning("no_longer_leading", lease=self.name, cause=error.reason)
            await asyncio.sleep(self._ttl_s / 5)

    async def _lead(self, fence: Fence, work: Callable[[Fence], Awaitable[None]]) -> None:
        working = asyncio.ensure_future(work(fence))
        renewing = asyncio.create_task(self._keep())
        try:
            await asyncio.wait((working, renewing), return_when=asyncio.FIRST_COMPLETED)
            if renewing.done() and not working.done():
                renewing.result()
            await working
        finally:
            for task in (working, renewing):
                task.cancel()
            await asyncio.gather(working, renewing, return_exceptions=True)
            with suppress(ConnectionLost):
                await self.give_up()

    async def _keep(self) -> None:
        """Renews until deposed; a database away for longer than the lease is the end of it as well."""
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        while True:
            await asyncio.sleep(self._ttl_s / 3)
            try:
                async with asyncio.timeout(self._ttl_s / 3):  # wait_for of Python 3.11 may swallow a cancellation
                    await self.renew()
                renewed = loop.time()
            except (ConnectionLost, TimeoutError) as error:
                if loop.time() - renewed > self._ttl_s:
                    raise Unavailable("the lease could not be renewed in time", reason="LEASE_NOT_RENEWED") from error
