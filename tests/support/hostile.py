"""Requests that mean harm, made from valid ones and from descriptors: one field spoiled, or nothing as it should be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

TEXTS: Final = (
    "",
    " ",
    "x",
    "x" * 251,
    "x" * 10_001,
    "é" * 501,
    "x" * 1_000_001,
    "a\x00b",
    "a\nb\r\n\x1b[31m\x7f\x85",
    "\u202egnp.exe\u2066",
    "\ufeff\u2028\U0010ffff\U0001f600",
    "Robert'); DROP TABLE events; --",
    '" OR 1=1 /*',
    "%_\\",
    "$1 ${jndi:ldap://x} {{7*7}} %(x)s",
    "<script>alert(1)</script>",
    "../../../../etc/passwd",
    "projects/default",
    "projects/../runs/..",
    "projects/default/models/m/versions/99999999999999999999",
    "projects/default/models/m/versions/-1",
    "projects/default/models/m/versions/0",
    "projects/default/models/m/versions/\u0661",
    "projects/p/runs/00000000-0000-0000-0000-000000000000",
    "projects/p/runs/not-a-uuid",
    "urn:uuid:12345678-1234-5678-1234-567812345678",
    "{12345678-1234-5678-1234-567812345678}",
    "NaN",
    "-1",
    "9" * 400,
    "1e999",
    "[" * 3000,
    "(" * 3000,
    "not " * 900,
    'metric.x like "%"',
    'tag.a like "\\\\"',
    "metric.`` < 1",
    'start_time > "99999-01-01"',
    "metric.a = 1" + " or metric.a = 1" * 200,
    "duration_s in (1, 1e400)",
    "* * * * * *",
    "0 0 31 2 *",
    "61 25 * * *",
    "Europe",
    "now",
    "99999999999999999",
    "e30=",
)
_FLOATS: Final = (float("nan"), float("inf"), float("-inf"), -0.0, -1.0, 1e308, 5e-324, 1e-9, 1e18)
_BYTES: Final = (b"", b"\x00", b"\xff" * 7, b"\xff" * 8, b"\x00" * 4096, b"x" * (256 * 1024 + 1))
_COUNTS: Final = (2, 101, 1001, 4097, 10_001)
_LIMITS: Final = {
    FieldDescriptor.CPPTYPE_INT32: (-(1 << 31), -1, 0, 1, 2, 1001, 10_001, (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(1 << 63), -1, 0, 1, 2, 253402300800, 1 << 60, (1 << 63) - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 24, (1 << 32) - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 1, (1 << 64) - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-1, 0, 1, 2, 3, 99, (1 << 31) - 1),
    FieldDescriptor.CPPTYPE_BOOL: (False, True),
    FieldDescriptor.CPPTYPE_FLOAT: _FLOATS,
    FieldDescriptor.CPPTYPE_DOUBLE: _FLOATS,
}


@dataclass(frozen=True, slots=True)
class Spoil:
    """One harm to a message; ``says`` is what stands in a failing test's report."""

    says: str
    apply: Callable[[Message], None] = field(repr=False)


def spoils(descriptor: Descriptor, *, depth: int = 4) -> list[Spoil]:
    """Every harm this module knows to a type of message: to each field, at most ``depth`` levels down."""
    return [spoil for path in _paths(descriptor, depth) for spoil in _of(path)]


def set_at(message: Message, path: str, value: object) -> None:
    """Sets a field by its path, such as ``definition.steps.id``; in lists the first entry is meant, made if absent."""
    *above, name = path.split(".")
    target = message
    for each in above:
        target = _inside(target, each)
    _assign(target, name, value)


def _paths(descriptor: Descriptor, depth: int) -> Iterator[tuple[FieldDescriptor, ...]]:
    for each in descriptor.fields:
        yield (each,)
        below = each.message_type
        if below is not None and not below.GetOptions().map_entry and depth > 1:
            for rest in _paths(below, depth - 1):
                yield (each, *rest)


def _of(path: tuple[FieldDescriptor, ...]) -> Iterator[Spoil]:
    leaf, at = path[-1], ".".join(each.name for each in path)
    if leaf.message_type is not None and leaf.message_type.GetOptions().map_entry:
        yield from _of_map(leaf, at)
        return
    yield Spoil(f"{at} is absent", partial(_clear, path=at))
    if leaf.message_type is not None:
        yield Spoil(f"{at} is empty", partial(set_at, path=at, value=None))
    for value in values(leaf):
        yield Spoil(f"{at} = {_short(value)}", partial(set_at, path=at, value=value))
    if leaf.is_repeated:
        for count in _COUNTS:
            yield Spoil(f"{at} has {count} times its first", partial(_many, path=at, count=count))


def _of_map(leaf: FieldDescriptor, at: str) -> Iterator[Spoil]:
    entry = leaf.message_type
    assert entry is not None
    value = entry.fields_by_name["value"]
    harmless = next(iter(values(value)), None)
    for text in TEXTS:
        yield Spoil(f"{at} has the key {_short(text)}", partial(_put, path=at, entries={text: harmless}))
    for each in values(value):
        yield Spoil(f"{at}['x'] = {_short(each)}", partial(_put, path=at, entries={"x": each}))
    for count in _COUNTS:
        many = {f"k{index}": harmless for index in range(count)}
        yield Spoil(f"{at} has {count} entries", partial(_put, path=at, entries=many))


def values(leaf: FieldDescriptor) -> Sequence[Any]:
    """Hostile values of a field that holds no message."""
    if leaf.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return _BYTES if leaf.type == FieldDescriptor.TYPE_BYTES else TEXTS
    return _LIMITS.get(leaf.cpp_type, ())


def _inside(message: Message, name: str) -> Message:
    held: Any = getattr(message, name)  # Any: a message, or a list of them
    if message.DESCRIPTOR.fields_by_name[name].is_repeated:
        inner: Message = held[0] if len(held) else held.add()
        return inner
    held.SetInParent()
    found: Message = held
    return found


def _assign(message: Message, name: str, value: object) -> None:
    leaf = message.DESCRIPTOR.fields_by_name[name]
    held: Any = getattr(message, name)  # Any: whatever the field holds
    if isinstance(value, dict):
        message.ClearField(name)
        _put(message, name, value)
    elif leaf.is_repeated and value is None:
        held.add()
    elif leaf.is_repeated:
        given: Any = value if isinstance(value, list) else [value]
        del held[:]
        held.extend(given)
    elif leaf.message_type is not None:
        held.Clear()
        held.SetInParent()
    else:
        setattr(message, name, value)


def _parent(message: Message, path: str) -> tuple[Message, str]:
    *above, name = path.split(".")
    for each in above:
        message = _inside(message, each)
    return message, name


def _clear(message: Message, path: str) -> None:
    parent, name = _parent(message, path)
    parent.ClearField(name)


def _many(message: Message, path: str, count: int) -> None:
    parent, name = _parent(message, path)
    held: Any = getattr(parent, name)  # Any: a repeated field of whatever type
    leaf: Any = parent.DESCRIPTOR.fields_by_name[name]  # Any: one of two classes that are the same but for their types
    if not len(held) and leaf.message_type is not None:
        held.add()
    first = held[0] if len(held) else next(iter(values(leaf)))
    held.extend([first] * (count - len(held)))


def _put(message: Message, path: str, entries: dict[str, Any]) -> None:
    parent, name = _parent(message, path)
    held: Any = getattr(parent, name)  # Any: a map of whatever type
    for key, value in entries.items():
        if value is None:
            held[key].SetInParent()
        else:
            held[key] = value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]}… ({len(text)} characters)"
