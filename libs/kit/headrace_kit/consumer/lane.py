"""One partition's way in: drops repeats, fills holes, parks what cannot be handled, delivers the rest in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from uuid import UUID

import structlog

from headrace_kit.cloudevents import ReceivedEvent
from headrace_kit.consumer.delivery import Delivery, Step
from headrace_kit.consumer.offsets import Arrival, Claim, Offsets, PartitionLost, Progress, Seen, settle
from headrace_kit.consumer.parking import Parking
from headrace_kit.consumer.reading import LogReader
from headrace_kit.errors import FailedPrecondition, KitError
from headrace_kit.postgres import Connection, ConnectionLost, Database

_log = structlog.get_logger(__name__)

MAX_ATTEMPTS = 3
"""An error nobody foresaw is tried this often before its stream is parked."""
PAGE = 500
MAX_STEPS = 50
"""Most events of one transaction: a long one holds back every sequencer of the database cluster."""

Notice = Callable[[ReceivedEvent, str], Awaitable[None]]
"""Told of each event that parks its stream, with the cause; after the fact, best effort."""


class TryLater(Exception):
    """The next event cannot be handled now; its partition waits ``delay_s`` and the others go on."""

    def __init__(self, cause: str, delay_s: float) -> None:
        super().__init__(cause)
        self.delay_s = delay_s


class _Redriven(Exception):
    """A stream was thought to be parked and is not any more."""


@dataclass
class Counters:
    """What a consumer did since it began; for its metrics."""

    handled: int = 0
    repeats: int = 0
    parked: int = 0
    filled: int = 0
    malformed: int = 0
    retries: int = 0
    recreated: int = 0
    attempts: dict[UUID, int] = field(default_factory=dict[UUID, int])


class Lane:
    """Takes the events of one claimed partition, in order. For one task."""

    def __init__(
        self,
        claim: Claim,
        *,
        parked: set[str],
        database: Database,
        offsets: Offsets,
        parking: Parking,
        delivery: Delivery,
        reader: LogReader | None,
        counters: Counters,
        notice: Notice,
    ) -> None:
        self.claim = claim
        self._parked = parked
        self._database = database
        self._offsets = offsets
        self._parking = parking
        self._delivery = delivery
        self._reader = reader
        self._counters = counters
        self._notice = notice

    async def take(self, arrivals: Iterable[Arrival]) -> None:
        """Deals with every arrival.

        Raises:
            TryLater: one cannot be handled now; those before it are behind us.
            PartitionLost: another member has the partition.
            ConnectionLost: the database went away.
        """
        queue = deque(arrivals)
        await self._offsets.know(self.claim, [each.event.subject for each in queue])
        while queue:
            steps = self._plan(queue)
            if not steps:
                await self._overcome(queue)
                continue
            outcome = await self._delivery.run(steps, self._commit)
            self._done(steps[: outcome.done])
            for _ in range(outcome.done):
                queue.popleft()
            if outcome.error is not None:
                await self._fail(queue.popleft(), outcome.error)

    async def move(self, next_offset: int) -> None:
        """Begins reading the partition at an offset."""
        progress = Progress(next_offset, self.claim.position)
        async with self._database.transaction() as connection:
            await self._offsets.advance(connection, self.claim, progress)
        settle(self.claim, progress)

    def _plan(self, queue: Iterable[Arrival]) -> list[Step]:
        """The arrivals up to the first that needs more than delivery."""
        ahead: dict[str, Seen] = {}
        steps: list[Step] = []
        for arrival in islice(queue, MAX_STEPS):
            event = arrival.event
            seen = ahead.get(event.subject) or self.claim.streams[event.subject]
            if event.sequence <= seen.version:
                steps.append(Step(arrival, fresh=False))
                continue
            if event.subject in self._parked or self._is_hole(event, seen):
                break
            ahead[event.subject] = Seen(event.sequence, event.position)
            steps.append(Step(arrival, fresh=True))
        return steps

    def _is_hole(self, event: ReceivedEvent, seen: Seen) -> bool:
        begun_late = seen.version == 0 and self._reader is None
        return event.sequence > seen.version + 1 and not begun_late

    def _after(self, steps: Sequence[Step]) -> Progress:
        progress = self.claim.progress()
        for step in steps:
            (progress.take if step.fresh else progress.skip)(step.arrival)
        return progress

    async def _commit(self, connection: Connection, steps: Sequence[Step]) -> None:
        await self._offsets.advance(connection, self.claim, self._after(steps))

    def _done(self, steps: Sequence[Step]) -> None:
        settle(self.claim, self._after(steps))
        for step in steps:
            self._counters.attempts.pop(step.arrival.event.id, None)
            if step.fresh:
                self._counters.handled += 1
            else:
                self._counters.repeats += 1

    async def _overcome(self, queue: deque[Arrival]) -> None:
        """The first arrival has a hole before it, or its stream is parked."""
        arrival = queue[0]
        seen = self.claim.streams[arrival.event.subject]
        if not self._is_hole(arrival.event, seen):
            if await self._follow(arrival):
                queue.popleft()
            return
        missing = await self._missing(arrival.event, seen)
        if missing:
            self._counters.filled += len(missing)
            queue.extendleft(reversed(missing))
            return
        queue.popleft()
        cause = f"versions {seen.version + 1} to {arrival.event.sequence - 1} of the stream are missing"
        await self._park(arrival, FailedPrecondition(cause, reason="VERSION_HOLE"))

    async def _missing(self, event: ReceivedEvent, seen: Seen) -> list[Arrival]:
        """The events between the last one seen of a stream and this one, or none when they cannot be found."""
        found: list[Arrival] = []
        position = seen.position + 1
        while self._reader is not None and position < event.position:
            try:
                page = await self._reader.read(position, PAGE)
            except KitError as error:
                raise self._later(error) from error
            if not page:
                break
            position = page[-1].position + 1
            found += [Arrival(each, None) for each in page if self._lies_between(each, seen, event)]
        complete = [each.event.sequence for each in found] == list(range(seen.version + 1, event.sequence))
        return found if complete else []

    @staticmethod
    def _lies_between(event: ReceivedEvent, seen: Seen, end: ReceivedEvent) -> bool:
        return event.subject == end.subject and seen.version < event.sequence < end.sequence

    async def _follow(self, arrival: Arrival) -> bool:
        """Parks a later event of a parked stream; False when that was redriven meanwhile."""
        steps = [Step(arrival, fresh=True)]
        try:
            async with self._database.transaction() as connection:
                if not await self._parking.follow(connection, arrival.event):
                    raise _Redriven
                await self._commit(connection, steps)
        except _Redriven:
            self._parked.discard(arrival.event.subject)
            return False
        settle(self.claim, self._after(steps))
        self._counters.parked += 1
        return True

    async def _fail(self, arrival: Arrival, error: Exception) -> None:
        if isinstance(error, PartitionLost | ConnectionLost):
            raise error
        attempts = self._counters.attempts.get(arrival.event.id, 0) + 1
        self._counters.attempts[arrival.event.id] = attempts
        if error.retryable if isinstance(error, KitError) else attempts < MAX_ATTEMPTS:
            raise self._later(error, attempts) from error
        await self._park(arrival, error)

    def _later(self, error: Exception, attempts: int = 1) -> TryLater:
        self._counters.retries += 1
        _log.warning("event_waits", partition=self.claim.partition, cause=cause_of(error), attempts=attempts)
        return TryLater(cause_of(error), min(0.05 * 2**attempts, 5.0))

    async def _park(self, arrival: Arrival, error: Exception) -> None:
        event, cause = arrival.event, cause_of(error)
        attempts = self._counters.attempts.pop(event.id, 0)
        steps = [Step(arrival, fresh=True)]
        async with self._database.transaction() as connection:
            await self._parking.park(connection, event, cause=cause, attempts=attempts)
            await self._commit(connection, steps)
        settle(self.claim, self._after(steps))
        self._parked.add(event.subject)
        self._counters.parked += 1
        _log.error("stream_parked", source=event.source, stream=event.subject, event_id=str(event.id), cause=cause)
        await self._notice(event, cause)


def cause_of(error: Exception) -> str:
    """``REASON: message`` in at most 2000 characters."""
    reason = error.reason if isinstance(error, KitError) else type(error).__name__
    return f"{reason}: {error}"[:2000]
