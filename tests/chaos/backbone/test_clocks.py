"""Clocks that jump: the log's time never runs backwards, effects stay after their causes, and leases hold."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from headrace_local.testing import Infrastructure, temporary_folder
from tests.chaos.backbone.scene import Stage, at_rest, grows, staged
from tests.support.eventually import eventually
from tests.support.faketime import JumpingClock, restart_with_clock
from tests.support.kit import pooled

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow, pytest.mark.faketime]
JUMPS = ("-1h", "+3d", "+0")
PARTS = ("keeper", "writer", "answerer", "folder")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that PostgreSQL's account can read too."""
    with temporary_folder() as folder:
        yield folder


async def span(stage: Stage, column: str) -> timedelta:
    """Between the first and the last of a column of the counters' events."""
    async with pooled(stage.counters, max_size=1) as database:
        found: timedelta = await database.fetchval(
            f"SELECT max({column}) - min({column}) FROM events e JOIN log_entries l USING (local_id)"
        )
        return found


async def sequenced(stage: Stage) -> int:
    """How long the log is."""
    async with pooled(stage.counters, max_size=1) as database:
        return int(await database.fetchval("SELECT count(*) FROM log_entries"))


def test_one_process_whose_clock_jumps_disturbs_no_order(servers: Infrastructure, tmp_path: Path) -> None:
    clocks = {part: JumpingClock(tmp_path / f"{part}.clock") for part in PARTS}
    with staged(servers, tmp_path) as stage:
        for part, clock in clocks.items():
            stage.start(part, environment=clock.environment)
        grows(stage, by=60)
        for clock in clocks.values():
            for jump in JUMPS:
                clock.jump(jump)
                grows(stage, by=40)
        found, apart = at_rest(stage), asyncio.run(span(stage, "occurred_at"))
        terms = stage.log("keeper").count("leading")

    assert apart > timedelta(days=2)  # the clocks did jump
    assert terms == 1  # and no lease was lost for it
    assert found == []


def test_the_databases_clock_jumps_and_the_log_goes_on(
    servers: Infrastructure, tmp_path: Path, open_folder: Path
) -> None:
    clock = JumpingClock(open_folder / "postgres.clock")
    restart_with_clock(servers, clock)
    with staged(servers, tmp_path) as stage:
        for part in PARTS:
            stage.start(part)
        grows(stage, by=60)
        for jump, further_back in (("+3d", "+2d"), ("+0", "-1h"), ("-2h", "-3h")):
            clock.jump(jump)
            grows(stage, by=60)
            # Who leads dies, and by the clock its lease goes on for an hour or more: the next one does not wait.
            stage.kill("keeper")
            clock.jump(further_back)
            length = asyncio.run(sequenced(stage))
            stage.start("keeper")
            eventually(lambda: asyncio.run(sequenced(stage)) > length, within_s=30)  # noqa: B023 - asked at once
        found, apart = at_rest(stage), asyncio.run(span(stage, "recorded_at"))

    assert apart > timedelta(days=2)
    assert found == []
