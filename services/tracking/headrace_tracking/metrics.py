"""The way of metric points into the database: concurrent calls for a run are committed as one group.

While one group of a run is being committed the next one gathers, so groups grow with the load and an idle run waits
for nothing. Points, their summary event and the ids of the commands are one transaction.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid5

from google.protobuf.message import Message

from headrace.api.tracking.v1.events_pb2 import MetricsRecorded
from headrace.api.tracking.v1.resources_pb2 import Run
from headrace_kit.context import CommandContext
from headrace_kit.errors import AlreadyExists, KitError, ResourceExhausted
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.postgres import Connection, Database, UniqueViolation
from headrace_tracking import domain
from headrace_tracking.store import RUN
from headrace_tracking.summaries import Point, digest, summarise

GROUP_NAMESPACE = UUID("0d4b6a0e-3f52-5b8e-9d56-1a6f4f0d8c11")
MAX_WAITING_POINTS = 500_000
"""Points that may wait for one run; more are refused."""
MAX_GROUP_POINTS = 100_000
_COLUMNS = ("run", "group_number", "ordinal", "key", "step", "time_us", "value")


@dataclass(frozen=True, slots=True)
class MetricCommand:
    """One call: its points, and what tells a repeat from another request."""

    run: str
    context: CommandContext
    request_hash: bytes
    points: Sequence[Point]


@dataclass(slots=True)
class _Waiting:
    command: MetricCommand
    done: asyncio.Future[int]

    def fail(self, error: Exception) -> None:
        """Tells the caller, unless it is told or gone."""
        if not self.done.done():
            self.done.set_exception(error)


@dataclass(slots=True)
class _Queue:
    waiting: deque[_Waiting] = field(default_factory=deque["_Waiting"])
    points: int = 0


class MetricWriter:
    """Commits metric points. For the tasks of one loop.

    Args:
        store: Where the runs' streams are.
        database: The same database.
    """

    def __init__(self, store: PostgresEventStore, database: Database) -> None:
        self._store = store
        self._database = database
        self._queues: dict[str, _Queue] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def write(self, command: MetricCommand) -> int:
        """Commits the points, once per command id, and returns their number.

        Raises:
            NotFound: There is no such run.
            AlreadyExists: The command id was used for another request.
            ResourceExhausted: Too many points wait for the run.
        """
        queue = self._queues.get(command.run)
        if queue is not None and queue.points + len(command.points) > MAX_WAITING_POINTS:
            raise ResourceExhausted(f"{queue.points} points wait for {command.run}", reason="METRICS_BUSY")
        waiting = _Waiting(command, asyncio.get_running_loop().create_future())
        if queue is None:
            queue = self._queues[command.run] = _Queue()
            task = asyncio.create_task(self._drain(command.run, queue))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        queue.waiting.append(waiting)
        queue.points += len(command.points)
        return await waiting.done

    async def close(self) -> None:
        """Waits until everything taken is committed."""
        await asyncio.gather(*self._tasks)

    async def _drain(self, run: str, queue: _Queue) -> None:
        while queue.waiting:
            group = _next_group(queue)
            try:
                await self._commit(run, group)
            except Exception as error:  # noqa: BLE001 - whoever waits is told, whatever it was
                await self._settle(run, group, error)
        del self._queues[run]

    async def _settle(self, run: str, group: list[_Waiting], error: Exception) -> None:
        """Tells a single caller why; of several each gets its own attempt, so that none fails for another's fault."""
        if len(group) == 1 or (isinstance(error, KitError) and error.retryable):
            for each in group:
                each.fail(error)
            return
        for each in group:
            try:
                await self._commit(run, [each])
            except Exception as single:  # noqa: BLE001 - as above
                each.fail(single)

    async def _commit(self, run: str, group: list[_Waiting]) -> None:
        new = await self._without_repeats(group)
        while new:
            try:
                await self._append(run, [each.command for each in new])
                break
            except UniqueViolation:  # another process took one of the commands meanwhile
                new = await self._without_repeats(new)
        for each in group:
            if not each.done.done():
                each.done.set_result(len(each.command.points))

    async def _without_repeats(self, group: list[_Waiting]) -> list[_Waiting]:
        """Those whose command id is new; a repeat within the group counts once."""
        ids = [each.command.context.command_id for each in group]
        rows = await self._database.fetch(
            "SELECT command_id, request_hash FROM metric_commands WHERE command_id = ANY($1::uuid[])", ids
        )
        seen: dict[UUID, bytes] = {row["command_id"]: row["request_hash"] for row in rows}
        new: list[_Waiting] = []
        for each in group:
            identity, hashed = each.command.context.command_id, each.command.request_hash
            if seen.setdefault(identity, hashed) != hashed:
                each.fail(
                    AlreadyExists(
                        f"command id {identity} was already used with another request",
                        field="command_id",
                        reason="COMMAND_ID_REUSED",
                    )
                )
            elif identity not in {row["command_id"] for row in rows} and all(
                other.command.context.command_id != identity for other in new
            ):
                new.append(each)
        return new

    async def _append(self, run: str, commands: Sequence[MetricCommand]) -> None:
        points = [point for command in commands for point in command.points]
        recorded = MetricsRecorded(run=run, count=len(points), sha256=digest(points), summaries=summarise(points))

        def decide(state: Run | None) -> list[Message]:
            recorded.group = domain.existing(state, run).revision + 1
            return domain.decide_metrics(state, recorded)

        async def within(connection: Connection) -> None:
            await connection.copy_rows(
                "metric_points",
                _COLUMNS,
                [
                    (run, recorded.group, ordinal, point.key, point.step, point.time_us, point.value)
                    for ordinal, point in enumerate(points)
                ],
            )
            await connection.copy_rows(
                "metric_commands",
                ("command_id", "request_hash", "run", "count"),
                [(each.context.command_id, each.request_hash, run, len(each.points)) for each in commands],
            )

        first = commands[0].context
        identity = uuid5(GROUP_NAMESPACE, "".join(str(each.context.command_id) for each in commands))
        context = CommandContext(
            command_id=identity,
            actor=first.actor,
            now=first.now,
            on_behalf_of=first.on_behalf_of,
            causation_id=first.causation_id,
            correlation_id=first.correlation_id,
            traceparent=first.traceparent,
            hlc=first.hlc,
        )
        request = MetricsRecorded(run=run, count=recorded.count, sha256=recorded.sha256)
        await self._store.execute(
            RUN, run, context=context, request=request, decide=decide, respond=lambda _: request, within=within
        )


def _next_group(queue: _Queue) -> list[_Waiting]:
    """The calls at the head of the queue: of one actor, and not too many points together."""
    group = [queue.waiting.popleft()]
    size, actor = len(group[0].command.points), group[0].command.context.actor
    while queue.waiting:
        command = queue.waiting[0].command
        if command.context.actor != actor or size + len(command.points) > MAX_GROUP_POINTS:
            break
        group.append(queue.waiting.popleft())
        size += len(command.points)
    queue.points -= size
    return group
