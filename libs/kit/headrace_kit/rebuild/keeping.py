"""The read models of a service: rebuilt by whoever asks, and by the first process whose code is newer than they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog

from headrace_kit.errors import KitError
from headrace_kit.eventstore import Aggregate, PostgresEventStore
from headrace_kit.rebuild.projections import Projection
from headrace_kit.rebuild.rebuilding import Progress, Rebuild, Report, revisions

_log = structlog.get_logger(__name__)
RETRY_S: Final = 2.0


class ReadModels:
    """The read models of one service.

    A process whose code folds a kind of stream anew (``Aggregate.revision`` was raised) rebuilds when it starts and is
    not ready until the swap, while a process of the older code still answers. From the swap on the older one may not
    append to it: its callers are told UNAVAILABLE and come to the newer one.

    Args:
        store: The service's.
        aggregates: Every kind of stream.
        projections: What is folded from other services' logs.
    """

    def __init__(
        self,
        store: PostgresEventStore,
        aggregates: Sequence[Aggregate[Any]],  # Any: states of different classes
        projections: Sequence[Projection] = (),
    ) -> None:
        self._store = store
        self._aggregates = aggregates
        self._projections = projections

    async def rebuild(self, *, check: bool, tell: Callable[[Progress], None] = lambda _: None) -> Report:
        """As ``Rebuild.run``."""
        return await Rebuild(self._store, self._aggregates, self._projections).run(check=check, tell=tell)

    async def run(self) -> None:
        """Migrates what is older than this code; then waits until cancelled."""
        while True:
            try:
                stale = [name for name, recorded, own in await self._revisions() if recorded < own]
                if not stale:
                    break
                _log.info("read_models_older", aggregates=stale)
                await self.rebuild(check=False)
            except KitError as error:
                _log.warning("rebuild_waits", cause=error.message, reason=error.reason)
                await asyncio.sleep(RETRY_S)
        await asyncio.Event().wait()

    async def check(self) -> str:
        """Why this process may not answer for its read models; empty when it may."""
        for name, recorded, own in await self._revisions():
            if recorded > own:
                return f"a newer process has rebuilt the read models of {name}"
            if recorded < own:
                return f"the read models of {name} are being rebuilt"
        return ""

    async def _revisions(self) -> list[tuple[str, int, int]]:
        recorded = await revisions(self._store.database)
        return [(each.name, recorded.get(each.name, 1), each.revision) for each in self._aggregates]
