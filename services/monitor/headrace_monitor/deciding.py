"""Stage 2: closes slots by the watermark and decides them in order, once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog

from headrace.api.monitor.v1.resources_pb2 import Monitor, MonitorConfig, ReferenceProfile, Verdict
from headrace.kafka.ledger import Kind
from headrace_kit.context import CommandContext
from headrace_kit.errors import AlreadyExists, KitError
from headrace_kit.eventstore import EventStore
from headrace_monitor import domain
from headrace_monitor.countstore import CountStore
from headrace_monitor.judging import Jury
from headrace_monitor.layout import Layout, layout_of
from headrace_monitor.sealing import ACTOR, Sealer
from headrace_monitor.store import MONITOR, project_of
from headrace_monitor.watermark import watermark
from headrace_monitor.windowstore import NEVER_US, FrozenSlot, WindowStore

_log = structlog.get_logger(__name__)
_PAGE = 500

Clock = Callable[[], datetime]


@dataclass(slots=True)
class _Session:
    """A jury that has heard every slot up to ``heard_until_us``, under one revision of the settings."""

    config_revision: int
    jury: Jury
    layouts: dict[str, Layout]
    heard_until_us: int = NEVER_US


class Decider:
    """Decides for every monitor. One process does at a time; two do no harm: a slot's command has one id.

    Args:
        events: The monitors' streams.
        counts: Stage 1's tables, to list monitors.
        windows: Stage 2's tables.
        topics: Name of the topic of each kind.
        partitions: Partitions of each topic; asked until Kafka answers.
        idle_s: See ``watermark``.
        every_s: Time between looks.
        seal_every: See ``Sealer``.
    """

    def __init__(
        self,
        events: EventStore,
        counts: CountStore,
        windows: WindowStore,
        *,
        topics: Mapping[Kind, str],
        partitions: Callable[[], Awaitable[int]],
        idle_s: float,
        every_s: float,
        seal_every: timedelta = timedelta(hours=1),
        clock: Clock = lambda: datetime.now(UTC),
    ) -> None:
        self._events = events
        self._counts = counts
        self._windows = windows
        self._kinds = {topic: int(kind) for kind, topic in topics.items()}
        self._ask_partitions = partitions
        self._partitions = 0
        self._idle_s = idle_s
        self._every_s = every_s
        self._clock = clock
        self._sealer = Sealer(events, windows, every=seal_every, clock=clock)
        self._sessions: dict[str, _Session] = {}

    async def run(self) -> None:
        """Decides until cancelled, through outages."""
        while True:
            began = time.monotonic()
            try:
                await self.step()
            except (KitError, OSError, TimeoutError) as error:
                _log.warning("deciding_delayed", reason=str(error))
                self._sessions.clear()
                await asyncio.sleep(1.0)
            await asyncio.sleep(max(self._every_s - (time.monotonic() - began), 0.01))

    async def step(self) -> int:
        """Closes and decides what can be; returns how many slots were decided."""
        if self._partitions == 0:
            self._partitions = await self._ask_partitions()
        decided = 0
        for monitor in await self._counts.monitors():
            endpoint_id = await self._windows.endpoint_id(project_of(monitor.name), monitor.endpoint)
            if endpoint_id is not None:
                await self._close(endpoint_id, monitor.config)
                decided += await self._decide(monitor, endpoint_id)
                await self._sealer.seal(monitor, endpoint_id)
        return decided

    async def _close(self, endpoint_id: int, config: MonitorConfig) -> None:
        shards, now = await self._windows.shard_progress(endpoint_id)
        caught_up = {(self._kinds[topic], at): when for (topic, at), when in (await self._windows.caught_up()).items()}
        mark = watermark(shards, caught_up, partitions=self._partitions, now=now, idle_s=self._idle_s)
        if mark is None:
            return
        slot_us = config.slot_s * 1_000_000
        # A slot is over when its end and the time waited for latecomers lie behind the watermark.
        over = mark - config.lateness_s * 1_000_000
        until_us = over - over % slot_us
        more = True
        while more:
            more = await self._windows.close(endpoint_id, until_us=until_us)

    async def _decide(self, monitor: Monitor, endpoint_id: int) -> int:
        progress = await self._windows.progress(endpoint_id)
        if progress.decided_until_us >= progress.closed_until_us:
            return 0
        session = self._session(monitor)
        decided = 0
        while True:
            slots = await self._windows.frozen(endpoint_id, from_us=session.heard_until_us, limit=_PAGE)
            for slot in slots:
                await self._load_layouts(session, endpoint_id, slot)
                verdict = session.jury.judge(slot.start_us, slot.versions)
                session.heard_until_us = slot.start_us + 1
                if slot.start_us >= progress.decided_until_us:
                    decided += 1
                    if verdict is not None:
                        await self._record(monitor, verdict, slot.start_us)
            if len(slots) < _PAGE:
                break
            await asyncio.sleep(0)
        await self._windows.decided(endpoint_id, until_us=progress.closed_until_us)
        return decided

    def _session(self, monitor: Monitor) -> _Session:
        session = self._sessions.get(monitor.name)
        if session is None or session.config_revision != monitor.config_revision:
            layouts: dict[str, Layout] = {}
            jury = Jury(monitor.config, layouts.__getitem__)
            session = self._sessions[monitor.name] = _Session(monitor.config_revision, jury, layouts)
        return session

    async def _load_layouts(self, session: _Session, endpoint_id: int, slot: FrozenSlot) -> None:
        for version in slot.versions:
            if version not in session.layouts:
                profile = ReferenceProfile.FromString(await self._windows.layout(endpoint_id, version))
                session.layouts[version] = layout_of(profile)

    async def _record(self, monitor: Monitor, verdict: Verdict, slot_us: int) -> None:
        verdict.alias_revision = -1
        if verdict.bad_version:
            model = domain.model_of(monitor, verdict.bad_version)
            verdict.alias_revision = await self._windows.alias_revision(model, monitor.config.alias)
        context = CommandContext(command_id=self._command_id(monitor, slot_us), actor=ACTOR, now=self._clock())
        try:
            await self._events.execute(
                MONITOR,
                monitor.name,
                context=context,
                request=verdict,
                decide=lambda state: domain.decide_verdict(state, monitor.name, verdict, context),
                respond=lambda state: state,
            )
        except AlreadyExists:
            # Decided before this process knew of it, when the alias stood elsewhere: that decision stands.
            _log.info("decided_before", monitor=monitor.name, slot_us=slot_us)

    @staticmethod
    def _command_id(monitor: Monitor, slot_us: int) -> UUID:
        return domain.verdict_command_id(monitor.name, config_revision=monitor.config_revision, slot_us=slot_us)
