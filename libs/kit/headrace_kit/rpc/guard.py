"""What no request may hold anywhere: NUL in a text (PostgreSQL has no place for it), and messages that do not parse."""

from collections.abc import Callable
from functools import cache
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message

from headrace_kit.errors import InvalidArgument

_Check = Callable[[Any, str], None]
# Any: the value of a field, whatever its type.


class Malformed:
    """Stands for a request whose bytes are no such message."""


MALFORMED: Final = Malformed()


def lenient(parse: Callable[[bytes], Message]) -> Callable[[bytes], Message | Malformed]:
    """A parser that lets the chassis answer for bytes that do not parse, where grpc would answer INTERNAL."""

    def read(data: bytes) -> Message | Malformed:
        try:
            return parse(data)
        except DecodeError:
            return MALFORMED

    return read


def require_sound(request: object) -> None:
    """Raises InvalidArgument, naming the field, when a request did not parse or holds NUL in a text."""
    if isinstance(request, Malformed):
        raise InvalidArgument("the bytes are not a message of this call's type", reason="MALFORMED_REQUEST")
    if isinstance(request, Message):
        for check in _plan(request.DESCRIPTOR):
            check(request, "")


@cache
def _plan(descriptor: Descriptor) -> tuple[_Check, ...]:
    """The checks of a message type; fields below which there can be no text have none."""
    return tuple(_check_of(field) for field in descriptor.fields if _may_hold_text(field, frozenset()))


def _may_hold_text(field: FieldDescriptor, above: frozenset[str]) -> bool:
    if field.type == FieldDescriptor.TYPE_STRING:
        return True
    below = field.message_type
    if below is None or below.full_name in above:
        return False
    return any(_may_hold_text(each, above | {below.full_name}) for each in below.fields)


def _check_of(field: FieldDescriptor) -> _Check:
    name = field.name
    if field.message_type is None:
        return _texts(name) if field.is_repeated else _text(name)
    if field.message_type.GetOptions().map_entry:
        return _map(field)
    return _messages(name) if field.is_repeated else _message(name)


def _text(name: str) -> _Check:
    def check(message: Any, path: str) -> None:
        _require(getattr(message, name), path + name)

    return check


def _texts(name: str) -> _Check:
    def check(message: Any, path: str) -> None:
        for index, value in enumerate(getattr(message, name)):
            if "\0" in value:
                _require(value, f"{path}{name}[{index}]")

    return check


def _message(name: str) -> _Check:
    def check(message: Any, path: str) -> None:
        if message.HasField(name):
            _descend(getattr(message, name), f"{path}{name}.")

    return check


def _messages(name: str) -> _Check:
    def check(message: Any, path: str) -> None:
        for index, value in enumerate(getattr(message, name)):
            _descend(value, f"{path}{name}[{index}].")

    return check


def _map(field: FieldDescriptor) -> _Check:
    name = field.name
    entry = field.message_type
    if entry is None:
        raise AssertionError(f"{field.full_name} is a map, so its entries are messages")
    value_field = entry.fields_by_name["value"]
    texts, messages = value_field.type == FieldDescriptor.TYPE_STRING, value_field.message_type is not None

    def check(message: Any, path: str) -> None:
        held = getattr(message, name)
        for key in held:
            if isinstance(key, str):
                _require(key, f"{path}{name}")
            if texts:
                _require(held[key], f"{path}{name}[{key!r}]")
            elif messages:
                _descend(held[key], f"{path}{name}[{key!r}].")

    return check


def _descend(message: Message, path: str) -> None:
    for check in _plan(message.DESCRIPTOR):
        check(message, path)


def _require(value: str, path: str) -> None:
    if "\0" in value:
        raise InvalidArgument("a text may not hold the character NUL", field=path)
