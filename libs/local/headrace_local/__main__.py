"""``python -m headrace_local``: the supervisor that ``headrace up --detach`` leaves in the background."""

from __future__ import annotations

import argparse
import asyncio
import sys
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
    arguments = parser.parse_args()
    only = None if arguments.only is None else tuple(arguments.only.split(","))
    try:
        asyncio.run(run(Plan(arguments.data, only=only, port_base=arguments.port_base), Console(), console_link=False))
    except LocalError as error:
        sys.stderr.write(f"{error.reason}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
