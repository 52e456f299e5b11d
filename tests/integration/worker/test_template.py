"""What steps import is imported beforehand, and nothing else changes by that."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.api.orchestrator.v1.service_pb2 import Lease, StepResult
from headrace.worker.attempt import PROCESS_DIED, Attempt
from headrace.worker.forks import Template

STEPS = """
import os
import sys

def fetch(name: str) -> dict[str, object]:
    there = name in sys.modules
    found = __import__(name)
    return {"there": there, "file": str(found.__file__), "code": 1}

def crash() -> None:
    os.abort()
"""
PACKAGE = "colorlog"
"""Installed, and imported by nothing of headrace."""
WITHIN_S = 60.0


class Rig:
    """A template, and the code of a pipeline."""

    def __init__(self, folder: Path) -> None:
        self.packages: object = 1
        self.template = Template(packages=lambda: self.packages)
        self.source = folder / "source"
        self.source.mkdir()
        (self.source / "some_steps.py").write_text(STEPS)
        self._folder, self._count = folder, 0

    async def attempt(self, function: str, **arguments: str) -> StepResult:
        self._count += 1
        lease = Lease(
            token=self._count,
            run="projects/default/pipelineRuns/r",
            step="s",
            attempt=1,
            function=f"some_steps:{function}",
            source_path=str(self.source),
            timeout_s=WITHIN_S,
            arguments={name: json.dumps(value) for name, value in arguments.items()},
        )
        made = Attempt(lease, self._folder / str(self._count), template=self.template, environment=dict(os.environ))
        await made.run()
        assert made.result is not None
        return made.result

    async def fetched(self, name: str = PACKAGE) -> dict[str, Any]:
        result = await self.attempt("fetch", name=name)
        assert not result.error_class, result.error
        found: dict[str, Any] = json.loads(result.output.json)
        return found


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path)
    try:
        yield made
    finally:
        await made.template.close()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not await condition():
        assert time.monotonic() < deadline, "the condition never came true"


async def is_there(rig: Rig) -> bool:
    return bool((await rig.fetched())["there"])


async def test_what_a_step_imported_is_there_for_the_next_ones_and_its_own_code_is_not(rig: Rig) -> None:
    assert not (await rig.fetched())["there"]
    await until(lambda: is_there(rig))

    steps = rig.source / "some_steps.py"
    steps.write_text(STEPS.replace('"code": 1', '"code": 22'))

    assert (await rig.fetched())["code"] == 22


async def test_code_of_the_pipeline_goes_before_a_package_of_its_name(rig: Rig) -> None:
    await rig.fetched()
    await until(lambda: is_there(rig))
    own = rig.source / f"{PACKAGE}.py"
    own.write_text("")

    assert (await rig.fetched())["file"] == str(own)


async def test_installing_a_package_ends_what_was_imported(rig: Rig) -> None:
    await rig.fetched()
    await until(lambda: is_there(rig))

    rig.packages = 2

    assert not (await rig.fetched())["there"]
    await until(lambda: is_there(rig))


async def test_what_starts_threads_is_not_imported_beforehand(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "with_threads.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    await rig.template.start()
    rig.template.learn(["with_threads"])
    await until(lambda: asyncio.sleep(0.01, not rig.template.is_trusted))

    found = await rig.fetched("with_threads")

    assert not found["there"]


async def test_after_a_crash_each_step_imports_everything_itself(rig: Rig) -> None:
    await rig.fetched()
    await until(lambda: is_there(rig))

    assert (await rig.attempt("crash")).error_class == PROCESS_DIED

    assert not (await rig.fetched())["there"]
    assert not (await rig.fetched())["there"]
