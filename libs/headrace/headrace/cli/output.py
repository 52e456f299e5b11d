"""How commands speak: tables for people, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated

import orjson
import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table

from headrace.errors import InvalidArgument

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Project = Annotated[str, typer.Option("--project", envvar="HEADRACE_PROJECT", help="Project.")]

console = Console(highlight=False)


def print_done(sentence: str, value: Message, *, as_json: bool) -> None:
    """Says what was done, or prints what came of it as JSON."""
    if as_json:
        print_json(value)
    else:
        console.print(sentence)


def print_json(value: object) -> None:
    """Prints a value, or a message or messages, as JSON."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS
    typer.echo(orjson.dumps(_plain(value), option=options, default=str).decode())


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Prints rows under their columns; ``empty`` says what to do where there are none."""
    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console.print(table if table.row_count else f"[dim]{empty}[/dim]")


def print_fields(title: str, fields: Iterable[tuple[str, object]]) -> None:
    """Prints names and values below each other; empty values are left out."""
    table = Table(title=title, title_justify="left", box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in fields:
        if value not in ("", None, 0):
            table.add_row(name, str(value))
    console.print(table)


def fields_of(message: Message) -> dict[str, object]:
    """The fields of a message for JSON, those that are zero or empty too."""
    plain: dict[str, object] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return plain


def when(stamp: Timestamp) -> str:
    """A time for people: UTC, to the second; empty for none."""
    if not stamp.seconds:
        return ""
    return f"{stamp.ToDatetime(tzinfo=UTC):%Y-%m-%d %H:%M:%S}"


def duration(start: Timestamp, end: Timestamp) -> str:
    """A length of time for people, up to now where there is no end."""
    until = end.ToDatetime(tzinfo=UTC) if end.seconds else datetime.now(UTC)
    seconds = (until - start.ToDatetime(tzinfo=UTC)).total_seconds()
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def short(name: str) -> str:
    """The last part of a resource name."""
    return name.rpartition("/")[2]


def words(enum_name: str, prefix: str) -> str:
    """An enum value for people: ``RUN_STATUS_FINISHED`` is ``finished``."""
    return enum_name.removeprefix(prefix).lower().replace("_", " ")


def number(value: float) -> str:
    """A number for people: six significant digits."""
    return f"{value:.6g}"


def point_at(error: InvalidArgument, texts: dict[str, str]) -> None:
    """Shows the character of a filter or an order at which it could not be read."""
    text, position = texts.get(error.field, ""), int(error.metadata.get("position", 0))
    if text and position:
        start = text.rfind("\n", 0, position - 1) + 1
        sys.stderr.write(f"{text[start:].partition(chr(10))[0]}\n{' ' * (position - 1 - start)}^\n")


def _plain(value: object) -> object:
    if isinstance(value, Message):
        return MessageToDict(value, preserving_proto_field_name=True)
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
