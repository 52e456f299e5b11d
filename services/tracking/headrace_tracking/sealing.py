"""Events about metric points: within a second after points of a run were committed, a `MetricsRecorded` seals them.

What is to be sealed stands in the database, so that a process that died is made up for by the next. Which batches an
event is about follows from its command id, and it takes them off the list in its own transaction: each is sealed once.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import groupby
from uuid import UUID, uuid5

import structlog
from google.protobuf.message import Message

from headrace.api.tracking.v1.events_pb2 import MetricsRecorded
from headrace.api.tracking.v1.resources_pb2 import Run
from headrace_kit.context import CommandContext
from headrace_kit.errors import Aborted, KitError
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.postgres import Connection
from headrace_tracking import domain
from headrace_tracking.compacting import Compactor
from headrace_tracking.pointstore import BLOCK, Inserted, PointStore, Tail, remove_tails
from headrace_tracking.store import RUN
from headrace_tracking.summaries import Gathered, summarise

INTERVAL_S = 1.0
"""Most a run's points wait for their event, and least between two events of a run."""
RETRY_S = 5.0
"""How long after a failure it is tried again."""
SWEEP_S = 15.0
"""How often it looks for points that nobody came to, such as those of a process that died after this one began."""
CONCURRENT = 4
GROUP_NAMESPACE = UUID("0d4b6a0e-3f52-5b8e-9d56-1a6f4f0d8c11")

_log = structlog.get_logger(__name__)


class Sealer:
    """Writes the events. For the tasks of one loop.

    Args:
        store: Where the runs' streams are.
        points: The tables of points, of the same database.
        interval_s: See ``INTERVAL_S``.
    """

    def __init__(self, store: PostgresEventStore, points: PointStore, *, interval_s: float = INTERVAL_S) -> None:
        self._store, self._points, self._interval_s = store, points, interval_s
        self._compactor = Compactor(points)
        self._due: dict[str, float] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._gathered: dict[str, Gathered] = {}
        self._queued: set[str] = set()
        self._held: set[str] = set()
        self._released = asyncio.Event()
        self._room = asyncio.Semaphore(CONCURRENT)
        self._clock: asyncio.Task[None] | None = None
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def busy(self) -> Iterable[str]:
        """Runs that are being sealed: nothing is committed for them meanwhile."""
        return self._running.keys()

    @asynccontextmanager
    async def held(self, runs: Collection[str]) -> AsyncIterator[None]:
        """While points of these runs are committed, none of them is sealed: what an event says is then the latest."""
        while not self._running.keys().isdisjoint(runs):
            await self.wait()
        self._held.update(runs)
        try:
            yield
        finally:
            self._held.difference_update(runs)
            self._released.set()

    def committed(self, inserted: Iterable[Inserted]) -> None:
        """Keeps what these points come to, so that they need not be read again."""
        for each in inserted:
            gathered = self._gathered.get(each.run)
            if gathered is None:
                gathered = self._gathered[each.run] = Gathered(each.batch)
            gathered.add(each.batch, each.points, each.summaries)
            self._compactor.committed(each.run)

    def doubt(self, runs: Iterable[str]) -> None:
        """More may have been committed for these runs than was said."""
        for run in runs:
            self._gathered.pop(run, None)

    def expect(self, runs: Iterable[str], *, after_s: float | None = None) -> None:
        """Points of these runs were committed: seals them in time."""
        due = asyncio.get_running_loop().time() + (self._interval_s if after_s is None else after_s)
        for run in runs:
            self._due.setdefault(run, due)
        if self._due and (self._clock is None or self._clock.done()):
            self._clock = asyncio.create_task(self._tick())

    def over(self, run: str) -> None:
        """The run has ended: no more points are expected."""
        self._compactor.over(run)
        self.expect([run])

    async def recover(self, *, sweep_s: float = SWEEP_S) -> None:
        """Seals what a process before this one left, and from now on what others leave."""
        self.expect(await self._points.unsealed(), after_s=0)
        self._sweeper = asyncio.create_task(self._sweep(sweep_s))

    async def seal(self, run: str) -> None:
        """Seals now what is committed for a run. Raises what the event store does."""
        while run in self._running or run in self._held:
            if run in self._held:
                self._released.clear()
                await self._released.wait()
            else:
                await asyncio.wait([self._running[run]])
        self._due.pop(run, None)
        task = self._running[run] = asyncio.create_task(self._seal(run))
        task.add_done_callback(lambda _: self._running.pop(run, None))
        await asyncio.shield(task)

    async def wait(self) -> None:
        """Waits until a run that is being sealed is done."""
        if self._running:
            await asyncio.wait(list(self._running.values()), return_when=asyncio.FIRST_COMPLETED)

    async def absence(self, run: str) -> Exception:
        """Why nothing can be committed for a run."""
        loaded = await self._store.load(RUN, run)
        try:
            domain.active(loaded[0] if loaded else None, run)
        except KitError as error:
            return error
        return Aborted(f"{run} was just brought back: try again")

    async def close(self) -> None:
        """Seals everything; what can not be sealed now is left to the next process."""
        runs = {*self._due, *self._queued, *self._running}
        self._due.clear()
        for failed in await asyncio.gather(*(self.seal(run) for run in runs), return_exceptions=True):
            if isinstance(failed, Exception):
                _log.warning("metrics_not_sealed", cause=str(failed))
        for task in (self._clock, self._sweeper):
            if task is not None:
                task.cancel()

    async def _sweep(self, every_s: float) -> None:
        """Seals what has waited from one look to the next: whoever committed it does not come to it."""
        before: dict[str, int] = {}
        while True:
            await asyncio.sleep(every_s)
            try:
                found = await self._points.unsealed()
            except KitError as error:
                _log.warning("metrics_not_swept", cause=str(error))
                continue
            self.expect((run for run, first in found.items() if before.get(run) == first), after_s=0)
            before = found

    async def _tick(self) -> None:
        """Seals what is due, until nothing is expected."""
        loop = asyncio.get_running_loop()
        tasks: set[asyncio.Task[None]] = set()
        while self._due or tasks:
            pause = max(min(self._due.values()) - loop.time(), 0) if self._due else None
            if tasks:
                await asyncio.wait(tasks, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(pause or 0)
            for run in [run for run, due in self._due.items() if due <= loop.time()]:
                del self._due[run]
                self._queued.add(run)
                task = asyncio.create_task(self._sealed(run))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

    async def _sealed(self, run: str) -> None:
        """As ``seal``, one of a few at a time; after a failure it is tried again later."""
        async with self._room:
            self._queued.discard(run)
            try:
                await self.seal(run)
            except Exception as error:  # noqa: BLE001 - the points are committed, and stay on the list
                _log.warning("metrics_not_sealed", run=run, cause=str(error))
                self.expect([run], after_s=RETRY_S)

    async def _seal(self, run: str) -> None:
        await self._seal_all(run)
        await self._compactor.compact(run)

    async def _seal_all(self, run: str) -> None:
        gathered = self._gathered.pop(run, None)
        tails = await self._points.tails(run)
        if gathered is not None and _same(gathered, tails):
            await self._record(run, tails, gathered)
            return
        for found in await self._ranges(run, tails):
            points = await self._points.points(run, found[0].batch, found[-1].batch)
            read = Gathered(found[0].batch)
            read.add(found[-1].batch, points, summarise(points))
            await self._record(run, found, read)

    async def _ranges(self, run: str, tails: list[Tail]) -> list[list[Tail]]:
        """The tails by what one event can be about: of one actor, cause and process, with nothing sealed in between."""
        if not tails:
            return []
        ours = {each.batch: each for each in tails}
        batches = sorted({*ours, *await self._points.batches(run, tails[0].batch, tails[-1].batch)})
        grouped = groupby((ours.get(each) for each in batches), key=_subject)
        return [[each for each in some if each is not None] for subject, some in grouped if subject is not None]

    async def _record(self, run: str, tails: list[Tail], gathered: Gathered) -> None:
        recorded = MetricsRecorded(
            run=run,
            count=gathered.count,
            sha256=gathered.sha256,
            summaries=gathered.summaries,
            first_batch=gathered.first,
            last_batch=gathered.last,
        )

        def decide(state: Run | None) -> list[Message]:
            recorded.group = domain.existing(state, run).revision + 1
            return [recorded]

        async def within(connection: Connection) -> None:
            if await remove_tails(connection, run, tails) != len(tails):
                raise Aborted(f"another process seals {run}")

        request = MetricsRecorded(run=run, count=recorded.count, sha256=recorded.sha256)
        await self._store.execute(
            RUN,
            run,
            context=_context(run, tails),
            request=request,
            decide=decide,
            respond=lambda _: request,
            within=within,
        )


def _same(gathered: Gathered, tails: list[Tail]) -> bool:
    """Whether these are the very batches that were gathered, and of one actor and cause."""
    if len(tails) != gathered.batches or (tails[0].batch, tails[-1].batch) != (gathered.first, gathered.last):
        return False
    return len({_subject(each) for each in tails}) == 1


def _subject(tail: Tail | None) -> tuple[int, str, UUID | None] | None:
    """What the batches of one event share; None for a batch that has its event."""
    return None if tail is None else (tail.batch // BLOCK, tail.actor, tail.causation_id)


def _context(run: str, tails: list[Tail]) -> CommandContext:
    first = tails[0]
    return CommandContext(
        command_id=uuid5(GROUP_NAMESPACE, f"{run} {first.batch} {tails[-1].batch}"),
        actor=first.actor,
        now=datetime.now(UTC),
        on_behalf_of=first.on_behalf_of,
        causation_id=first.causation_id,
        correlation_id=first.correlation_id,
        traceparent=first.traceparent,
        hlc=max(each.hlc for each in tails),
        method=first.method,
    )
