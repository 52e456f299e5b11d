"""The backbone while its parts are killed, frozen and repeated: nothing acknowledged is lost, nothing happens twice."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace_local.testing import Infrastructure
from tests.chaos.backbone.scene import Stage, at_rest, drained, frozen, grows, passes, staged
from tests.support.eventually import eventually

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]
CONSUMERS = ("answerer", "folder")


@pytest.fixture
def stage(servers: Infrastructure, tmp_path: Path) -> Iterator[Stage]:
    """A scene with writer, keeper and consumers."""
    with staged(servers, tmp_path) as scene:
        for part in ("keeper", "writer", *CONSUMERS):
            scene.start(part)
        grows(scene, by=60)
        yield scene


def test_a_keeper_killed_between_publish_and_mark_repeats_nothing(stage: Stage) -> None:
    for _ in range(6):
        stage.restart("keeper")
        grows(stage, by=60)

    assert at_rest(stage) == []


def test_a_frozen_keeper_wakes_to_a_stale_epoch(stage: Stage) -> None:
    stage.start("keeper-standby")
    for asleep in ("keeper", "keeper-standby", "keeper"):
        stage.send(asleep, signal.SIGSTOP)
        passes(2 * stage.scene.ttl_s)
        stage.send(asleep, signal.SIGCONT)

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


def test_a_member_that_sleeps_in_the_middle_of_an_event_wakes_to_a_lost_partition(stage: Stage) -> None:
    hold = stage.folder / "answerer.hold"
    hold.touch()
    eventually((stage.folder / "answerer.held").exists, within_s=30)
    stage.send("answerer", signal.SIGSTOP)
    stage.start("answerer-second")
    stage.end("writer")
    eventually(lambda: asyncio.run(drained(stage)), within_s=60)  # the other one has answered that and all else
    hold.unlink()
    stage.send("answerer", signal.SIGCONT)
    # It comes to its commit, or, when all that took very long, to its handler's deadline before that.
    ends = ("partition_lost", "the handler took more than")
    eventually(lambda: any(each in stage.log("answerer") for each in ends), within_s=60)

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
    before = stage.resident()
    with frozen(servers, "postgres"):
        passes(20)
    grows(stage, by=400)
    after = stage.resident()

    assert {part: after[part] - before[part] for part in before if after[part] - before[part] > 50 << 20} == {}
    assert at_rest(stage) == []
