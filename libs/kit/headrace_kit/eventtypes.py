"""Event types: protobuf message classes <-> the names they have on the wire and in the log."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from headrace_kit.upcasting import PLATFORM, Upcasters

_GENERATED = "headrace.api."


class UnknownEventType(LookupError):
    """A service tried to write an event it did not declare as its own."""


def type_name(message: type[Message] | Message) -> str:
    """The stable name: ``headrace.api.registry.v1.VersionPromoted`` is ``headrace.registry.v1.VersionPromoted``."""
    full_name: str = message.DESCRIPTOR.full_name
    return "headrace." + full_name.removeprefix(_GENERATED) if full_name.startswith(_GENERATED) else full_name


def is_known(name: str) -> bool:
    """Whether this build has a message of that type name, be it of use to the caller or not.

    Only messages of modules that were imported count: whoever handles one event of a service has imported all of them.
    """
    own = name.removeprefix("headrace.")
    for full_name in (f"{_GENERATED}{own}", name):
        try:
            descriptor_pool.Default().FindMessageTypeByName(full_name)
        except KeyError:
            continue
        return True
    return False


def has_unknown_fields(message: Message) -> bool:
    """Whether a newer writer set fields, at any depth, that this build does not know. They are kept, not understood."""
    if len(UnknownFieldSet(message)):
        return True
    return any(has_unknown_fields(child) for field, value in message.ListFields() for child in _children(field, value))


class EventTypes:
    """The event classes one service owns, or one consumer knows. Immutable.

    Args:
        classes: The classes.
        upcasters: What makes events of earlier days into these; what it takes can be read and is never written again.
    """

    def __init__(self, *classes: type[Message], upcasters: Upcasters = PLATFORM) -> None:
        self._classes: dict[str, type[Message]] = {type_name(each): each for each in classes}
        self._earlier: dict[str, type[Message]] = {type_name(each): each for each in upcasters.sources}
        self._upcasters = upcasters

    def __iter__(self) -> Iterator[type[Message]]:
        return iter(self._classes.values())

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def name(self, message: Message) -> str:
        """The type name of an event about to be written.

        Raises:
            UnknownEventType: the class was not declared here.
        """
        name = type_name(message)
        if name not in self._classes:
            raise UnknownEventType(f"{name} is not among the event types this service declares")
        return name

    def decode(self, name: str, data: bytes) -> Message | None:
        """The message in its newest form, or None when that is not known here.

        Raises:
            google.protobuf.message.DecodeError: the bytes are not such a message.
        """
        found = self._classes.get(name) or self._earlier.get(name)
        if found is None:
            return None
        message = self._upcasters.apply(found.FromString(data))
        return message if type_name(message) in self._classes else None


def _children(field: FieldDescriptor, value: object) -> Iterator[Message]:
    kind = field.message_type
    if kind is None:
        return
    if isinstance(value, Message):
        yield value
    elif not kind.GetOptions().map_entry:
        yield from value  # type: ignore[misc]  # a list of messages
    elif kind.fields_by_name["value"].message_type is not None:
        yield from value.values()  # type: ignore[attr-defined]  # a map to messages


__all__ = ["DecodeError", "EventTypes", "UnknownEventType", "has_unknown_fields", "is_known", "type_name"]
