"""``headrace import``: what others recorded, brought in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from headrace.cli.output import Json, Project, console, print_json, print_table
from headrace.client import connect
from headrace.imports import MlflowServer, Progress, Report, import_csv, import_mlflow

app = typer.Typer(help="Bring in what others recorded; every import can be repeated.", no_args_is_help=True)
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")]
SHOWN = 50
"""Lines about what was left out that are shown; --json has all."""


@app.command("mlflow")
def from_mlflow(
    url: Annotated[str, typer.Argument(help="Tracking URI of the server: http://... or https://...")],
    experiments: Annotated[
        list[str] | None,
        typer.Option(help="An experiment, by name or pattern such as 'nightly-*'; may be repeated. Then no models."),
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option(help="A registered model, by name or pattern; may be repeated. Then no experiments."),
    ] = None,
    token: Annotated[
        str, typer.Option(envvar="MLFLOW_TRACKING_TOKEN", help="Token of the server.", show_envvar=True)
    ] = "",
    username: Annotated[str, typer.Option(envvar="MLFLOW_TRACKING_USERNAME", help="User of the server.")] = "",
    password: Annotated[str, typer.Option(envvar="MLFLOW_TRACKING_PASSWORD", help="Password of the user.")] = "",
    dry_run: DryRun = False,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Import experiments, runs with all they recorded, and registered models from an MLflow server."""
    server = MlflowServer(url, token=token, username=username, password=password)
    with connect() as client, server, _bar() as tell:
        report = import_mlflow(
            client,
            server,
            project=project,
            experiments=experiments or (),
            models=models or (),
            dry_run=dry_run,
            tell=tell,
        )
    show(report, dry_run=dry_run, as_json=as_json)


@app.command("csv")
def from_csv(
    file: Annotated[Path, typer.Argument(help="Table with columns params.*, metrics.*, tags.*, name, start_time.")],
    experiment: Annotated[str, typer.Option(help="Experiment that takes the runs.")],
    dry_run: DryRun = False,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Import a run from each row of a CSV file."""
    with connect() as client, _bar() as tell:
        report = import_csv(client, file, experiment=experiment, project=project, dry_run=dry_run, tell=tell)
    show(report, dry_run=dry_run, as_json=as_json)


@app.command("archive")
def from_archive(
    file: Annotated[Path, typer.Argument(help="File that `runs export` or `models export` wrote.")],
    dry_run: DryRun = False,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Import runs and models from an archive: under their ids where these are free, and nothing twice."""
    from headrace.bundles import import_bundle

    with connect() as client, _bar() as tell:
        report = import_bundle(client, file, project=project, dry_run=dry_run, tell=tell)
    show(report, dry_run=dry_run, as_json=as_json)


def show(report: Report, *, dry_run: bool, as_json: bool) -> None:
    """Says what an import did."""
    kinds = sorted({*report.added, *report.there})
    if as_json:
        left_out = [{"what": each.what, "why": each.why} for each in report.left_out]
        print_json({"added": dict(report.added), "there": dict(report.there), "left_out": left_out})
        return
    rows = [(kind, report.added[kind], report.there[kind]) for kind in kinds]
    added = "would be added" if dry_run else "added"
    print_table("Imported", ("", added, "there already"), rows, empty="There was nothing to import.")
    if report.left_out:
        console.print()
        left = [(each.what, each.why) for each in report.left_out[:SHOWN]]
        print_table(f"Left out: {len(report.left_out)}", ("what", "why"), left, empty="")
        if len(report.left_out) > SHOWN:
            console.print(f"... and {len(report.left_out) - SHOWN} more: --json lists all.")


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    """A bar on the terminal, while there is one."""
    screen = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task("reading", total=None)
        yield lambda progress: bar.update(
            task, description=progress.what[:60], completed=progress.done, total=progress.total
        )
