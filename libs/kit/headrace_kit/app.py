"""A service process: starts its parts, tells when it is ready, stops on SIGTERM without losing what it took.

The order of a stop: not ready any more; no new calls, streams ended, calls under way finished; tasks cancelled
(consumers leave their groups, leases are given up); pools and channels closed; the probes last.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog
import uvloop

from headrace_kit import metrics
from headrace_kit.errors import KitError
from headrace_kit.garbage import collect_seldom
from headrace_kit.logs import configure_logs
from headrace_kit.probes import Probes
from headrace_kit.rpc import Server
from headrace_kit.settings import ProcessSettings
from headrace_kit.tracing import configure_tracing

_log = structlog.get_logger(__name__)
CHECK_TIMEOUT_S: Final = 2.0
"""A check of readiness that takes longer has failed."""
CHECK_EVERY_S: Final = 1.0
"""How often gRPC's health follows readiness."""
CANCEL_TIMEOUT_S: Final = 10.0
"""Most a task may take to end once it is cancelled."""
CLOSE_TIMEOUT_S: Final = 5.0
"""Most that closing a pool or a channel may take."""

Check = Callable[[], Awaitable[str]]
"""Says why the process is not ready; empty when it is."""
Run = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Application:
    """The parts of a process.

    Attributes:
        name: Name of the process, such as ``registry``.
        settings: Its settings.
        server: What answers gRPC; None for a process without.
        tasks: Work that runs as long as the process, by name; the end of one ends the process.
        checks: What must hold for the process to be ready.
        close: Run after everything stopped, in order, such as closing a pool.
        refresh: Called before metrics are read.
    """

    name: str
    settings: ProcessSettings
    server: Server | None = None
    tasks: dict[str, Run] = field(default_factory=dict[str, Run])
    checks: list[Check] = field(default_factory=list[Check])
    close: list[Run] = field(default_factory=list[Run])
    refresh: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])
    _serving: bool = field(default=False, init=False)

    async def run(self, stop: asyncio.Event | None = None) -> None:
        """Runs until ``stop`` is set (SIGTERM or SIGINT when it is not given), then drains.

        Raises:
            Exception: what ended a task; a task that ends without one raises RuntimeError.
        """
        stop = stop or stop_event()
        probes = Probes(self.unready, self.refresh)
        running: list[asyncio.Task[None]] = []
        try:
            await probes.start(self.settings.metrics_listen)
            running += [asyncio.create_task(_run(name, task), name=name) for name, task in self.tasks.items()]
            if self.server is not None:
                await self.server.start()
            self._serving = True
            running.append(asyncio.create_task(self._follow_readiness(), name="readiness"))
            _log.info("started", grpc_port=self.server.port if self.server else None, http_port=probes.port)
            await _first_of(stop, running)
        finally:
            await self._stop(running)
            probes.close()
            _log.info("stopped")

    async def unready(self) -> Sequence[str]:
        """Why the process is not ready; empty when it is. All checks are asked at once."""
        if not self._serving:
            return ["not started, or stopping"]
        reasons = await asyncio.gather(*(_checked(check) for check in self.checks))
        return [reason for reason in reasons if reason]

    async def _follow_readiness(self) -> None:
        before: Sequence[str] | None = None
        while True:
            reasons = await self.unready()
            if self.server is not None:
                await self.server.set_ready(ready=not reasons)
            metrics.READY.set(0 if reasons else 1)
            if bool(reasons) is not bool(before) or before is None:
                _log.info("ready" if not reasons else "not_ready", reasons=reasons)
            before = reasons
            await asyncio.sleep(CHECK_EVERY_S)

    async def _stop(self, running: Sequence[asyncio.Task[None]]) -> None:
        _log.info("stopping")
        self._serving = False
        metrics.READY.set(0)
        if self.server is not None:
            await self.server.drain(self.settings.drain_s)
        for task in running:
            task.cancel()
        if running:
            _, left = await asyncio.wait(running, timeout=CANCEL_TIMEOUT_S)
            for task in left:
                _log.error("task_does_not_end", task=task.get_name())
        for close in self.close:
            try:
                await asyncio.wait_for(close(), CLOSE_TIMEOUT_S)
            except (KitError, OSError, TimeoutError) as error:
                _log.warning("close_failed", cause=str(error))


def stop_event() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set; for the process's main task."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def run_service(name: str, settings: ProcessSettings, build: Callable[[], Awaitable[Application]]) -> None:
    """Runs a service process to its end: ``python -m headrace_<name>`` calls this.

    Returns after a stop that was asked for; otherwise ends the process with status 1, and the log says why.

    Args:
        name: Name of the process.
        settings: Its settings.
        build: Wires the process, inside its event loop. A stop during it cancels it.
    """
    configure_logs(name, settings.log_level)
    flush = configure_tracing(name)
    try:
        uvloop.run(_build_and_run(build))
    except KitError as error:
        _log.error("failed", cause=error.message, reason=error.reason)
        sys.exit(1)
    except Exception:  # noqa: BLE001 - the last line of a process says what ended it
        _log.critical("failed", exc_info=True)
        sys.exit(1)
    finally:
        flush()


async def _build_and_run(build: Callable[[], Awaitable[Application]]) -> None:
    stop = stop_event()
    building, stopping = asyncio.ensure_future(build()), asyncio.create_task(stop.wait())
    await asyncio.wait((building, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not building.done():
        building.cancel()
        await asyncio.wait((building,), timeout=CANCEL_TIMEOUT_S)
        return
    collect_seldom()
    await building.result().run(stop)


async def _run(name: str, run: Run) -> None:
    structlog.contextvars.bind_contextvars(task=name)
    await run()


async def _checked(check: Check) -> str:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return await check()
    except TimeoutError:
        return f"a check took over {CHECK_TIMEOUT_S:g} s"
    except (KitError, OSError) as error:
        return str(error) or type(error).__name__


async def _first_of(stop: asyncio.Event, running: Sequence[asyncio.Task[None]]) -> None:
    """Returns when told to stop; raises when one of the tasks ended before that."""
    stopping = asyncio.create_task(stop.wait(), name="stop")
    done, _ = await asyncio.wait([stopping, *running], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    for task in done - {stopping}:
        error = task.exception()
        _log.error("task_ended", task=task.get_name(), cause=repr(error))
        raise error or RuntimeError(f"the task {task.get_name()} ended")
