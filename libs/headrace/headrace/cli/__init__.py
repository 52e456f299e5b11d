"""The ``headrace`` command line.

Other distributions add commands through the entry point group ``headrace.commands``: each entry is a function that
takes the ``typer.Typer`` application and registers its commands on it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import entry_points
from typing import Final

import typer

from headrace.cli import imports
from headrace.cli.lineage import lineage
from headrace.cli.reproduce import reproduce
from headrace.cli.sync import sync
from headrace.cli.worker import worker
from headrace.errors import HeadraceError

GROUPS: Final = (
    "runs",
    "traces",
    "models",
    "pipelines",
    "endpoints",
    "monitors",
    "alerts",
    "telemetry",
    "persons",
    "webhooks",
    "log",
)
"""Modules of this package, each with an ``app``; ``imports`` is one too, and Python does not let it be ``import``."""


def build() -> typer.Typer:
    """Return the application with every installed distribution's commands."""
    app = typer.Typer(
        name="headrace",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        help="headrace: track, register, orchestrate, serve and watch models, as one system.",
    )
    for entry in sorted(entry_points(group="headrace.commands"), key=lambda found: found.name):
        entry.load()(app)
    for name in GROUPS:
        app.add_typer(import_module(f"headrace.cli.{name}").app, name=name)
    app.command()(lineage)
    app.add_typer(imports.app, name="import")
    app.command()(sync)
    app.command()(reproduce)
    app.command()(worker)
    return app


def main() -> None:
    """Run the command line; an error of the platform is one line and exit status 1."""
    try:
        build()()
    except HeadraceError as error:
        sys.stderr.write(f"error {error.reason}: {error}\n")
        sys.exit(1)
