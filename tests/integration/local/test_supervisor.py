"""The supervisor, on small real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from headrace_local.errors import DiskFull, PartFailed
from headrace_local.guard import Guard
from headrace_local.part import Timing
from headrace_local.process import Command
from headrace_local.supervisor import Notice, Supervised
from tests.support.processes import lives

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"

SUPERVISOR = """
import asyncio, pathlib, sys
from headrace_local.guard import Guard
from headrace_local.process import Command, spawn

async def main():
    guard = Guard()
    guard.start()
    child = await spawn(Command([sys.executable, "-c", sys.argv[1]]), log=pathlib.Path(sys.argv[2]))
    guard.watch(child.pid)
    print("ready", flush=True)
    await child.wait()

asyncio.run(main())
"""


@dataclass
class Script:
    """A part whose process is a line of Python; ready once it printed something."""

    code: str
    log: Path
    timing: Timing = field(default_factory=lambda: Timing(ready_within_s=15, stop_within_s=10))
    orderly_stops: int = 0

    name = "script"
    address = "nowhere"

    async def prepare(self) -> Command:
        return Command([sys.executable, "-c", self.code])

    async def is_ready(self) -> bool:
        return self.log.exists() and self.log.stat().st_size > 0

    async def stopped(self) -> None:
        self.orderly_stops += 1


@asynccontextmanager
async def supervise(part: Script) -> AsyncGenerator[tuple[Supervised, list[Notice]]]:
    notices: list[Notice] = []
    guard = Guard()
    guard.start()
    supervised = Supervised(part, log=part.log, report=notices.append, changed=lambda: None, guard=guard)
    try:
        yield supervised, notices
    finally:
        await supervised.stop()
        guard.stop()


async def eventually(condition: Callable[[], bool], *, within_s: float = 10) -> float:
    """Wait until ``condition`` holds and return how long it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < within_s, "the condition never came true"
        await asyncio.sleep(0.01)
    return time.monotonic() - started


async def test_a_dead_process_runs_again_within_two_seconds(tmp_path: Path) -> None:
    async with supervise(Script(SLEEPER, tmp_path / "log")) as (supervised, notices):
        await supervised.start()
        first = supervised.pid
        assert first is not None

        os.kill(first, signal.SIGKILL)
        took_s = await eventually(lambda: supervised.state == "ready" and supervised.pid not in (None, first))

        assert took_s < 2
        assert supervised.restarts == 1
        assert not any(notice.loud for notice in notices)
        assert "by signal 9" in notices[0].text


async def test_the_third_death_in_a_minute_waits_and_names_the_log(tmp_path: Path) -> None:
    async with supervise(Script(SLEEPER, tmp_path / "log")) as (supervised, notices):
        await supervised.start()
        for _ in range(3):
            await eventually(lambda: supervised.state == "ready")
            assert supervised.pid is not None
            os.kill(supervised.pid, signal.SIGKILL)
            await eventually(lambda: supervised.state != "ready")

        await eventually(lambda: supervised.state == "waiting")

        loud = [notice.text for notice in notices if notice.loud]
        assert len(loud) == 1
        assert "3 times within a minute" in loud[0]
        assert str(tmp_path / "log") in loud[0]
        assert supervised.restarts == 3


async def test_a_process_that_dies_at_every_start_fails_with_the_end_of_its_log(tmp_path: Path) -> None:
    part = Script("import sys; sys.exit('the reason is here')", tmp_path / "log")
    part.is_ready = _never  # type: ignore[method-assign]
    async with supervise(part) as (supervised, _):
        with pytest.raises(PartFailed, match=r"(?s)keeps dying.*the reason is here"):
            await supervised.start()


async def test_want_of_space_is_told_apart(tmp_path: Path) -> None:
    part = Script("raise OSError(28, 'No space left on device')", tmp_path / "log")
    part.is_ready = _never  # type: ignore[method-assign]
    async with supervise(part) as (supervised, _):
        with pytest.raises(DiskFull, match="no space left on the data folder"):
            await supervised.start()


async def test_a_part_that_is_never_ready_fails_at_its_deadline(tmp_path: Path) -> None:
    part = Script(SLEEPER, tmp_path / "log", Timing(ready_within_s=0.5))
    part.is_ready = _never  # type: ignore[method-assign]
    async with supervise(part) as (supervised, _):
        with pytest.raises(PartFailed, match="was not ready within"):
            await supervised.start()


async def test_what_the_part_answered_last_is_told_at_the_deadline(tmp_path: Path) -> None:
    part = Script(SLEEPER, tmp_path / "log", Timing(ready_within_s=0.5))
    part.is_ready = _raises  # type: ignore[method-assign]
    async with supervise(part) as (supervised, _):
        with pytest.raises(PartFailed, match="failed with RuntimeError: half awake"):
            await supervised.start()


async def test_a_part_that_cannot_be_prepared_for_a_while_is_kept(tmp_path: Path) -> None:
    part = Script(SLEEPER, tmp_path / "log")
    async with supervise(part) as (supervised, notices):
        await supervised.start()
        assert supervised.pid is not None
        prepare, part.prepare = part.prepare, _no_space  # type: ignore[method-assign]

        os.kill(supervised.pid, signal.SIGKILL)
        await eventually(lambda: any("cannot start" in notice.text for notice in notices))
        part.prepare = prepare  # type: ignore[method-assign]

        await eventually(lambda: supervised.state == "ready", within_s=15)
        assert any("No space left" in notice.text and notice.loud for notice in notices)


async def test_an_orderly_stop_is_told_to_the_part_and_leaves_no_process(tmp_path: Path) -> None:
    part = Script(SLEEPER, tmp_path / "log")
    async with supervise(part) as (supervised, notices):
        await supervised.start()
        pid = supervised.pid
        assert pid is not None
        await supervised.stop()

        assert part.orderly_stops == 1
        assert notices == []
        assert not psutil.pid_exists(pid)


async def test_a_process_that_ignores_the_signal_is_killed_loudly(tmp_path: Path) -> None:
    part = Script(STUBBORN, tmp_path / "log", Timing(ready_within_s=15, stop_within_s=0.3))
    async with supervise(part) as (supervised, notices):
        await supervised.start()
        await supervised.stop()

        assert part.orderly_stops == 0
        assert [notice.loud for notice in notices] == [True]


async def test_the_descendants_of_a_dead_process_are_ended_too(tmp_path: Path) -> None:
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]); {SLEEPER}"
    async with supervise(Script(code, tmp_path / "log")) as (supervised, _):
        await supervised.start()
        parent = supervised.pid
        assert parent is not None
        await eventually(lambda: psutil.Process(parent).children() != [])
        child = psutil.Process(parent).children()[0]

        os.kill(parent, signal.SIGKILL)

        await eventually(lambda: not lives(child))


async def test_descendants_end_with_a_killed_supervisor_too(tmp_path: Path) -> None:
    """The kernel ends the part; its child, which nothing ties to anyone, is the guard's."""
    child = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]); {SLEEPER}"
    supervisor = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SUPERVISOR, child, str(tmp_path / "log")),
        stdout=asyncio.subprocess.PIPE,
    )
    assert supervisor.stdout is not None
    await supervisor.stdout.readline()
    part = psutil.Process(supervisor.pid).children()[-1]
    await eventually(lambda: part.children() != [])
    family = [part, *part.children()]

    supervisor.kill()
    await supervisor.wait()

    await eventually(lambda: not [process for process in family if lives(process)])


async def _never() -> bool:
    return False


async def _raises() -> bool:
    raise RuntimeError("half awake")


async def _no_space() -> Command:
    raise OSError(28, "No space left on device")
