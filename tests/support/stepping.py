"""Pipelines for tests of real workers. Steps leave marks in a folder, and wait there for what the test allows."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from headrace.api.registry.v1.service_pb2 import CreateModelRequest
from headrace.client import connect
from headrace.pipelines import pipeline, step, step_context

PATIENCE_S = 60.0


def mark(folder: str, name: str, text: str = "") -> None:
    """Adds a line to the mark ``name``: who did it, in which attempt."""
    with (Path(folder) / name).open("a") as file:
        file.write(text or f"{os.getpid()} {step_context().attempt}")
        file.write("\n")


def marks(folder: Path, name: str) -> list[str]:
    """The lines of a mark."""
    path = folder / name
    return path.read_text().splitlines() if path.exists() else []


def allow(folder: Path, name: str) -> None:
    """Lets the steps go on that wait for ``name``."""
    (folder / f"{name}.go").touch()


def wait_for(folder: str, name: str) -> None:
    """Waits until the test allows it."""
    deadline = time.monotonic() + PATIENCE_S
    while not (Path(folder) / f"{name}.go").exists():
        if time.monotonic() > deadline:
            raise TimeoutError(name)
        time.sleep(0.01)


@step
def first(folder: str) -> int:
    """Leaves a mark."""
    mark(folder, "first")
    print("the first step")
    return 1


@step(retries=2, backoff_s=0.05)
def held(folder: str, number: int) -> int:
    """Leaves a mark and waits."""
    mark(folder, "held")
    wait_for(folder, "held")
    return number + 1


@step
def last(folder: str, number: int) -> int:
    """Leaves a mark."""
    mark(folder, "last")
    return number + 1


@pipeline(name="stepping")
def stepping(folder: str) -> None:
    """Three steps, of which the second waits."""
    last(folder, held(folder, first(folder)))


@step
def fails_until_allowed(folder: str, number: int) -> int:
    """Fails until the test allows it not to."""
    mark(folder, "fails")
    if not (Path(folder) / "fails.go").exists():
        raise ValueError("not yet")
    return number


@pipeline(name="failing")
def failing(folder: str) -> None:
    """Two steps, of which the second fails."""
    fails_until_allowed(folder, first(folder))


@step(retries=1, backoff_s=0.05, timeout_s=1.0)
def takes_too_long_once(folder: str) -> None:
    """Is ended in its first attempt."""
    mark(folder, "slow")
    if step_context().attempt == 1:
        wait_for(folder, "never")


@pipeline(name="slow")
def slow(folder: str) -> None:
    """One step over its time."""
    takes_too_long_once(folder)


@step
def breeds(folder: str) -> None:
    """Starts a child, one in a session of its own, an orphan in another, and a copy of itself; then waits."""
    wait = "import time; time.sleep(300)"
    orphan = f"import os\nif os.fork() == 0:\n os.setsid()\n if os.fork() == 0:\n  {wait}\n os._exit(0)"
    subprocess.Popen([sys.executable, "-c", wait])
    subprocess.Popen([sys.executable, "-c", wait], start_new_session=True)
    subprocess.run([sys.executable, "-c", orphan], check=True)
    if os.fork() == 0:
        wait_for(folder, "never")
        os._exit(0)
    mark(folder, "bred", f"{os.getpid()} {os.environ['HEADRACE_STEP_TOKEN']}")
    wait_for(folder, "never")


@pipeline(name="breeding")
def breeding(folder: str) -> None:
    """One step with many descendants."""
    breeds(folder)


@step
def large(count: int) -> str:
    """A text of ``count`` characters."""
    return "x" * count


@step
def length(text: str) -> int:
    """Its length."""
    return len(text)


@pipeline(name="large")
def large_outputs(count: int) -> None:
    """Hands a large output over."""
    length(large(count))


@step
def note_model(model: str) -> str:
    """Gives back the name of a model."""
    return model


@pipeline(name="on-model")
def on_model(model: str) -> None:
    """What a trigger starts."""
    note_model(model)


@step
def creates_model(name: str) -> None:
    """Calls another service."""
    with connect() as client:
        client.registry.CreateModel(
            CreateModelRequest(command_id=str(step_context().command_id("create")), name=name), timeout=20
        )


@pipeline(name="calling")
def calling(name: str) -> None:
    """One step that calls another service."""
    creates_model(name)
