"""What commands of the local stack have in common: the data folder, JSON, and how an error is told."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from headrace_local.errors import LocalError
from headrace_local.folder import DataFolder, default_path

Data = Annotated[Path | None, typer.Option("--data", help="Data folder; default: headrace in your state folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def data_folder(data: Path | None) -> DataFolder:
    """The folder that was named, or the user's own."""
    return DataFolder(default_path() if data is None else data.expanduser().absolute())


@contextlib.contextmanager
def local_errors() -> Generator[None]:
    """Tells an error of the local stack in one line, and ends with status 1."""
    try:
        yield
    except LocalError as error:
        Console(stderr=True, soft_wrap=True).print(
            f"[bold red]error[/] {error.reason}: {escape(str(error))}", highlight=False
        )
        raise typer.Exit(1) from error
