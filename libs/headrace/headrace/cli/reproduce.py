"""``headrace reproduce``: does again what a run did."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from headrace.api.tracking.v1 import service_pb2 as service
from headrace.cli.output import Json, Project, console, print_json, short
from headrace.client import Client, connect
from headrace.errors import AlreadyExists, FailedPrecondition, Violation
from headrace.reproduce import Plan, Step, Tools, captured_diff, carry_out, plan


def reproduce(
    run: Annotated[str, typer.Argument(help="Id of the run.")],
    folder: Annotated[
        Path | None, typer.Option(help="Folder for code and packages, which must not exist; by default reproduced-ID.")
    ] = None,
    repository: Annotated[Path, typer.Option(help="Repository that may have the commit.")] = Path(),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the steps.")] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Go on without what was not captured.")] = False,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Do again what a run did: its commit and changes, its packages, its data, its command; as a new run."""
    name = run if run.startswith("projects/") else f"projects/{project}/runs/{run}"
    with connect() as client:
        found = client.tracking.GetRun(service.GetRunRequest(name=name)).run
        where = folder or Path(f"reproduced-{short(name)[:8]}")
        if where.exists() and not dry_run:
            raise AlreadyExists(f"{where} exists: give another --folder", field="folder")
        tools = Tools.of_machine(found.environment.python)
        made = plan(found, captured_diff(client, found), folder=where, repository=repository.resolve(), tools=tools)
        if dry_run:
            _print(made, as_json=as_json)
            return
        if made.missing and not anyway:
            raise _not_captured(name, made)
        for each in (*made.missing, *made.notes):
            sys.stderr.write(f"note: {each}\n")
        carry_out(made.steps, client, tell=_tell)
        again = _runs_of(client, name)
    if as_json:
        print_json([{"run": each} for each in again])
        return
    for each in again[:1]:
        console.print(f"reproduced as {short(each)}; compare: headrace runs compare {short(name)} {short(each)}")
    if not again:
        console.print("The command was run, and recorded no run.")


def _tell(step: Step) -> None:
    sys.stderr.write(f"+ {step.shell}\n")
    sys.stderr.flush()


def _print(made: Plan, *, as_json: bool) -> None:
    if as_json:
        print_json({"steps": [each.shell for each in made.steps], "missing": made.missing, "notes": made.notes})
        return
    for step in made.steps:
        typer.echo(step.shell)
    for each in made.missing:
        typer.echo(f"# missing: {each}")
    for each in made.notes:
        typer.echo(f"# note: {each}")


def _not_captured(name: str, made: Plan) -> FailedPrecondition:
    error = FailedPrecondition(
        f"not everything was captured: {'; '.join(made.missing)} (--anyway goes on without)", reason="NOT_CAPTURED"
    )
    error.violations = tuple(Violation("capture", name, each) for each in made.missing)
    return error


def _runs_of(client: Client, name: str) -> list[str]:
    """Runs that did again what the run did, the newest first."""
    request = service.SearchRunsRequest(
        parent="/".join(name.split("/")[:2]), filter=f"tag.`headrace.reproduces` = '{name}'", page_size=10
    )
    return [each.name for each in client.tracking.SearchRuns(request).runs]
