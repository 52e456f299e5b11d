"""How commands show events of the log."""

from __future__ import annotations

from typing import Final

from google.protobuf.json_format import MessageToDict
from rich.console import Console
from rich.text import Text

from headrace import story
from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.cli.output import console, print_json, short

_COLOURS: Final = {
    "tracking": "cyan",
    "registry": "magenta",
    "orchestrator": "blue",
    "serving": "green",
    "monitor": "yellow",
}


def line_of(entry: LogEntry, *, depth: int = 0) -> Text:
    """One line about an event, for terminals."""
    service = short(entry.source)
    _, _, name = entry.type.rpartition(".")
    line = Text(f"{entry.occurred_at.ToDatetime():%H:%M:%S.%f}"[:-3] + "  ", style="dim")
    line.append(f"{service:<13}", style=_COLOURS.get(service, ""))
    line.append("  " * depth + ("└ " if depth else "") + name, style="bold")
    line.append(f"  {entry.stream_id.partition('/')[2].partition('/')[2]}")
    line.append(f"  {entry.meta.actor}", style="dim")
    line.append(f"  {entry.event_id}", style="dim")
    return line


def print_entry(entry: LogEntry, *, depth: int = 0, marked: bool = False, as_json: bool = False) -> None:
    """Prints an event as one line, or as JSON."""
    if as_json:
        print_json(as_dict(entry))
        return
    line = line_of(entry, depth=depth)
    if marked:
        line.stylize("reverse")
    console.print(line, soft_wrap=True)


def as_dict(entry: LogEntry) -> dict[str, object]:
    """An event for JSON: its content decoded where the type is known here, its leaf in hexadecimal."""
    message = story.decode(entry)
    plain: dict[str, object] = MessageToDict(entry, preserving_proto_field_name=True)
    if message is not None:
        plain["data"] = MessageToDict(message, preserving_proto_field_name=True)
    plain["leaf"] = entry.leaf.hex()
    return plain


def note(sentence: str) -> None:
    """Says something beside the answer, on standard error."""
    Console(stderr=True, highlight=False).print(sentence, style="yellow", soft_wrap=True)
