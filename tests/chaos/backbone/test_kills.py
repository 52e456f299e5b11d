"""The backbone while its parts are killed, frozen and repeated: nothing acknowledged is lost, nothing happens twice."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from headrace_local.testing import Infrastructure, run_infrastructure
from tests.chaos.backbone.scene import Stage, drained, faults, find, staged
from tests.support.eventually import eventually

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]
CONSUMERS = ("answerer", "folder")


@pytest.fixture(scope="module")
def servers() -> Iterator[Infrastructure]:
    """Servers of this module's own: it freezes and kills them."""
    with run_infrastructure() as running:
        yield running


@pytest.fixture
def stage(servers: Infrastructure, tmp_path: Path) -> Iterator[Stage]:
    """A scene with writer, keeper and consumers."""
    with staged(servers, tmp_path) as scene:
        for part in ("keeper", "writer", *CONSUMERS):
            scene.start(part)
        grows(scene, by=60)
        yield scene


def grows(stage: Stage, *, by: int, within_s: float = 60.0) -> float:
    """Wait until so many more were acknowledged; returns the seconds it took."""
    until, began = stage.written() + by, time.monotonic()
    eventually(lambda: stage.written() >= until, within_s=within_s)
    return time.monotonic() - began


def passes(seconds: float) -> None:
    """Wait until so much time is over: a freeze is defined by its length."""
    over = time.monotonic() + seconds
    eventually(lambda: time.monotonic() >= over, within_s=seconds + 30)


def at_rest(stage: Stage) -> list[str]:
    """Let the writer stop and the rest catch up; returns the faults of what is there."""
    stage.end("writer")
    eventually(lambda: asyncio.run(drained(stage)), within_s=200.0)
    for part in list(stage.parts):
        stage.end(part)
    return faults(asyncio.run(find(stage)), stage)


def test_a_keeper_killed_between_publish_and_mark_repeats_nothing(stage: Stage) -> None:
    for _ in range(6):
        stage.restart("keeper")
        grows(stage, by=60)

    assert at_rest(stage) == []


def test_a_frozen_keeper_wakes_to_a_stale_epoch(stage: Stage) -> None:
    stage.start("keeper-standby")
    for frozen in ("keeper", "keeper-standby", "keeper"):
        stage.send(frozen, signal.SIGSTOP)
        passes(2 * stage.scene.ttl_s)
        stage.send(frozen, signal.SIGCONT)

    assert at_rest(stage) == []


def test_consumers_killed_and_frozen_through_rebalances_act_once(stage: Stage) -> None:
    for part in CONSUMERS:
        stage.start(f"{part}-second")
    grows(stage, by=60)
    for part in CONSUMERS:
        stage.send(part, signal.SIGSTOP)
    passes(14)  # for longer than the group's session lasts
    for part in CONSUMERS:
        stage.send(part, signal.SIGCONT)
        stage.restart(f"{part}-second")
    grows(stage, by=60)

    assert at_rest(stage) == []


def test_a_writer_killed_at_any_moment_writes_each_number_once(stage: Stage) -> None:
    for _ in range(5):
        stage.restart("writer")
        grows(stage, by=150)

    assert at_rest(stage) == []


def test_every_event_five_times_and_out_of_order_acts_once(stage: Stage) -> None:
    stage.start("doubler")
    grows(stage, by=300)

    assert at_rest(stage) == []


def test_postgresql_killed_under_load_keeps_what_it_acknowledged(servers: Infrastructure, stage: Stage) -> None:
    for _ in range(3):
        killed = servers.kill("postgres")
        servers.wait_ready("postgres", other_than=killed)
        grows(stage, by=200)

    assert at_rest(stage) == []


def test_kafka_killed_and_away_holds_nobody_up(servers: Infrastructure, stage: Stage) -> None:
    killed = servers.kill("kafka")
    grows(stage, by=200)
    servers.wait_ready("kafka", other_than=killed)
    with frozen(servers, "kafka"):
        passes(45)  # for longer than any session lasts

    assert at_rest(stage) == []


def test_postgresql_frozen_for_a_while_costs_time_and_nothing_else(servers: Infrastructure, stage: Stage) -> None:
    before = {part: _resident(stage, part) for part in stage.parts}
    with frozen(servers, "postgres"):
        passes(20)
    grows(stage, by=400)
    after = {part: _resident(stage, part) for part in stage.parts}

    assert {part: after[part] - before[part] for part in before if after[part] - before[part] > 50 << 20} == {}
    assert at_rest(stage) == []


@contextmanager
def frozen(servers: Infrastructure, part: str) -> Iterator[None]:
    """All processes of a part, stopped for the length of a ``with`` block."""
    leader = psutil.Process(servers.stack.supervised[part].pid)
    family = [leader, *leader.children(recursive=True)]
    for each in family:
        each.suspend()
    try:
        yield
    finally:
        for each in family:
            with suppress(psutil.NoSuchProcess):
                each.resume()


def _resident(stage: Stage, part: str) -> int:
    return int(psutil.Process(stage.parts[part].pid).memory_info().rss)
