"""The ``headrace`` command line.

Other distributions add commands through the entry point group ``headrace.commands``: each entry is a function that
takes the ``typer.Typer`` application and registers its commands on it.
"""

from __future__ import annotations

from importlib.metadata import entry_points

import typer


def build() -> typer.Typer:
    """Return the application with every installed distribution's commands."""
    app = typer.Typer(name="headrace", no_args_is_help=True, pretty_exceptions_enable=False)
    for entry in sorted(entry_points(group="headrace.commands"), key=lambda found: found.name):
        entry.load()(app)
    return app


def main() -> None:
    """Run the command line."""
    build()()
