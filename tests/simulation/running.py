"""One seed, from its beginning to its verdict."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import structlog

from tests.simulation import virtual
from tests.simulation.checks import findings
from tests.simulation.planted import PLANTED
from tests.simulation.world import Parts, World


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a seed: the same for the same seed and program, on every machine.

    Attributes:
        seed: Replays it: ``make simulate SEED=n``.
        digest: SHA-256 of the trace.
        findings: Broken promises; empty for a good run.
        lines: The trace.
        events: How many events the logs have.
        reached: How often what is hard came to pass, by its name.
    """

    seed: int
    digest: str
    findings: tuple[str, ...]
    lines: tuple[str, ...]
    events: int
    reached: Counter[str]

    def without_trace(self) -> Verdict:
        """The same, small enough to travel between processes by the thousand."""
        return replace(self, lines=())


def simulate(seed: int, parts: Parts | None = None) -> Verdict:
    """Runs a seed."""
    with structlog.testing.capture_logs():
        return virtual.run(_live(seed, parts or Parts()))


def simulate_some(seeds: range, planted: str | None) -> list[Verdict]:
    """Runs seeds, with a planted fault where one is named; verdicts without their traces."""
    return [simulate(seed, PLANTED.get(planted or "")).without_trace() for seed in seeds]


async def _live(seed: int, parts: Parts) -> Verdict:
    world = World(seed, parts)
    await world.live()
    found = world.findings or list(findings(world))
    events = sum(len(server.tables.log) for server in world.servers.values())
    return Verdict(seed, world.trace.digest, tuple(found), tuple(world.trace.lines), events, world.reached())
