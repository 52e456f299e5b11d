"""Serving's part of the command line: ``headrace score``."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def register(app: typer.Typer) -> None:
    """Adds ``headrace score`` to the command line."""
    app.command("score")(score)


def score(
    version: Annotated[str, typer.Argument(help="projects/P/models/M/versions/N, or projects/P/models/M@ALIAS")],
    source: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A .parquet or .csv file.")],
    target: Annotated[Path, typer.Argument(dir_okay=False, help="A .parquet or .csv file to write.")],
    *,
    id_column: Annotated[str, typer.Option(help="Column that identifies rows; their number when not given.")] = "",
    publish: Annotated[str, typer.Option(help="Endpoint under which predictions are published as events.")] = "",
    allow_pickle: Annotated[bool, typer.Option(help="Consent to a pickle, which can run any code.")] = False,
) -> None:
    """Score a file with a version of the registry, on this machine."""
    from headrace.connection import find
    from headrace.errors import HeadraceError
    from headrace_kit.errors import KitError
    from headrace_serving import scoring

    console = Console(stderr=True)
    with console.status("loading") as status:

        def progress(rows: int) -> None:
            status.update(f"{rows:,} rows")

        try:
            scored = asyncio.run(
                scoring.run(
                    find(),
                    version,
                    source,
                    target,
                    id_column=id_column,
                    publish=publish,
                    allow_pickle=allow_pickle,
                    progress=progress,
                )
            )
        except KitError as error:
            raise HeadraceError(error.message, reason=error.reason) from error
    console.print(f"{scored.rows:,} rows scored into {target}: {', '.join(scored.columns)}")
