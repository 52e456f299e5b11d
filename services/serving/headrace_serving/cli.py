"""Serving's part of the command line: ``headrace score`` and ``headrace models replay``."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from headrace.cli.output import Json, Project, print_fields, print_json


def register(app: typer.Typer) -> None:
    """Adds ``headrace score`` and ``headrace models replay`` to the command line."""
    from headrace.cli import models

    app.command("score")(score)
    models.app.command("replay")(replay)


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


def replay(
    model: Annotated[str, typer.Argument(help="Id of the model.")],
    version: Annotated[int, typer.Argument(help="Number of the version that answers again.", min=1)],
    *,
    endpoint: Annotated[str, typer.Option(help="Endpoint whose requests are answered again.")],
    last: Annotated[int, typer.Option(help="How many of the last requests.", min=1, max=1_000_000)] = 1000,
    allow_pickle: Annotated[bool, typer.Option(help="Consent to a pickle, which can run any code.")] = False,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Answer the last logged requests of an endpoint again, and record how the answers differ."""
    from headrace.client import connect
    from headrace.errors import HeadraceError
    from headrace_kit.errors import KitError
    from headrace_serving import replaying

    with Console(stderr=True).status("reading the log") as status, connect() as client:
        try:
            made = asyncio.run(
                replaying.run(
                    client,
                    f"projects/{project}/models/{model}/versions/{version}",
                    f"projects/{project}/endpoints/{endpoint}",
                    last=last,
                    allow_pickle=allow_pickle,
                    progress=lambda count: status.update(f"{count:,} requests"),
                )
            )
        except KitError as error:
            raise HeadraceError(error.message, reason=error.reason) from error
    found = made.replay
    if as_json:
        print_json(made)
    else:
        print_fields(
            made.detail,
            [
                ("rows", found.rows),
                ("max_difference", f"{found.max_difference:.6g}"),
                ("mean_difference", f"{found.mean_difference:.6g}"),
                ("changed_share", f"{found.changed_share:.6g}"),
                ("requests", f"sha256 {found.digest}"),
                ("event", made.event_id),
            ],
        )
    if not made.passed:
        raise typer.Exit(1)
