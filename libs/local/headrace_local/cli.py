"""The commands of the local stack: ``headrace up | down | status | logs | console``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from headrace_local import tokens_cli
from headrace_local.arguments import AsJson, Data, data_folder, local_errors
from headrace_local.names import select


def register(app: typer.Typer) -> None:
    """Add the commands of the local stack to the command line."""
    app.command("up")(up)
    app.command("down")(down)
    app.command("status")(show_status)
    app.command("logs")(logs)
    app.command("console")(console_link)
    app.command("demo")(demo)
    app.add_typer(tokens_cli.app, name="tokens")


def up(
    *,
    data: Data = None,
    only: Annotated[str | None, typer.Option(help="Run these parts and what they need: tracking,registry")] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when all is ready; stop it with `down`.")
    ] = False,
    port_base: Annotated[
        int | None, typer.Option(min=1024, max=65000, help="Pin the ports to consecutive numbers from here.")
    ] = None,
) -> None:
    """Start PostgreSQL, Kafka, S3 and the services on one data folder, and keep them running."""
    from headrace_local import detached, foreground

    console = Console()
    with local_errors():
        plan = foreground.Plan(data_folder(data).path, only=_split(only), port_base=port_base)
        select(plan.only)
        if detach:
            detached.start(plan, console)
        else:
            asyncio.run(foreground.run(plan, console))


def down(*, data: Data = None) -> None:
    """Stop the stack of a data folder, services first, everything drained."""
    from headrace_local import detached

    console = Console()
    folder = data_folder(data)
    with local_errors():
        if detached.stop(folder, console):
            console.print(f"stopped; the data stays in {folder.path}")
        else:
            console.print(f"nothing runs on {folder.path}")


def show_status(*, data: Data = None, as_json: AsJson = False) -> None:
    """Show what runs, where it listens, and how often it was restarted; exit status 1 when nothing runs."""
    from headrace_local import status

    console = Console()
    folder = data_folder(data)
    with local_errors():
        folder.check_version()
        found = status.read(folder)
        if as_json:
            typer.echo(json.dumps(status.as_json(found, folder), indent=2))
        elif found is None:
            console.print(f"nothing runs on {folder.path}")
        else:
            console.print(status.table(found))
    if found is None:
        raise typer.Exit(1)


def logs(
    name: Annotated[str | None, typer.Argument(help="A part, such as kafka or tracking; all when left out.")] = None,
    *,
    data: Data = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing what is added.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Last lines to print of each log.")] = 40,
) -> None:
    """Print the last lines of a part's log, or of all logs."""
    from headrace_local import logfiles

    with local_errors(), contextlib.suppress(KeyboardInterrupt):
        for line in logfiles.read(data_folder(data), name, lines=lines, follow=follow):
            typer.echo(line)


def console_link(*, data: Data = None) -> None:
    """Print a fresh link that opens the web console once."""
    from headrace_local import detached

    with local_errors():
        typer.echo(detached.console_link(data_folder(data)))


def demo(
    *,
    data: Annotated[Path | None, typer.Option("--data", help="A new data folder; default: a fresh one.")] = None,
    pace: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Flights a second at most; 0: as fast as the machine goes. "
            "Default: 5,000, or fewer where training takes long.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the closed loop on a year of flights: train, serve, watch, retrain, roll back (KEEP=1 keeps it running)."""
    from headrace_local import demo as demos

    console = Console(stderr=as_json)
    with local_errors():
        folder = demos.new_folder() if data is None else data.expanduser().absolute()
        status = demos.run(folder, console, pace=pace, as_json=as_json, keep=bool(os.environ.get("KEEP")))
    raise typer.Exit(status)


def _split(only: str | None) -> tuple[str, ...] | None:
    if only is None:
        return None
    return tuple(name for name in (part.strip() for part in only.split(",")) if name)
