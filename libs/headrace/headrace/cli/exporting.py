"""What `runs export` and `models export` have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from headrace.cli.output import print_fields, print_json, short

if TYPE_CHECKING:
    from headrace.bundles import Exported

Output = Annotated[Path, typer.Option("-o", "--output", help="File to make; never written over.")]


@contextmanager
def exporting() -> Iterator[Callable[[str], None]]:
    """Says on the terminal, while there is one, what is being written."""
    screen = Console(stderr=True)
    if not screen.is_terminal:
        yield lambda _: None
        return
    with screen.status("reading") as status:
        yield lambda name: status.update(f"writing {name}")


def print_exported(written: Exported, *, as_json: bool) -> None:
    """Says what a file holds."""
    if as_json:
        print_json({name: getattr(written, name) for name in written.__slots__})
        return
    fields = [
        ("runs", ", ".join(map(short, written.runs))),
        ("logged models", ", ".join(map(short, written.logged_models))),
        ("models", ", ".join(map(short, written.models))),
        ("objects", written.objects),
        ("size", f"{written.size_bytes} bytes"),
        ("manifest", f"sha256 {written.sha256}"),
    ]
    print_fields(str(written.path), fields)
