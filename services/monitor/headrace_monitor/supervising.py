"""Keeps the counting process alive: started again when it ends, ended when its parent ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping

import structlog

_log = structlog.get_logger(__name__)
_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_CALM_S = 60.0
_STOP_S = 15.0


class Child:
    """Runs ``python -m <module>`` until cancelled.

    Args:
        module: The module.
        environment: Variables beside those of this process.
    """

    def __init__(self, module: str, environment: Mapping[str, str] | None = None) -> None:
        self._module = module
        self._environment = {**os.environ, **(environment or {}), "HEADRACE_PARENT_PID": str(os.getpid())}
        self.pid: int | None = None
        self.restarts = 0

    async def run(self) -> None:
        """Starts it, again and again; a quick death makes the next start wait longer."""
        deaths = 0
        while True:
            began = time.monotonic()
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", self._module, env=self._environment, start_new_session=False
            )
            self.pid = process.pid
            try:
                status = await process.wait()
            except asyncio.CancelledError:
                await _stop(process)
                raise
            finally:
                self.pid = None
            deaths = 0 if time.monotonic() - began > _CALM_S else deaths + 1
            self.restarts += 1
            _log.error("child_ended", module=self._module, status=status, deaths=deaths)
            await asyncio.sleep(_BACKOFF_S[min(deaths, len(_BACKOFF_S) - 1)])


async def _stop(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
