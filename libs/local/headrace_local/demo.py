"""``headrace demo``: the whole platform and the example of ``examples/flights``, from nothing to the report."""

# The example is a package of the source tree, not an installed one: inside this module Any is what it is.
# ruff: noqa: ANN401

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from headrace.connection import find
from headrace.pipelines.running import PipelineRunFailed
from headrace_local.background import BackgroundStack
from headrace_local.errors import LocalError
from headrace_local.folder import default_path
from headrace_local.foreground import jar_progress
from headrace_local.stack import Stack

_REFRESH_S = 0.25


class DemoMissing(LocalError):
    """The example is not here: it is part of the source, not of the installed packages."""

    reason = "DEMO_MISSING"


def new_folder() -> Path:
    """A fresh data folder for a demo, beside the user's own."""
    return default_path().parent / "headrace-demo" / datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")


def run(data: Path, console: Console, *, pace: float | None, as_json: bool, keep: bool) -> int:
    """Run the demo; return the exit status: 0 when the loop closed, 1 when it did not, 130 when it was stopped.

    Raises:
        LocalError: the platform could not be started, or the example is not here.
    """
    flights = _example()
    began = time.monotonic()
    try:
        with jar_progress(console) as progress:
            stack = BackgroundStack(Stack(data, jar_progress=progress, report=lambda each: console.print(str(each))))
            console.print(f"starting the platform in {data} ...", highlight=False)
            stack.start()
    except KeyboardInterrupt:
        console.print("stopped before it was ready", highlight=False)
        return 130
    status = 1
    try:
        link = stack.stack.console_link()
        console.print(f"ready after {time.monotonic() - began:.0f} s; console: {link}", highlight=False, soft_wrap=True)
        status = _play(flights, stack.stack, console, pace=pace, as_json=as_json, link=link)
        if keep:
            console.print("KEEP=1: everything runs on; Ctrl-C stops it", highlight=False)
            # Not one wait without end: libraries replace the handler of SIGINT by one that wakes nobody.
            while True:
                time.sleep(_REFRESH_S)
    except KeyboardInterrupt:
        console.print("stopping ...", highlight=False)
        status = status if keep else 130
    finally:
        stack.stop()
        _print_next(console, data)
    return status


def _play(flights: Any, stack: Stack, console: Console, *, pace: float | None, as_json: bool, link: str) -> int:
    stage, data = flights.demo.Stage(), stack.folder.path
    outcome: dict[str, Any] = {}

    def work() -> None:
        try:
            outcome["report"] = flights.demo.play(find(data, {}), pace=pace, stage=stage)
        except Exception as error:  # noqa: BLE001 - whatever it is, the person who watches is told
            outcome["error"] = error

    # The steps of the example's pipelines find the platform by the environment that the worker gives them; what the
    # example starts from here finds it by this.
    os.environ["HEADRACE_DATA"] = str(data)
    thread = threading.Thread(target=work, name="demo", daemon=True)
    thread.start()
    try:
        with Live(
            console=console,
            refresh_per_second=4,
            get_renderable=lambda: flights.picture.picture(stage, console_url=link),
        ):
            while thread.is_alive():
                thread.join(_REFRESH_S)
    except KeyboardInterrupt:
        stage.stopped.set()
        thread.join(10)
        raise
    if "error" in outcome:
        log = log_to_read(outcome["error"], {name: part.state for name, part in stack.supervised.items()})
        console.print(f"[bold red]the demo failed[/] while {stage.title}: {outcome['error']}", highlight=False)
        console.print(f"read {data / 'logs' / log}", highlight=False, soft_wrap=True)
        if as_json:
            failure = {"error": str(outcome["error"]), "while": stage.title, "log": str(data / "logs" / log)}
            sys.stdout.write(json.dumps(failure, indent=2) + "\n")
        return 1
    report = outcome["report"]
    if as_json:
        sys.stdout.write(json.dumps(report.as_dict(), indent=2) + "\n")
    for line in flights.picture.report_lines(report):
        console.print(line, highlight=False)
    return 0 if report.closed else 1


def log_to_read(error: Exception, states: Mapping[str, str]) -> str:
    """The log that tells most about a failure: of the part that is not ready, else of the one that refused.

    Args:
        error: What ended the demo.
        states: State of each part, by its name.
    """
    away = [name for name, state in states.items() if state != "ready"]
    if away:
        return f"{away[0]}.log"
    if isinstance(error, PipelineRunFailed):
        return "orchestrator.log"
    text = str(error)
    return f"{next((name for name in states if name in text), 'serving')}.log"


def _example() -> Any:
    root = Path(__file__).resolve().parents[3] / "examples"
    if not (root / "flights" / "demo.py").is_file():
        raise DemoMissing("the demo is part of the project's source: clone it and type `make demo`")
    sys.path.insert(0, str(root))
    package = import_module("flights")
    import_module("flights.demo")
    import_module("flights.picture")
    return package


def _print_next(console: Console, data: Path) -> None:
    console.print(f"\nEverything lies in {data}. To look at it again:", highlight=False, soft_wrap=True)
    console.print(f"  headrace up --data {data}", highlight=False, soft_wrap=True)
    for command in ("headrace models show delays", "headrace log tail", "headrace alerts list"):
        console.print(f"  HEADRACE_DATA={data} {command}", highlight=False, soft_wrap=True)
