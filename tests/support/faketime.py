"""A clock that one process has for itself, and that jumps: libfaketime over a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from headrace_local.postgres import Postgres
from headrace_local.process import Command
from headrace_local.testing import Infrastructure
from tests.support.needs import faketime_library


class JumpingClock:
    """The wall clock of processes started with ``environment``; their monotonic clock is everybody's.

    Args:
        path: A file that those processes can read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch(mode=0o644)
        self.jump("+0")

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process of this clock is started with."""
        return {
            "LD_PRELOAD": str(faketime_library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def jump(self, offset: str) -> None:
        """Goes wrong by an offset, such as ``-1h``, ``+3d`` or ``+0``."""
        fresh = self._path.with_name(f"{self._path.name}.new")
        fresh.write_text(f"{offset}\n")
        fresh.chmod(0o644)
        fresh.replace(self._path)


@dataclass(frozen=True, slots=True)
class TimedPostgres(Postgres):
    """A server with an environment of its own."""

    environment: Mapping[str, str] = field(default_factory=dict[str, str])

    async def prepare(self) -> Command:
        """As ``Postgres.prepare``."""
        command = await Postgres.prepare(self)
        # Set by its own account: libfaketime's semaphores are open to the account alone that made them.
        environment = (f"{name}={value}" for name, value in self.environment.items())
        return replace(command, argv=["/usr/bin/env", *environment, *command.argv])


def restart_with_clock(servers: Infrastructure, clock: JumpingClock) -> None:
    """Restart PostgreSQL, which from now on has this clock."""
    kept = servers.stack.supervised["postgres"]
    assert isinstance(kept.part, Postgres)
    settings = {each.name: getattr(kept.part, each.name) for each in fields(Postgres)}
    kept.part = TimedPostgres(**settings, environment=clock.environment)
    servers.wait_ready("postgres", other_than=servers.kill("postgres"))
