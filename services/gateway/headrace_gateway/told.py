"""An event in a few words, for stories and tables: what it is about beyond its type."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.story import decode

TELLING: Final = (
    "summary",
    "reason",
    "display_name",
    "step",
    "alias",
    "number",
    "version",
    "check",
    "path",
    "error_class",
)
"""Fields that tell most, the most telling first."""
MOST: Final = 3
"""Fields told of one event."""
_LENGTH: Final = 120


def told(entry: LogEntry) -> str:
    """Up to three telling fields of an event; empty when it has none, or its type is not known here."""
    try:
        message = decode(entry)
    except DecodeError:
        return ""
    if message is None:
        return ""
    found: dict[str, str] = {}
    for name, value in _fields(message, 1):
        found.setdefault(name, value)
    return " \u00b7 ".join([_words(name, found[name]) for name in TELLING if name in found][:MOST])


def _fields(message: Message, depth: int) -> Iterator[tuple[str, str]]:
    """Telling fields of a message, then those of the messages in it, as text."""
    inner: list[Message] = []
    for field, value in message.ListFields():
        if field.is_repeated:
            continue
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            inner.append(value)
        elif field.name in TELLING and field.type != FieldDescriptor.TYPE_BYTES:
            yield field.name, str(value)
    if depth:
        for each in inner:
            yield from _fields(each, depth - 1)


def _words(name: str, value: str) -> str:
    text = value.rpartition("/")[2] if value.startswith("projects/") else value
    if len(text) > _LENGTH:
        text = text[: _LENGTH - 1] + "\u2026"
    return f"{name} {text}" if name in ("step", "version", "alias", "number") else text
