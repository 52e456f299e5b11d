"""What an import did."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something that was not taken: what, and why."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an import has come: ``done`` of ``total`` (known so far), the last being ``what``."""

    what: str
    done: int
    total: int


Tell = Callable[[Progress], None]


@dataclass(slots=True)
class Report:
    """Counts by kind, such as ``runs`` and ``metric points``. For many threads.

    Attributes:
        added: What is in headrace since.
        there: What had been there.
        left_out: What was not taken.
    """

    added: Counter[str] = field(default_factory=Counter[str])
    there: Counter[str] = field(default_factory=Counter[str])
    left_out: list[LeftOut] = field(default_factory=list[LeftOut])
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, kind: str, count: int = 1) -> None:
        """Counts what was added."""
        with self._lock:
            self.added[kind] += count

    def find(self, kind: str, count: int = 1) -> None:
        """Counts what was there already."""
        with self._lock:
            self.there[kind] += count

    def leave_out(self, what: str, why: str) -> None:
        """Notes what was not taken."""
        with self._lock:
            self.left_out.append(LeftOut(what, why))
