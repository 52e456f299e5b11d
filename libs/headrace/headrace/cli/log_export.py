"""``headrace log export``: parts of the log as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from headrace.cli.output import Json, console, print_json, print_table
from headrace.client import connect
from headrace.connection import SERVICES, find
from headrace.events.event import chosen_services
from headrace.export.writers import Format


def export(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to make; never written over.")],
    kind: Annotated[Format, typer.Option("--format", help="Format of the files.")] = Format.JSONL,
    start: Annotated[str, typer.Option("--from", help="First event: a time, or a position of one service.")] = "",
    end: Annotated[str, typer.Option("--to", help="First event no longer taken: a time, or a position.")] = "",
    service: Annotated[list[str] | None, typer.Option(help="Only this service; may be repeated.")] = None,
    as_json: Json = False,
) -> None:
    """Write a part of the log to files, one a service, with a manifest; the same part gives the same SHA-256."""
    from headrace.export import export_logs, parse_bound, resolve

    connection = find()
    known = tuple(name for name in SERVICES if connection.addresses.get(name))
    services = chosen_services(service or None, SERVICES if service else known)
    first, after = parse_bound(start, name="from"), parse_bound(end, name="to")
    with connect(connection) as client, progress_bar() as bar:
        ranges = resolve(client, services, start=first, end=after)
        task = bar.add_task("events", total=sum(each.count for each in ranges))
        files = export_logs(client, ranges, output, kind=kind, advance=lambda count: bar.advance(task, count))
    if as_json:
        print_json([{name: getattr(each, name) for name in each.__slots__} for each in files])
        return
    rows = [(each.file, each.first_position, each.last_position, each.count, each.sha256) for each in files]
    print_table(str(output), ("file", "first", "last", "events", "SHA-256"), rows, empty="No service is known.")
    console.print(f"{sum(each.count for each in files)} events in {output}", soft_wrap=True)


def progress_bar() -> Progress:
    """A progress bar on standard error; silent where that is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    screen = Console(stderr=True)
    return Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal)
