"""Who leads: one process at a time has the lease, a scheduler and the schedules."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from headrace_kit.errors import Unavailable
from headrace_kit.eventstore import EventStore, Fence
from headrace_kit.lease import Leadership
from headrace_kit.postgres import Database
from headrace_orchestrator.automation import Automation
from headrace_orchestrator.outputs import Outputs
from headrace_orchestrator.scheduler import Scheduler
from headrace_orchestrator.store import OrchestratorStore
from headrace_orchestrator.workers import Workers

LEASE = "scheduler"
LEASE_TTL_S = 3.0
"""A standby, or this service after it was killed, leads so soon. Writes are safe whatever it is: appends are fenced."""
PATIENCE_S = 5.0
"""How long a call waits for this process to lead."""


@dataclass(frozen=True, slots=True)
class Lead:
    """What a leader has."""

    scheduler: Scheduler
    automation: Automation


class Leader:
    """Campaigns for the lease and leads while it has it.

    Args:
        database: Where the lease is.
        store: The streams.
        outputs: Where large outputs lie.
        lease_s: Lease of a worker.
        now: The clock, UTC.
    """

    def __init__(
        self,
        database: Database,
        store: EventStore,
        outputs: Outputs,
        *,
        lease_s: float,
        now: Callable[[], datetime],
    ) -> None:
        self._leadership = Leadership(database, LEASE, ttl_s=LEASE_TTL_S)
        self._reads = OrchestratorStore(database)
        self._store, self._outputs, self._lease_s, self._now = store, outputs, lease_s, now
        self._lead: Lead | None = None
        self._changed = asyncio.Condition()

    async def run(self) -> None:
        """Runs until cancelled."""
        await self._leadership.run(self._work)

    async def lead(self) -> Lead:
        """What the leader has, if that is this process.

        Raises:
            Unavailable: it is not.
        """
        try:
            async with asyncio.timeout(PATIENCE_S), self._changed:
                await self._changed.wait_for(lambda: self._lead is not None)
        except TimeoutError:
            pass
        if self._lead is None:
            raise Unavailable("another process leads", reason="NOT_LEADING")
        return self._lead

    async def check(self) -> str:
        """Why this process can not answer; empty when it leads."""
        return "" if self._lead is not None else "another process leads"

    async def _work(self, fence: Fence) -> None:
        clock = asyncio.get_running_loop().time
        workers = Workers(self._lease_s, clock)
        scheduler = Scheduler(self._store, fence, workers=workers, outputs=self._outputs, now=self._now)
        automation = Automation(scheduler, self._now)
        runs, pipelines = await self._reads.open_runs(), await self._reads.all_pipelines()
        automation.recover(pipelines)
        try:
            await self._set(Lead(scheduler, automation))
            await scheduler.run(runs)
        finally:
            self._lead = None

    async def _set(self, lead: Lead) -> None:
        async with self._changed:
            self._lead = lead
            self._changed.notify_all()
