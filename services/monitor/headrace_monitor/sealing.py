"""Ties the windows to the log: hourly, the number and digest of those closed since the last time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from headrace.api.monitor.v1.events_pb2 import WindowsSealed
from headrace.api.monitor.v1.resources_pb2 import Monitor
from headrace_kit.context import CommandContext
from headrace_kit.eventstore import EventStore
from headrace_monitor import domain
from headrace_monitor.seal import Seal
from headrace_monitor.store import MONITOR
from headrace_monitor.windowstore import NEVER_US, WindowStore

_PAGE = 500
ACTOR = "services/monitor"


class Sealer:
    """Seals closed windows. They are frozen, so whoever seals the same range, at any time, finds the same digest.

    Args:
        events: The monitors' streams.
        windows: Closed windows.
        every: Least time between two seals of a monitor, by this process's clock; the first is as long after its
            creation.
    """

    def __init__(
        self, events: EventStore, windows: WindowStore, *, every: timedelta, clock: Callable[[], datetime]
    ) -> None:
        self._events = events
        self._windows = windows
        self._every = every
        self._clock = clock

    async def seal(self, monitor: Monitor, endpoint_id: int) -> bool:
        """Seals what was closed since the last seal, when it is time and there is any; True when it did."""
        now = self._clock()
        last = monitor.sealed_time if monitor.HasField("sealed_time") else monitor.create_time
        if now - last.ToDatetime(tzinfo=UTC) < self._every:
            return False
        until_us = (await self._windows.progress(endpoint_id)).closed_until_us
        from_us = monitor.sealed_until.ToMicroseconds() if monitor.HasField("sealed_until") else NEVER_US
        if until_us <= from_us:
            return False
        first_us, seal = await self.digest(endpoint_id, from_us=from_us, until_us=until_us)
        if seal.count == 0:
            return False
        sealed = WindowsSealed(monitor=monitor.name, count=seal.count, sha256=seal.digest())
        getattr(sealed, "from").FromMicroseconds(first_us if from_us == NEVER_US else from_us)
        sealed.until.FromMicroseconds(until_us)
        command_id = domain.seal_command_id(monitor.name, until_us=until_us)
        context = CommandContext(command_id=command_id, actor=ACTOR, now=now)
        await self._events.execute(
            MONITOR,
            monitor.name,
            context=context,
            request=sealed,
            decide=lambda state: domain.decide_seal(state, sealed, context),
            respond=lambda state: state,
        )
        return True

    async def digest(self, endpoint_id: int, *, from_us: int, until_us: int) -> tuple[int, Seal]:
        """Start of the first window that starts in ``[from_us, until_us)``, and the seal of them all."""
        seal, first_us = Seal(), until_us
        while True:
            slots = await self._windows.frozen(endpoint_id, from_us=from_us, limit=_PAGE)
            for slot in slots:
                if slot.start_us >= until_us:
                    return first_us, seal
                first_us = min(first_us, slot.start_us)
                for version in sorted(slot.versions):
                    seal.add(slot.start_us, version, slot.versions[version])
            if len(slots) < _PAGE:
                return first_us, seal
            from_us = slots[-1].start_us + 1
