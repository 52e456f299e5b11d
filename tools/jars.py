"""Fetch Kafka's jars into the user's cache: ``python tools/jars.py``.

Quick when they are there already; their digests are verified either way.
"""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import Progress

from headrace_local import jars
from headrace_local.errors import LocalError


def main() -> int:
    """Fetch what is missing, with a progress bar."""
    wanted = jars.read_lock(jars.lock_file())
    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("Kafka's jars", total=len(wanted))

        def progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        try:
            jars.ensure(wanted, cache=jars.cache_home(), progress=progress)
        except LocalError as error:
            bar.console.print(f"error: {error}", markup=False)
            return 1
        progress(len(wanted), len(wanted))
    return 0


if __name__ == "__main__":
    sys.exit(main())
