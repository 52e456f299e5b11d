"""Load, and one fault after the other: ``make soak SECONDS=3600``, or half a minute in the suite.

For a sixth of the time Kafka is gone: ten minutes of an hour.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace_local.testing import Infrastructure
from tests.chaos.backbone.scene import Stage, at_rest, grows, passes, staged
from tests.support.absent import absent
from tests.support.eventually import eventually
from tests.support.kit import pooled

SOAK_S = float(os.environ.get("HEADRACE_SOAK_S", "30"))
SEED = int(os.environ.get("HEADRACE_SOAK_SEED", "1"))
PARTS = ("keeper", "writer", "answerer", "folder")
PUBLISHES_WITHIN_S = 20.0
"""After Kafka's return; asserted loosely, for a busy machine, and printed."""
MORE_MEMORY = 96 << 20
pytestmark = [pytest.mark.timeout(int(3 * SOAK_S) + 400), pytest.mark.slow]


async def published(stage: Stage) -> int:
    """How far the relay came."""
    async with pooled(stage.counters, max_size=1) as database:
        return int(await database.fetchval("SELECT position FROM relay_state WHERE name = 'kafka'"))


def without_kafka(servers: Infrastructure, stage: Stage, *, seconds: float) -> float:
    """Load without Kafka; returns the seconds from its return to the first event published."""
    with absent(servers, "kafka"):
        before = asyncio.run(published(stage))
        grows(stage, by=20)  # nobody waits for it
        passes(seconds)
    returned = time.monotonic()
    eventually(lambda: asyncio.run(published(stage)) > before, within_s=60)
    return time.monotonic() - returned


def faults_of(servers: Infrastructure, stage: Stage, chance: random.Random) -> dict[str, Callable[[], None]]:
    """What may happen."""

    def sleep(part: str) -> None:
        stage.send(part, signal.SIGSTOP)
        passes(chance.uniform(1, 15))
        stage.send(part, signal.SIGCONT)

    def lose(server: str) -> None:
        servers.wait_ready(server, other_than=servers.kill(server), within_s=120)

    return {
        "kill a part": lambda: stage.restart(chance.choice(PARTS)),
        "freeze a part": lambda: sleep(chance.choice(PARTS)),
        "kill PostgreSQL": lambda: lose("postgres"),
        "kill Kafka": lambda: lose("kafka"),
    }


def test_load_and_faults_for_a_while_lose_and_repeat_nothing(servers: Infrastructure, tmp_path: Path) -> None:
    chance, happened = random.Random(SEED), list[str]()
    with staged(servers, tmp_path) as stage:
        for part in PARTS:
            stage.start(part)
        grows(stage, by=60)
        began, before = time.monotonic(), stage.resident()
        back_s = without_kafka(servers, stage, seconds=SOAK_S / 6)
        after = stage.resident()
        faults = faults_of(servers, stage, chance)
        while time.monotonic() - began < SOAK_S:
            happened.append(chance.choice(sorted(faults)))
            faults[happened[-1]]()
            grows(stage, by=100)
        written, took = stage.written(), time.monotonic() - began
        found = at_rest(stage, within_s=200 + SOAK_S)

    print(f"{written} appends in {took:.0f} s through {len(happened)} faults; Kafka gone for {SOAK_S / 6:.0f} s,")
    print(f"its first event {back_s:.1f} s after its return")
    assert found == [], happened
    assert back_s < PUBLISHES_WITHIN_S
    assert {part: after[part] - before[part] for part in before if after[part] - before[part] > MORE_MEMORY} == {}
