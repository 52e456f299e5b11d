"""``make bench``: measures the whole platform, writes docs/benchmarks.md. ``--quick`` measures less, writes nothing."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from headrace_local import status
from headrace_local.folder import DataFolder
from headrace_local.stack import Stack
from headrace_local.testing import run_infrastructure, temporary_folder
from tests.bench import (
    beside_mlflow,
    event_path,
    evidence,
    loop,
    predicting,
    rebuilding,
    recording,
    searching,
    transferring,
    watching,
    whole_demo,
)
from tests.bench.figures import PAGE, Figure, page
from tests.support.platform import Platform

_UP_BOUND = "imports of the services, on the cores there are"


def main(*, quick: bool) -> None:
    """Measures everything once."""
    figures: list[Figure] = []
    with temporary_folder() as folder:
        data = folder / "data"
        cold = _start_and_stop(data)
        began = time.monotonic()
        platform = Platform(Stack(data))
        platform.start()
        warm = time.monotonic() - began
        try:
            figures.append(Figure("`up`, new data folder, jars cached", f"{cold:.1f} s", "12 s", _UP_BOUND))
            figures.append(Figure("`up`, again", f"{warm:.1f} s", "6 s", _UP_BOUND))
            figures.append(
                Figure(
                    "memory of all processes, idle (PSS)", _memory(data), "under 1 GB", "ten Python processes, one JVM"
                )
            )
            parts = (loop, recording, transferring, predicting, watching, evidence)
            for measure in (part.measure for part in parts):
                for figure in measure(platform, quick=quick):
                    print(f"{figure.what}: {figure.value}", flush=True)
                    figures.append(figure)
        finally:
            platform.stop()
    for figure in rebuilding.measure(quick=quick):
        print(f"{figure.what}: {figure.value}", flush=True)
        figures.append(figure)
    for figure in searching.measure(quick=quick):
        print(f"{figure.what}: {figure.value}", flush=True)
        figures.append(figure)
    for figure in beside_mlflow.measure(quick=quick):
        print(f"{figure.what}: {figure.value}", flush=True)
        figures.append(figure)
    with run_infrastructure() as infrastructure:
        figures += event_path.measure(infrastructure, quick=quick)
    figures += whole_demo.measure(quick=quick)
    print(page(figures))
    if not quick:
        PAGE.write_text(page(figures), encoding="utf-8")


def _start_and_stop(data: Path) -> float:
    began = time.monotonic()
    platform = Platform(Stack(data))
    platform.start()
    taken = time.monotonic() - began
    platform.stop()
    return taken


def _memory(data: Path) -> str:
    found = status.read(DataFolder(data)) or status.NOTHING
    return f"{found.memory_bytes / 2**20:.0f} MiB"


if __name__ == "__main__":
    main(quick="--quick" in sys.argv)
