"""``headrace worker``: runs steps of pipelines on this machine."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from headrace.connection import find


def worker(
    address: Annotated[str, typer.Option(help="host:port of the orchestrator; found when it is not given.")] = "",
    capacity: Annotated[int, typer.Option(min=1, max=1000, help="Steps at a time; by default one for each CPU.")] = 0,
    drain_s: Annotated[float, typer.Option(min=0, help="Seconds that steps under way have at the first Ctrl-C.")] = 30,
) -> None:
    """Run steps of pipelines until Ctrl-C; a second one ends the steps under way at once."""
    from headrace.worker.running import run_worker

    connection = find()
    status = run_worker(
        address or connection.address("orchestrator"),
        lambda: find().token,
        capacity=capacity or os.cpu_count() or 1,
        drain_s=drain_s,
    )
    raise typer.Exit(status)
