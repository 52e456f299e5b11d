"""The keeper of a service's log: sequencer, relay, notary and upkeep under one lease."""

from __future__ import annotations

import asyncio

from headrace_kit.dataref import DataRefs
from headrace_kit.errors import KitError
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.lease import Fence, Leadership
from headrace_kit.log import Log
from headrace_kit.notary import Notary
from headrace_kit.relay import Relay
from headrace_kit.sequencer import Sequencer
from headrace_kit.upkeep import Upkeep

LEASE = "log"


class LogKeeper:
    """Keeps one service's log while it holds the lease ``log``; otherwise stands by.

    Args:
        store: Whose log.
        log: Where the relay publishes.
        data_refs: Where events over 256 KiB go.
        notary: Signs the log; without it, nothing is signed.

    Attributes:
        log: Where the relay publishes.
        sequencer: For its ``tail_age_s`` and ``position``.
        relay: For its ``backlog`` and ``failures``.
        notary: For its ``size``, ``refused`` and ``failures``.
        upkeep: For its ``forgotten``.
        leadership: For its ``fence``: None while another process leads.
    """

    def __init__(
        self,
        store: PostgresEventStore,
        log: Log,
        *,
        data_refs: DataRefs | None = None,
        notary: Notary | None = None,
        ttl_s: float = 5.0,
    ) -> None:
        self.log = log
        self.leadership = Leadership(store.database, LEASE, ttl_s=ttl_s)
        self.sequencer = Sequencer(store.database, store.source, wake=store.appended)
        self.relay = Relay(store, log, data_refs=data_refs, wake=self.sequencer.sequenced)
        self.notary = notary
        self.upkeep = Upkeep(store.database)

    async def run(self) -> None:
        """Runs until cancelled."""
        await self.leadership.run(self._keep)

    async def _keep(self, fence: Fence) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.sequencer.run(fence), name="sequencer")
                tasks.create_task(self.relay.run(fence), name="relay")
                if self.notary is not None:
                    tasks.create_task(self.notary.run(fence), name="notary")
                tasks.create_task(self.upkeep.run(), name="upkeep")
        except* KitError as errors:
            raise _first(errors) from errors


def _first(errors: BaseExceptionGroup[KitError]) -> KitError:
    for each in errors.exceptions:
        return _first(each) if isinstance(each, BaseExceptionGroup) else each
    raise AssertionError("an exception group holds an exception")
