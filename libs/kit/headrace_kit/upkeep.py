"""What a service's database does in time.

It forgets the answers to commands after 30 days (their ids stay for ever), and fills in causes that an earlier release
did not write into their column.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

import structlog

from headrace_kit.causes import fill
from headrace_kit.errors import KitError
from headrace_kit.postgres import Database

_log = structlog.get_logger(__name__)
KEEP_RESPONSES: Final = timedelta(days=30)
"""How long a repeat of a command is given the very answer of the first time; the database keeps no less."""
EVERY_S: Final = 3600.0
RETRY_S: Final = 60.0
CHUNK: Final = 1000
"""Answers forgotten in one transaction: every write transaction is short, since all share one snapshot horizon."""
PAUSE_S: Final = 0.05
"""Rest between two chunks."""

_FORGET = "SELECT forget_responses($1, $2)"


class Upkeep:
    """Forgets old answers and fills in causes, hourly. Several processes do no harm; the keeper of the log does it.

    Args:
        database: The service's own, as its role.
        every_s: Time between rounds.
        chunk: Answers forgotten at once.
    """

    def __init__(self, database: Database, *, every_s: float = EVERY_S, chunk: int = CHUNK) -> None:
        self.forgotten = 0
        """Answers forgotten since the start."""
        self.looked_at = 0
        """Events since the start whose cause was looked for."""
        self._database = database
        self._every_s = every_s
        self._chunk = chunk

    async def run(self) -> None:
        """Runs until cancelled, through outages."""
        while True:
            try:
                await self.step()
                await self.fill()
            except KitError as error:
                _log.warning("upkeep_delayed", cause=error.message)
                await asyncio.sleep(min(RETRY_S, self._every_s))
            else:
                await asyncio.sleep(self._every_s)

    async def step(self) -> int:
        """One round: all that is old, chunk by chunk; returns how many answers were forgotten."""
        round_total = 0
        while True:
            count = int(await self._database.fetchval(_FORGET, KEEP_RESPONSES, self._chunk))
            round_total += count
            self.forgotten += count
            if count < self._chunk:
                break
            await asyncio.sleep(PAUSE_S)
        if round_total:
            _log.info("responses_forgotten", count=round_total)
        return round_total

    async def fill(self) -> int:
        """Fills in causes up to the end of the log, chunk by chunk; returns how many events were looked at."""
        round_total = 0
        while count := await fill(self._database):
            round_total += count
            self.looked_at += count
            await asyncio.sleep(PAUSE_S)
        return round_total
