"""Every command says what it does, and whatever prints something prints it as JSON too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from headrace.cli import build

SILENT = {
    "console", "demo", "down", "logs", "up", "worker", "log export", "log prove", "log replay",
    "pipelines logs", "score", "telemetry read",
}  # fmt: skip
"""Commands that act, stream text, or have JSON of their own kind."""


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:  # Any: typer keeps click to itself
    children = getattr(command, "commands", None)
    if children is None:
        yield " ".join(path), command
        return
    for name, child in children.items():
        yield from leaves(child, (*path, name))


COMMANDS = dict(leaves(typer.main.get_command(build())))


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_command_has_help_and_json(name: str) -> None:
    options = {option for each in COMMANDS[name].params for option in each.opts}

    assert COMMANDS[name].help
    assert "--json" in options or name in SILENT, f"{name} has {sorted(options)}"
