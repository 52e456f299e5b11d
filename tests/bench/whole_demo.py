"""The demo as people type it: from nothing to its report, everything stopped again."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from headrace_local.testing import temporary_folder
from tests.bench.figures import Figure

_HEADRACE = str(Path(sys.executable).with_name("headrace"))


def measure(*, quick: bool) -> Iterator[Figure]:
    """Runs it alone, so call it while no platform runs. Raises CalledProcessError when the loop did not close."""
    if quick:
        return
    with temporary_folder() as folder:
        began = time.monotonic()
        subprocess.run([_HEADRACE, "demo", "--json", "--data", str(folder / "data")], check=True, capture_output=True)
        yield Figure(
            "`headrace demo`, the whole of it, jars cached",
            f"{time.monotonic() - began:.0f} s",
            "90 s",
            "its pace of 5,000 flights/s: 57 s",
        )
