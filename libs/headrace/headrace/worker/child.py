"""The process of one attempt of a step: reads what to do, calls the function, writes what became of it."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from headrace.pipelines.codec import decode_arguments, encode
from headrace.pipelines.context import StepContext, enter
from headrace.pipelines.graph import Step
from headrace.worker.preload import give_way, imported

MAX_ERROR_LENGTH = 8000
INPUT, RESULT = "input.json", "result.json"


def run(folder: Path) -> int:
    """Carries out the attempt described in ``input.json`` and writes ``result.json``; returns the exit status."""
    given: dict[str, Any] = json.loads((folder / INPUT).read_text())  # Any: JSON
    before = frozenset(sys.modules)
    enter(
        StepContext(
            run=given["run"],
            step=given["step"],
            attempt=given["attempt"],
            token=given["token"],
            folder=folder / "work",
            causation_id=given["causation_id"],
            correlation_id=given["correlation_id"],
            on_behalf_of=given["on_behalf_of"],
        )
    )
    if given["source_path"]:
        sys.path.insert(0, given["source_path"])
        give_way(given["source_path"])
    try:
        function = load(given["function"])
        value = function(**decode_arguments(function, given["arguments"]))
        result: dict[str, object] = {"json": encode(value), "imported": imported(before)}
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt end a step as well
        traceback.print_exc()
        text = f"{error}\n{''.join(traceback.format_tb(error.__traceback__)[-3:])}".strip()
        result = {"error_class": type(error).__qualname__[:200], "error": text[:MAX_ERROR_LENGTH]}
    _flush()
    partial = folder / f"{RESULT}.partial"
    partial.write_text(json.dumps(result))
    partial.replace(folder / RESULT)
    return 0 if "json" in result else 1


def load(name: str) -> Callable[..., object]:
    """The plain function of ``package.module:function``. Raises ImportError, AttributeError."""
    module, _, path = name.partition(":")
    found: Any = import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    function: Callable[..., object] = found.function if isinstance(found, Step) else found
    return function


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.write(2, b"")  # a step may close its own streams; what it wrote before is in the log
