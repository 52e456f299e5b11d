"""A service process: starts its parts, tells when it is ready, stops on SIGTERM without losing what it took."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog
import uvloop
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from headrace_kit.errors import KitError
from headrace_kit.logs import configure_logs
from headrace_kit.rpc import Server
from headrace_kit.settings import ServiceSettings
from headrace_kit.tracing import configure_tracing

_log = structlog.get_logger(__name__)
_READ_TIMEOUT_S: Final = 5.0
_MAX_REQUEST: Final = 16 * 1024

Check = Callable[[], Awaitable[str]]
"""Says why the process is not ready; empty when it is."""


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
    settings: ServiceSettings
    server: Server | None = None
    tasks: dict[str, Callable[[], Awaitable[None]]] = field(default_factory=dict[str, Callable[[], Awaitable[None]]])
    checks: list[Check] = field(default_factory=list[Check])
    close: list[Callable[[], Awaitable[None]]] = field(default_factory=list[Callable[[], Awaitable[None]]])
    refresh: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])

    async def run(self) -> None:
        """Runs until SIGTERM or SIGINT, then drains. Raises what ended a task."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        probes = await self._start_probes()
        running = [asyncio.create_task(_named(run), name=name) for name, run in self.tasks.items()]
        try:
            if self.server is not None:
                await self.server.start()
                await self.server.set_ready(ready=True)
            _log.info("started", grpc_port=self.server.port if self.server else None)
            await _first_of(stop, running)
        finally:
            _log.info("stopping")
            if self.server is not None:
                await self.server.drain(self.settings.drain_s)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            for close in self.close:
                with contextlib.suppress(KitError, OSError):
                    await asyncio.wait_for(close(), self.settings.drain_s)
            probes.close()
            _log.info("stopped")

    async def _start_probes(self) -> asyncio.Server:
        host, _, port = self.settings.metrics_listen.rpartition(":")
        return await asyncio.start_server(self._probe, host, int(port), limit=_MAX_REQUEST)

    async def _probe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """GET /metrics, /healthz, /readyz: HTTP/1.0, one request a connection; for scrapers on the inside only."""
        with contextlib.suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_READ_TIMEOUT_S):
                head = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)
                path = head[1].partition(b"?")[0] if len(head) > 1 else b""
                code, kind, body = await self._answer(path)
                text = f"HTTP/1.0 {code}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(text.encode() + body)
                await writer.drain()
        writer.close()

    async def _answer(self, path: bytes) -> tuple[str, str, bytes]:
        match path:
            case b"/metrics":
                for refresh in self.refresh:
                    refresh()
                return "200 OK", CONTENT_TYPE_LATEST, generate_latest()
            case b"/healthz":
                return "200 OK", "text/plain", b"alive\n"
            case b"/readyz":
                reasons = [reason for check in self.checks if (reason := await check())]
                if reasons:
                    return "503 Service Unavailable", "text/plain", ("\n".join(reasons) + "\n").encode()
                return "200 OK", "text/plain", b"ready\n"
            case _:
                return "404 Not Found", "text/plain", b"GET /metrics, /healthz or /readyz\n"


def run_service(name: str, settings: ServiceSettings, build: Callable[[], Awaitable[Application]]) -> None:
    """Runs a service process to its end: ``python -m headrace_<name>`` calls this.

    Args:
        name: Name of the process.
        settings: Its settings.
        build: Wires the process, inside its event loop.
    """
    configure_logs(name, settings.log_level)
    configure_tracing(name)

    async def main() -> None:
        application = await build()
        await application.run()

    try:
        uvloop.run(main())
    except Exception:
        _log.exception("failed")
        sys.exit(1)


async def _named(run: Callable[[], Awaitable[None]]) -> None:
    await run()


async def _first_of(stop: asyncio.Event, running: Sequence[asyncio.Task[None]]) -> None:
    """Returns when told to stop; raises when one of the tasks ended before that."""
    stopping = asyncio.create_task(stop.wait(), name="stop")
    done, _ = await asyncio.wait([stopping, *running], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    for task in done:
        if task is stopping:
            continue
        error = task.exception()
        if error is not None:
            raise error
        raise RuntimeError(f"{task.get_name()} ended")
