"""The way of metric points into the database: whatever was called meanwhile, of all runs, is one transaction.

While one group is being committed the next one gathers, so groups grow with the load and an idle service waits for
nothing. Points, summaries and the ids of the commands are committed together; then the callers are told. Within a
second a `MetricsRecorded` seals what was committed for a run: see :mod:`headrace_tracking.sealing`.
"""

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from headrace_kit.errors import AlreadyExists, FailedPrecondition, KitError, ResourceExhausted
from headrace_kit.postgres import ConnectionLost, UniqueViolation
from headrace_tracking.domain import MAX_METRICS
from headrace_tracking.pointstore import MetricCommand, PointStore
from headrace_tracking.sealing import Sealer

MAX_WAITING_POINTS = 500_000
"""Points that may wait for one run; more are refused."""
MAX_GROUP_POINTS = 100_000
MAX_KNOWN_RUNS = 10_000
RECONNECT_S = 10.0
"""How long a group whose outcome is unknown tries to find it out."""


@dataclass(slots=True)
class _Waiting:
    command: MetricCommand
    done: asyncio.Future[int]

    def fail(self, error: Exception) -> None:
        """Tells the caller, unless it is told or gone."""
        if not self.done.done():
            self.done.set_exception(error)

    def succeed(self) -> None:
        """Tells the caller how many points are stored, unless it is told or gone."""
        if not self.done.done():
            self.done.set_result(len(self.command))


@dataclass(slots=True)
class _Queue:
    waiting: deque[_Waiting] = field(default_factory=deque["_Waiting"])
    points: int = 0


class MetricWriter:
    """Commits metric points. For the tasks of one loop.

    Args:
        store: The tables of points.
        sealer: Writes the events.
    """

    def __init__(self, store: PointStore, sealer: Sealer) -> None:
        self._store, self._sealer = store, sealer
        self._queues: OrderedDict[str, _Queue] = OrderedDict()
        self._known: OrderedDict[str, set[str]] = OrderedDict()
        self._task: asyncio.Task[None] | None = None

    async def write(self, command: MetricCommand) -> int:
        """Commits the points, once per command id, and returns their number.

        Raises:
            NotFound: There is no such run.
            FailedPrecondition: The run was put away, or would have too many metrics.
            AlreadyExists: The command id was used for another request.
            ResourceExhausted: Too many points wait for the run.
        """
        queue = self._queues.setdefault(command.run, _Queue())
        if queue.waiting and queue.points + len(command) > MAX_WAITING_POINTS:
            raise ResourceExhausted(f"{queue.points} points wait for {command.run}", reason="METRICS_BUSY")
        waiting = _Waiting(command, asyncio.get_running_loop().create_future())
        queue.waiting.append(waiting)
        queue.points += len(command)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain())
        return await waiting.done

    async def seal(self, run: str) -> None:
        """Writes the event of what is committed for a run, without waiting for its second."""
        await self._sealer.seal(run)

    def over(self, run: str) -> None:
        """The run has ended."""
        self._sealer.over(run)

    def forget(self, run: str) -> None:
        """The run was put away or brought back: ask the database about it."""
        self._known.pop(run, None)

    async def close(self) -> None:
        """Waits until everything taken is committed and sealed."""
        if self._task is not None:
            await self._task
        await self._sealer.close()

    async def _drain(self) -> None:
        while self._queues:
            group = self._next_group()
            if not group:  # what waits is of runs that are being sealed
                await self._sealer.wait()
                continue
            try:
                await self._commit(group)
            except Exception as error:  # noqa: BLE001 - whoever waits is told, whatever it was
                await self._settle(group, error)

    def _next_group(self) -> list[_Waiting]:
        """Calls at the heads of the queues: of one actor for each run, and not too many points together."""
        group: list[_Waiting] = []
        room = MAX_GROUP_POINTS
        for run in [run for run in self._queues if run not in self._sealer.busy]:
            queue = self._queues.pop(run)
            actor = queue.waiting[0].command.context.actor
            while queue.waiting:
                command = queue.waiting[0].command
                if command.context.actor != actor or (group and len(command) > room):
                    break
                group.append(queue.waiting.popleft())
                queue.points -= len(command)
                room -= len(command)
            if queue.waiting:  # the rest goes to the end, so that no run waits for another for ever
                self._queues[run] = queue
            if room <= 0:
                break
        return group

    async def _settle(self, group: list[_Waiting], error: Exception) -> None:
        """Tells a single caller why; of several each gets its own attempt, so that none fails for another's fault."""
        if len(group) == 1 or (isinstance(error, KitError) and error.retryable):
            for each in group:
                each.fail(error)
            return
        for each in group:
            try:
                await self._commit([each])
            except Exception as single:  # noqa: BLE001 - as above
                each.fail(single)

    async def _commit(self, group: list[_Waiting]) -> None:
        runs = {each.command.run for each in group}
        try:
            async with self._sealer.held(runs):
                await self._insert(group)
        except ConnectionLost:
            self._sealer.doubt(runs)
            raise
        finally:  # also after a failure: a commit whose answer was lost has its event too
            self._sealer.expect(runs)

    async def _insert(self, group: list[_Waiting]) -> None:
        new = _once(await self._admitted(group))
        give_up_at = asyncio.get_running_loop().time() + RECONNECT_S
        while new:
            try:
                batch = await self._store.next_batch()
                self._sealer.committed(await self._store.insert(batch, [each.command for each in new]))
                break
            except UniqueViolation:  # some are repeats, or of a commit whose answer was lost
                self._sealer.doubt({each.command.run for each in new})
                carried_out = await self._store.carried_out([each.command.context.command_id for each in new])
                new = [each for each in new if each.command.context.command_id not in carried_out]
                for each in group:
                    hashed = carried_out.get(each.command.context.command_id, each.command.request_hash)
                    if hashed != each.command.request_hash:
                        each.fail(_reused(each.command))
            except ConnectionLost:
                # A commit that comes through after all makes the next attempt fail by the ids of its commands.
                if asyncio.get_running_loop().time() > give_up_at:
                    raise
                await asyncio.sleep(0.05)
        for each in group:
            each.succeed()
        for each in new:
            self._known.get(each.command.run, set()).update(points.key for points in each.command.points)

    async def _admitted(self, group: list[_Waiting]) -> list[_Waiting]:
        """Those whose run is there and has room; the others are told."""
        unknown = {each.command.run for each in group} - self._known.keys()
        if unknown:
            self._known.update(await self._store.keys(sorted(unknown)))
        admitted: list[_Waiting] = []
        for each in group:
            command = each.command
            keys = self._known.get(command.run)
            if keys is None:
                each.fail(await self._sealer.absence(command.run))
            elif len(keys) + len({points.key for points in command.points} - keys) > MAX_METRICS:
                message = f"a run holds at most {MAX_METRICS} metrics"
                each.fail(FailedPrecondition(message, field="points", reason="RUN_FULL"))
            else:
                admitted.append(each)
        while len(self._known) > MAX_KNOWN_RUNS:
            self._known.popitem(last=False)
        return admitted


def _once(group: list[_Waiting]) -> list[_Waiting]:
    """The first call of each command id; the caller of another request with the same id is told."""
    first: dict[object, _Waiting] = {}
    for each in group:
        held = first.setdefault(each.command.context.command_id, each)
        if held.command.request_hash != each.command.request_hash:
            each.fail(_reused(each.command))
    return list(first.values())


def _reused(command: MetricCommand) -> AlreadyExists:
    return AlreadyExists(
        f"command id {command.context.command_id} was already used with another request",
        field="command_id",
        reason="COMMAND_ID_REUSED",
    )
