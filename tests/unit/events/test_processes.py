"""Subscribers as processes of their own: killed, started again, and the examples."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.support.subscribing import Logs, served_logs, until_true

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "subscribers"
EVENTS = 3000
CONSUMER = """
import sys, headrace
with open(sys.argv[1], "a") as file, headrace.events.subscribe("killed", start="beginning") as subscription:
    for delivery in subscription:
        with delivery as event:
            print(event.service, event.position, file=file, flush=True)
"""


@pytest.fixture
async def logs(tmp_path: Path) -> AsyncIterator[Logs]:
    async with served_logs(tmp_path, "monitor", "registry") as served:
        yield served


@asynccontextmanager
async def started(logs: Logs, folder: Path, *arguments: str | Path) -> AsyncIterator[Process]:
    """Python with these arguments, killed at the end."""
    environment = {**os.environ, **logs.environment, "HEADRACE_DATA": str(folder)}
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, env=environment)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def lines(path: Path) -> list[tuple[str, int]]:
    """What a consumer wrote; a line that the kill cut off is left out."""
    if not path.exists():
        return []
    whole = path.read_text().splitlines(keepends=True)
    return [(each.split()[0], int(each.split()[1])) for each in whole if each.endswith("\n")]


def reached(path: Path, before: set[tuple[str, int]], *, goal: int) -> bool:
    """Whether so many events were seen by all runs together."""
    return len(before | set(lines(path))) >= goal


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_consumer_that_is_killed_sees_every_event_and_skips_none(logs: Logs, tmp_path: Path) -> None:
    for number in range(EVENTS // 2):
        await logs.promote(str(number))
        await logs.raise_alert(str(number))
    runs: list[list[tuple[str, int]]] = []
    while not runs or len({each for run in runs for each in run}) < EVENTS:
        path = tmp_path / f"seen-{len(runs)}"
        before = {each for run in runs for each in run}
        goal = min(len(before) + EVENTS // 6, EVENTS)
        async with started(logs, tmp_path / "data", "-c", CONSUMER, path) as process:
            await until_true(partial(reached, path, before, goal=goal))
            assert process.returncode is None
        runs.append(lines(path))
    assert len(runs) > 1
    everything = [(name, position) for position in range(1, EVENTS // 2 + 1) for name in ("registry", "monitor")]
    furthest = 0
    for run in runs:
        begin = everything.index(run[0])
        assert begin <= furthest  # a run begins with a repeat, or where the last one ended
        assert run == everything[begin : begin + len(run)]
        furthest = max(furthest, begin + len(run))
    assert furthest == EVENTS


class Hook(BaseHTTPRequestHandler):
    """Keeps what is posted."""

    got: list[dict[str, str]]

    def do_POST(self) -> None:
        self.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, str]]]]:
    got: list[dict[str, str]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OwnHook", (Hook,), {"got": got}))
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", got
    server.shutdown()
    server.server_close()
    thread.join()


def teller(folder: Path) -> tuple[Path, Path]:
    """A command that keeps what it is told, and where."""
    told, command = folder / "told", folder / "tell"
    command.write_text(f'#!/bin/sh\necho "$1" >> {told}\n')
    command.chmod(0o755)
    return command, told


async def test_the_example_posts_alerts_and_runs_a_command(
    logs: Logs, tmp_path: Path, webhook: tuple[str, list[dict[str, str]]]
) -> None:
    url, got = webhook
    command, told = teller(tmp_path)
    await logs.raise_alert("old")
    arguments = (EXAMPLES / "alerts.py", "--start", "beginning", "--webhook", url, "--command", command)
    async with started(logs, tmp_path / "data", *arguments):
        await until_true(lambda: len(got) == 1)
        await logs.raise_alert("new")
        await until_true(lambda: told.exists() and told.read_text().split() == ["old", "new"])
    assert [each["summary"] for each in got] == ["old", "new"]
    assert all(each["alert"].startswith("projects/default/alerts/") for each in got)


async def test_the_asynchronous_example_runs_a_command(logs: Logs, tmp_path: Path) -> None:
    command, told = teller(tmp_path)
    for number in range(8):
        await logs.raise_alert(str(number))
    arguments = (EXAMPLES / "alerts_async.py", command, "--start", "beginning")
    async with started(logs, tmp_path / "data", *arguments):
        await until_true(lambda: told.exists() and len(told.read_text().split()) == 8)
    assert sorted(told.read_text().split()) == [str(number) for number in range(8)]


async def test_an_example_that_can_not_tell_ends_and_goes_on_there(logs: Logs, tmp_path: Path) -> None:
    command, told = teller(tmp_path)
    await logs.raise_alert("first")
    arguments = (EXAMPLES / "alerts.py", "--start", "beginning", "--command")
    async with started(logs, tmp_path / "data", *arguments, "/bin/false") as process:
        async with asyncio.timeout(30):
            assert await process.wait() == 1
    async with started(logs, tmp_path / "data", *arguments, command):
        await until_true(lambda: told.exists() and told.read_text().split() == ["first"])
