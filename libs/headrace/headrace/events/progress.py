"""Which deliveries were acknowledged, and how far that lets the cursor move."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(slots=True)
class _Expected:
    position: int
    acknowledged: bool = False


class Progress:
    """The next position wanted of each service: the one after the last event before which all are acknowledged.

    Not for several threads.

    Args:
        positions: What a cursor kept.
    """

    def __init__(self, positions: Mapping[str, int]) -> None:
        self._next = dict(positions)
        self._expected: dict[str, deque[_Expected]] = {}
        self._index: dict[tuple[str, int], _Expected] = {}
        self.changed = False
        """Whether the positions differ from those saved last."""

    @property
    def positions(self) -> Mapping[str, int]:
        """Service -> next position wanted."""
        return dict(self._next)

    def passed(self, service: str, position: int) -> None:
        """Says that nothing more comes from before a position but what was expected."""
        if not self._expected.get(service) and position > self._next.get(service, 0):
            self._next[service] = position
            self.changed = True

    def expect(self, service: str, position: int) -> None:
        """Says that an event will be handed out: the cursor does not pass it before it is acknowledged."""
        expected = _Expected(position)
        self._expected.setdefault(service, deque()).append(expected)
        self._index[service, position] = expected

    def acknowledge(self, service: str, position: int) -> bool:
        """Says that an event is done with; False when that was said before."""
        found = self._index.get((service, position))
        if found is None or found.acknowledged:
            return False
        found.acknowledged = True
        queue = self._expected[service]
        while queue and queue[0].acknowledged:
            done = queue.popleft()
            del self._index[service, done.position]
            self._next[service] = done.position + 1
            self.changed = True
        return True
