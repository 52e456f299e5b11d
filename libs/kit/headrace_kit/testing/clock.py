"""A clock that stands still until it is told otherwise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class FixedClock:
    """Called, it gives the moment it stands at.

    Args:
        now: Timezone-aware UTC.
    """

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self.now = now

    def __call__(self) -> datetime:
        """The moment it stands at."""
        return self.now

    def advance(self, by: timedelta | float) -> datetime:
        """Moves on (seconds, or a timedelta) and gives the new moment."""
        self.now += by if isinstance(by, timedelta) else timedelta(seconds=by)
        return self.now
