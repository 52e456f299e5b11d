"""When a dead process is started again."""

from __future__ import annotations

from collections import deque

WINDOW_S = 60.0
LOUD_FROM = 3
LONGEST_S = 30.0


class RestartPolicy:
    """Counts the deaths of one process and says how long to wait before the next start.

    The first two deaths within a minute restart at once; from the third on the wait doubles from 2 s to 30 s. The
    minute is measured in running time, so waiting does not forgive a process that dies at every start. Pure: time is
    passed in.
    """

    def __init__(self) -> None:
        self._running_s = 0.0
        self._deaths: deque[float] = deque()

    def died(self, *, after_s: float) -> float:
        """Record a death ``after_s`` seconds after its start; return the seconds to wait."""
        self._running_s += after_s
        self._deaths.append(self._running_s)
        while self._deaths[0] <= self._running_s - WINDOW_S:
            self._deaths.popleft()
        if len(self._deaths) < LOUD_FROM:
            return 0.0
        return min(LONGEST_S, 2.0 ** (len(self._deaths) - LOUD_FROM + 1))

    @property
    def recent_deaths(self) -> int:
        """Deaths within the last minute of running time."""
        return len(self._deaths)
