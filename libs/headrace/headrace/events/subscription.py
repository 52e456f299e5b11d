"""Events of the platform for blocking code: merged, at least once, across outages and restarts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock, Thread
from types import TracebackType
from typing import Final, Self

from headrace.client import Client
from headrace.connection import Connection
from headrace.errors import FailedPrecondition
from headrace.events.cursor import Cursor
from headrace.events.event import Event, EventFilter
from headrace.events.inbox import Inbox
from headrace.events.progress import Progress
from headrace.events.reader import LogReader
from headrace.events.start import Start

_JOIN_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class SubscriptionConfig:
    """Limits of a subscription.

    Attributes:
        window_s: How long an event waits for an earlier one of another service, when all follow their ends.
        buffer: Events held of each service before the handler takes them.
        max_unacknowledged: Deliveries that may be out; asking for another one fails then.
        save_every_s: The cursor is saved at most so often, and at the end. What was acknowledged since comes again
            after a crash.
    """

    window_s: float = 0.1
    buffer: int = 1000
    max_unacknowledged: int = 10_000
    save_every_s: float = 0.1


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event handed out. Acknowledge it once its effect is safe; until then it comes again after a restart.

    As a context manager it gives the event, and acknowledges it when the block ends without an error.
    """

    event: Event
    _acknowledge: Callable[[Event], None] = field(repr=False)

    def ack(self) -> None:
        """Says that the event is done with; from any thread, in any order, as often as one likes.

        Raises:
            OSError: the cursor can not be saved.
        """
        self._acknowledge(self.event)

    def __enter__(self) -> Event:
        return self.event

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.ack()


class Subscription:
    """An endless iterator of deliveries; see ``headrace.events.subscribe``, which makes it.

    It connects when it is entered or first asked. For one taker at a time; ``ack`` and ``close`` from any thread.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        services: Sequence[str],
        wanted: EventFilter,
        start: Start,
        cursor: Cursor,
        config: SubscriptionConfig,
    ) -> None:
        self._client = Client(connection)
        self._services, self._wanted, self._start = tuple(services), wanted, start
        self._cursor, self._config = cursor, config
        self._inbox = Inbox(services, capacity=config.buffer, window_s=config.window_s)
        self._readers: list[LogReader] = []
        self._threads: list[Thread] = []
        self._opening = Lock()
        self._lock = Lock()
        self._progress: Progress | None = None
        self._saved_s = -config.save_every_s
        self._out = 0

    def take(self, timeout_s: float | None = None) -> Delivery | None:
        """The next delivery; None when there was none in time, or when closed.

        Args:
            timeout_s: None waits for ever.

        Raises:
            FailedPrecondition: too many deliveries are out, another process has the cursor, or it does not fit.
            HeadraceError: a service refuses, which no repeat mends. Outages are waited through.
        """
        if self._inbox.closed:
            return None
        self._open()
        if self._out >= self._config.max_unacknowledged:
            message = f"{self._out} deliveries are not acknowledged: acknowledge each when it is done with"
            raise FailedPrecondition(message, reason="UNACKNOWLEDGED")
        event = self._next(timeout_s)
        if event is None:
            return None
        with self._lock:
            self._out += 1
        return Delivery(event, self._acknowledge)

    def run(self, handler: Callable[[Event], object]) -> None:
        """Calls a handler with each event, and acknowledges the event when it returns; ends when closed.

        Raises:
            Exception: what the handler raised; its event is not acknowledged.
        """
        for delivery in self:
            with delivery as event:
                handler(event)

    @property
    def positions(self) -> dict[str, int]:
        """The next position wanted of each service, as far as everything before was acknowledged."""
        with self._lock:
            return dict(self._progress.positions) if self._progress else {}

    def close(self) -> None:
        """Saves the cursor and lets go of everything; whoever waits for a delivery is let go."""
        self._inbox.close()
        with self._opening:
            for reader in self._readers:
                reader.cancel()
        for thread in self._threads:
            thread.join(_JOIN_S)
        self._client.close()
        with self._lock:
            if self._progress is not None:
                try:
                    self._save(self._progress)
                finally:
                    self._progress = None
                    self._cursor.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Delivery:
        delivery = self.take()
        if delivery is None:
            raise StopIteration
        return delivery

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> None:
        """Takes the cursor and starts the readers, once."""
        with self._opening:
            if self._progress is None:
                self._start_readers()

    def _start_readers(self) -> None:
        if self._inbox.closed:
            raise FailedPrecondition("the subscription is closed", reason="CLOSED")
        logs = {name: self._client.log(name) for name in self._services}
        kept = self._cursor.open()
        self._progress = Progress(kept)
        self._readers = [
            LogReader(
                name,
                log,
                self._inbox,
                wanted=self._wanted,
                start=self._start,
                position=kept.get(name),
                expect=self._expect,
                passed=self._passed,
            )
            for name, log in logs.items()
        ]
        self._threads = [Thread(target=each.run, name=f"log-{each.name}", daemon=True) for each in self._readers]
        for thread in self._threads:
            thread.start()

    def _next(self, timeout_s: float | None) -> Event | None:
        """Takes from the inbox; where that means to wait, what was acknowledged is saved meanwhile."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = None if deadline_s is None else max(deadline_s - time.monotonic(), 0.0)
            due_s = self._due_s()
            event = self._inbox.take(
                timeout_s=min((each for each in (left_s, due_s) if each is not None), default=None)
            )
            if event is not None or self._inbox.closed:
                return event
            self._save_when_due()
            if deadline_s is not None and time.monotonic() >= deadline_s:
                return None

    def _acknowledge(self, event: Event) -> None:
        with self._lock:
            if self._progress is None:
                raise FailedPrecondition("the subscription is closed: the event comes again", reason="CLOSED")
            self._out -= self._progress.acknowledge(event.service, event.position)
        self._save_when_due()

    def _expect(self, service: str, position: int) -> None:
        with self._lock:
            if self._progress is not None:
                self._progress.expect(service, position)

    def _passed(self, service: str, position: int) -> None:
        """Saved at once: where "now" was must not move when the process dies before its first event."""
        with self._lock:
            if self._progress is not None:
                self._progress.passed(service, position)
                self._save(self._progress)

    def _due_s(self) -> float | None:
        """Seconds until the cursor is to be saved; None while there is nothing to save."""
        with self._lock:
            if self._progress is None or not self._progress.changed:
                return None
            return max(self._saved_s + self._config.save_every_s - time.monotonic(), 0.0)

    def _save_when_due(self) -> None:
        with self._lock:
            if self._progress is not None and time.monotonic() >= self._saved_s + self._config.save_every_s:
                self._save(self._progress)

    def _save(self, progress: Progress) -> None:
        if progress.changed:
            self._cursor.save(progress.positions)
            progress.changed = False
            self._saved_s = time.monotonic()
