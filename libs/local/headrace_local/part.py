"""What the supervisor needs to know of anything it runs."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Protocol

from headrace_local.process import Command


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a part may take, and how it is asked to end."""

    ready_within_s: float = 60.0
    stop_within_s: float = 20.0
    stop_signal: signal.Signals = signal.SIGTERM


class Part(Protocol):
    """One process of the stack."""

    @property
    def name(self) -> str:
        """Unique; also the name of the log file."""
        ...

    @property
    def address(self) -> str:
        """Where it listens, for people."""
        ...

    @property
    def timing(self) -> Timing:
        """Deadlines and stop signal."""
        ...

    async def prepare(self) -> Command:
        """Make ready for a start (first or after a death) and return what to run; raises ``LocalError``."""
        ...

    async def is_ready(self) -> bool:
        """Ask the running process a real question; ``False`` while it cannot answer."""
        ...

    async def stopped(self) -> None:
        """Called after an orderly end."""
        ...
