"""Upcasters: an event as it was written years ago -> the event its readers know today.

A pure function for each class of events that changed its meaning or was replaced. They are applied when an event is
decoded, never to stored bytes: hashes, proofs and the audit API go on to speak of what was written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from google.protobuf.message import Message

from headrace_kit.errors import FailedPrecondition

Upcast = Callable[[Message], Message]
"""Old event -> new event, of another class or of the same one. Pure: no clock, no chance, no look-up."""


class Upcasters:
    """Upcasters by the class of event they take. Immutable.

    They form chains: what one returns is taken by the next, until there is none for its class, or the class stays.
    A chain that comes back to a class it had already left is a fault in the program, found when it is first walked.
    """

    def __init__(self, by_class: Mapping[type[Message], Upcast] | None = None) -> None:
        self._by_class = dict(by_class or {})

    @property
    def sources(self) -> tuple[type[Message], ...]:
        """The classes that are cast up."""
        return tuple(self._by_class)

    def apply(self, message: Message) -> Message:
        """The newest form of an event; the message itself when nothing takes it.

        Raises:
            FailedPrecondition: the chain is a circle, reason ``UPCASTERS_CIRCULAR``.
        """
        passed: set[type[Message]] = set()
        while (upcast := self._by_class.get(type(message))) is not None:
            kind = type(message)
            if kind in passed:
                raise FailedPrecondition(
                    f"the upcasters of {kind.DESCRIPTOR.full_name} lead back to it", reason="UPCASTERS_CIRCULAR"
                )
            passed.add(kind)
            message = upcast(message)
            if type(message) is kind:
                break
        return message


PLATFORM = Upcasters()
"""Those of the platform's own events, used by every store and consumer unless it is given others: none so far."""
