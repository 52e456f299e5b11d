"""Hybrid logical clocks (Kulkarni et al., "Logical Physical Clocks", 2014) in one positive 64-bit integer.

The upper 48 bits are milliseconds since the epoch, the lower 16 a counter. An event's clock is above that of its
cause and above that of the event before it in its stream, whatever the wall clocks say; a counter that overflows
carries into the milliseconds.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from headrace_kit.errors import InvalidArgument

COUNTER_BITS = 16
MAX_AHEAD = timedelta(days=366)
"""A cause whose clock is further ahead than this is refused: one broken clock must not poison every other."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def physical(now: datetime) -> int:
    """The clock value of a wall-clock moment, with the counter at zero."""
    return ((now - _EPOCH) // _MILLISECOND) << COUNTER_BITS


def require_plausible(cause: int, now: datetime) -> None:
    """Raises InvalidArgument when a cause's clock lies more than ``MAX_AHEAD`` in the future."""
    if cause > physical(now + MAX_AHEAD):
        raise InvalidArgument("the causal clock lies too far in the future", field="hlc")


class HybridClock:
    """The clock of one process; not for use by several threads."""

    def __init__(self) -> None:
        self._last = 0

    def tick(self, now: datetime, *, above: int = 0) -> int:
        """The next value: above the last one given, above ``above``, and not below the wall clock."""
        self._last = max(physical(now), self._last + 1, above + 1)
        return self._last
