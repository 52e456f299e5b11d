"""``python -m headrace_local``: the supervisor that ``headrace up --detach`` leaves in the background.

On the descriptor of ``--report-to`` it writes one JSON object: ``{"ready": true}``, or ``reason`` and ``message``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from headrace_local.errors import LocalError
from headrace_local.foreground import Plan, run


def main() -> int:
    """Run the stack named by the arguments until SIGTERM; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m headrace_local")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", default=None)
    parser.add_argument("--port-base", type=int, default=None)
    parser.add_argument("--report-to", type=int, default=None)
    arguments = parser.parse_args()
    report = _reporter(arguments.report_to)
    only = None if arguments.only is None else tuple(arguments.only.split(","))
    try:
        plan = Plan(arguments.data, only=only, port_base=arguments.port_base)
        asyncio.run(run(plan, Console(), on_ready=lambda: report({"ready": True})))
    except LocalError as error:
        report({"reason": error.reason, "message": str(error)})
        sys.stderr.write(f"{error.reason}: {error}\n")
        return 1
    return 0


def _reporter(descriptor: int | None) -> Callable[[dict[str, object]], None]:
    """Return what tells the outcome of the start to whoever asked for it: the first call counts."""
    waiting = [] if descriptor is None else [descriptor]
    for number in waiting:
        os.set_inheritable(number, False)  # for us alone, or it stays open for as long as any part runs

    def report(value: dict[str, object]) -> None:
        if waiting:
            with contextlib.suppress(BrokenPipeError), os.fdopen(waiting.pop(), "w") as pipe:
                json.dump(value, pipe)

    return report


if __name__ == "__main__":
    sys.exit(main())
