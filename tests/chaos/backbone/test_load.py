"""PostgreSQL killed under as much load as there is: what was acknowledged is there, and writes are soon back."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from headrace_local.testing import Infrastructure
from tests.chaos.backbone.members import Scene
from tests.chaos.backbone.scene import Stage, at_rest, grows, staged
from tests.support.eventually import eventually

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]
RATE = 2000.0
"""Appends a second that the writers together aim at, five to a command."""
WRITERS = 2
ENOUGH = 3000
"""Appends between two kills."""
BACK_WITHIN_S = 5.0
"""Asserted loosely, for a busy machine; the figure is printed."""


def moments(stage: Stage) -> list[float]:
    """When each command was acknowledged, in order."""
    lines = [line for path in stage.folder.glob("*.acknowledged") for line in path.read_text().splitlines()]
    return sorted(float(line.split()[2]) for line in lines if line.count(" ") == 2)


def highest_rate(scene: Scene, times: list[float], *, window_s: float = 1.0) -> float:
    """Appends a second in the best window."""
    best = first = 0
    for last, moment in enumerate(times):
        while moment - times[first] > window_s:
            first += 1
        best = max(best, last - first + 1)
    return best * scene.burst / window_s


def test_postgresql_killed_under_full_load_keeps_what_it_acknowledged(servers: Infrastructure, tmp_path: Path) -> None:
    waits: list[float] = []
    with staged(servers, tmp_path, rate=RATE / WRITERS, burst=5, streams=16) as stage:
        for part in ("keeper", *(f"writer-{number}" for number in range(WRITERS))):
            stage.start(part)
        took = grows(stage, by=ENOUGH)
        began = time.monotonic()
        for _ in range(3):
            killed = servers.kill("postgres")
            servers.wait_ready("postgres", other_than=killed)
            ready = time.time()
            eventually(lambda: moments(stage)[-1] > ready)  # noqa: B023 - asked before the loop goes on
            waits.append(next(each for each in moments(stage) if each > ready) - ready)
            took = grows(stage, by=ENOUGH)
        found = at_rest(stage)
        times = moments(stage)

    print(f"{stage.written()} appends, {stage.written() / (time.monotonic() - began):.0f}/s through three kills;")
    print(f"best second {highest_rate(stage.scene, times):.0f}/s, the last {ENOUGH} at {ENOUGH / took:.0f}/s;")
    print("first append after PostgreSQL answers:", ", ".join(f"{1000 * each:.0f} ms" for each in waits))
    assert found == []
    assert max(waits) < BACK_WITHIN_S
