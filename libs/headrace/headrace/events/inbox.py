"""Where the readers of several logs meet the one who takes: bounded, merged, for many threads."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from threading import Condition

from headrace.events.event import Event
from headrace.events.merge import Held, Lane, Phase, choose


class Inbox:
    """Holds what has come of each log until its turn.

    Args:
        services: The logs.
        capacity: Events held of each log; a reader waits while there are so many.
        window_s: How long the first event waits for a log that follows its end.
    """

    def __init__(self, services: Iterable[str], *, capacity: int, window_s: float) -> None:
        self._lanes = {service: Lane() for service in services}
        self._capacity, self._window_s = capacity, window_s
        self._changed = Condition()
        self._error: BaseException | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether it was closed; readers end then."""
        return self._closed

    def put(self, service: str, events: Sequence[Event]) -> bool:
        """Adds events of a log in order, each as soon as there is room; False when closed before all were in."""
        with self._changed:
            lane = self._lanes[service]
            for event in events:
                self._changed.wait_for(lambda: self._closed or len(lane.held) < self._capacity)
                if self._closed:
                    return False
                lane.held.append(Held(event, time.monotonic()))
                if len(lane.held) == 1:
                    self._changed.notify_all()
            return not self._closed

    def enter(self, service: str, phase: Phase) -> None:
        """Says how far the reader of a log is now."""
        with self._changed:
            self._lanes[service].phase = phase
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Ends it with an error, which ``take`` raises from now on."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def take(self, *, timeout_s: float | None) -> Event | None:
        """The next event; None when closed, or when there was none in time (None waits for ever).

        Raises:
            BaseException: what a reader failed with.
        """
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while not self._closed:
                if self._error is not None:
                    raise self._error
                now_s = time.monotonic()
                choice = choose(self._lanes, now_s=now_s, window_s=self._window_s)
                if choice.service:
                    return self._pop(choice.service)
                left_s = None if deadline_s is None else deadline_s - now_s
                if left_s is not None and left_s <= 0:
                    return None
                self._changed.wait(min((each for each in (left_s, choice.wait_s) if each is not None), default=None))
            return None

    def pause(self, pause_s: float) -> None:
        """Waits, or until closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed, pause_s)

    def close(self) -> None:
        """Lets everyone go who waits here."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _pop(self, service: str) -> Event:
        lane = self._lanes[service]
        if len(lane.held) == self._capacity:
            self._changed.notify_all()
        return lane.held.popleft().event
