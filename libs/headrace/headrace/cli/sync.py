"""``headrace sync``: sends runs that were recorded offline, or while the tracker was away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from headrace.cli.output import Json, console, print_json
from headrace.errors import InvalidArgument, NotConnected
from headrace.tracking import Sending, SpoolDamagedError, TrackerDownError
from headrace.tracking import sync as send


def sync(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of recorded runs; by default where this machine keeps them.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Send runs that were recorded offline: once, however often this is called or interrupted."""
    if folder is not None and not folder.is_dir():
        raise InvalidArgument(f"{folder} is no folder", field="folder")
    screen = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        bars: dict[str, TaskID] = {}

        def tell(sending: Sending) -> None:
            if sending.run_id not in bars:
                bars[sending.run_id] = progress.add_task(sending.run_id)
            progress.update(bars[sending.run_id], completed=sending.sent, total=sending.size)

        try:
            sent = send(folder, tell=tell)
        except TrackerDownError as error:
            raise NotConnected(f"the tracker can not be reached, what is left stays: {error}") from error
        except SpoolDamagedError as error:
            raise InvalidArgument(str(error), reason="SPOOL_DAMAGED") from error
    if as_json:
        print_json([{"run": run_id} for run_id in sent])
        return
    for run_id in sent:
        console.print(run_id)
    if not sent:
        console.print("Nothing waits to be sent.")
