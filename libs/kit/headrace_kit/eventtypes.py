"""Event types: protobuf message classes <-> the names they have on the wire and in the log."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import DecodeError, Message

_GENERATED = "headrace.api."


class UnknownEventType(LookupError):
    """A service tried to write an event it did not declare as its own."""


def type_name(message: type[Message] | Message) -> str:
    """The stable name: ``headrace.api.registry.v1.VersionPromoted`` is ``headrace.registry.v1.VersionPromoted``."""
    full_name: str = message.DESCRIPTOR.full_name
    return "headrace." + full_name.removeprefix(_GENERATED) if full_name.startswith(_GENERATED) else full_name


class EventTypes:
    """The event classes one service owns, or one consumer knows. Immutable."""

    def __init__(self, *classes: type[Message]) -> None:
        self._classes: dict[str, type[Message]] = {type_name(each): each for each in classes}

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
        """The message, or None when the type is not known here.

        Raises:
            google.protobuf.message.DecodeError: the bytes are not such a message.
        """
        found = self._classes.get(name)
        return None if found is None else found.FromString(data)


__all__ = ["DecodeError", "EventTypes", "UnknownEventType", "type_name"]
