"""The merge of several logs, as plain decisions: whose event comes next, and whether it is time.

Each log comes in order of position. Between logs the event with the lowest (hlc, service, position) goes first, once
every other log has shown its next event, or is known to have none for now:

- a log that still reads its past (``HISTORY``) is waited for, however long it takes;
- a log that follows its end (``LIVE``) is waited for as long as the window, since it may have an earlier event on the
  way;
- a log whose service can not be reached (``AWAY``) is not waited for.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from headrace.events.event import Event


class Phase(Enum):
    """How far the reader of a log is."""

    HISTORY = "history"
    LIVE = "live"
    AWAY = "away"


@dataclass(frozen=True, slots=True)
class Held:
    """An event that waits for its turn, since when (monotonic seconds)."""

    event: Event
    since_s: float


@dataclass(slots=True)
class Lane:
    """What has come of one log."""

    phase: Phase = Phase.HISTORY
    held: deque[Held] = field(default_factory=deque[Held])


@dataclass(frozen=True, slots=True)
class Choice:
    """Whose event comes next. ``wait_s`` is how long until then, None for as long as nothing changes."""

    service: str = ""
    wait_s: float | None = None


def choose(lanes: dict[str, Lane], *, now_s: float, window_s: float) -> Choice:
    """The service whose first held event is to be delivered; none is named while there is cause to wait."""
    waiting = [lane.held[0] for lane in lanes.values() if lane.held]
    if not waiting:
        return Choice()
    first = min(waiting, key=lambda held: held.event.order)
    empty = {lane.phase for lane in lanes.values() if not lane.held}
    if Phase.HISTORY in empty:
        return Choice()
    left_s = first.since_s + window_s - now_s
    if Phase.LIVE in empty and left_s > 0:
        return Choice(wait_s=left_s)
    return Choice(service=first.event.service)
