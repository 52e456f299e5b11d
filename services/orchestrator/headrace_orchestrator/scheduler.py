"""The scheduler: decides for every open run, appends once, and only then speaks to workers.

One scheduler leads at a time. What it holds in memory (open runs, leases, timers) is a fold of the log, made anew at
the start of each epoch; every append carries its epoch and is refused once there is a newer one. A run's turn takes all
that happened to it since the last one, and gives free workers its next steps in the same append.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar
from uuid import UUID, uuid4

import structlog
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

from headrace.api.orchestrator.v1 import resources_pb2 as resources
from headrace.api.orchestrator.v1 import service_pb2 as service
from headrace_kit.context import CommandContext
from headrace_kit.errors import Deposed, KitError, NotFound, Unavailable
from headrace_kit.eventstore import EventStore, Fence
from headrace_orchestrator import domain
from headrace_orchestrator.dispatch import Arrival, Dispatcher
from headrace_orchestrator.outputs import Outputs
from headrace_orchestrator.store import PIPELINE, RUN
from headrace_orchestrator.timers import Timers
from headrace_orchestrator.workers import Workers

ACTOR = "services/orchestrator"
_RETRY_S = 0.2
_log = structlog.get_logger(__name__)
R = TypeVar("R", bound=Message)
Clock = Callable[[], datetime]


@dataclass(slots=True)
class _OpenRun:
    state: resources.PipelineRun
    arrivals: list[Arrival] = field(default_factory=list[Arrival])
    turning: bool = False
    again: bool = False


class Scheduler:
    """Leads all runs for one epoch.

    Args:
        store: The streams.
        fence: The epoch.
        workers: Who can run steps.
        outputs: Where arguments and outputs lie.
        now: The clock, UTC.

    Attributes:
        dispatcher: What workers report to.
        timers: For retries, deadlines and schedules.
    """

    def __init__(self, store: EventStore, fence: Fence, *, workers: Workers, outputs: Outputs, now: Clock) -> None:
        self.timers = Timers(now)
        self.dispatcher = Dispatcher(self, workers=workers, outputs=outputs, timers=self.timers, epoch=fence.epoch)
        self.workers = workers
        self._store, self._fence, self._now = store, fence, now
        self._runs: dict[str, _OpenRun] = {}
        self._hungry: dict[str, None] = {}
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._over = False

    async def run(self, recovered: Iterable[resources.PipelineRun]) -> None:
        """Leads until cancelled or deposed, beginning with the open runs of the log, oldest first.

        Raises:
            Deposed: a newer epoch has begun.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                for state in recovered:
                    self._runs[state.name] = _OpenRun(state)
                for run in list(self._runs.values()):
                    self._follow(run.state)
                    self._touch(run.state.name)
                tasks.create_task(self.timers.run(), name="timers")
                tasks.create_task(self._check_workers(), name="workers")
        except* KitError as errors:
            raise _first(errors) from errors
        finally:
            self._tasks, self._over = None, True
            self.workers.close()
            for name in self._watchers:
                self._notify(name)

    # --- commands -------------------------------------------------------------------------------------------------

    async def start(
        self, request: service.StartPipelineRunRequest, *, cause: str, context: CommandContext
    ) -> service.StartPipelineRunResponse:
        """Starts a run, once for a command id, which is also the run's id.

        Raises:
            NotFound: there is no such pipeline.
            InvalidArgument: a parameter is missing, unknown or of another type.
        """
        loaded = await self._store.load(PIPELINE, request.pipeline)
        if loaded is None:
            raise NotFound("pipeline", request.pipeline, field="pipeline")
        name = f"{request.pipeline.partition('/pipelines/')[0]}/pipelineRuns/{context.command_id}"
        response = await self._store.execute(
            RUN,
            name,
            context=context,
            request=request,
            decide=lambda state: domain.decide_start(
                state, name=name, pipeline=loaded[0], parameters=dict(request.parameters), cause=cause, context=context
            ),
            respond=lambda run: service.StartPipelineRunResponse(run=run),
            fence=self._fence,
        )
        await self._adopt(name)
        return response

    async def cancel(
        self, request: service.CancelPipelineRunRequest, context: CommandContext
    ) -> service.CancelPipelineRunResponse:
        """Ends a run and its processes. Raises FailedPrecondition when it ended in another way."""
        response = await self._store.execute(
            RUN,
            request.run,
            context=context,
            request=request,
            decide=lambda state: domain.decide_cancel(state, reason=request.reason, context=context),
            respond=lambda run: service.CancelPipelineRunResponse(run=run),
            fence=self._fence,
        )
        await self._adopt(request.run)
        return response

    async def supersede(self, run: str, *, reason: str, context: CommandContext) -> None:
        """Ends a run that still waits for a place, since a newer one does its work; nothing when it has begun."""
        request = service.CancelPipelineRunRequest(command_id=str(context.command_id), run=run, reason=reason)
        await self._store.execute(
            RUN,
            run,
            context=context,
            request=request,
            decide=lambda state: domain.decide_supersede(state, reason=reason, context=context),
            respond=lambda state: service.CancelPipelineRunResponse(run=state),
            fence=self._fence,
        )
        await self._adopt(run)

    def waiting(self, pipeline: str, *, cause: str) -> list[str]:
        """Runs of a pipeline that a cause started and that wait for a place, oldest first."""
        states = [each.state for each in self._runs.values()]
        return [
            state.name
            for state in states
            if (state.pipeline, state.cause) == (pipeline, cause)
            and state.status == resources.PIPELINE_RUN_STATUS_QUEUED
        ]

    async def resume(
        self, request: service.ResumePipelineRunRequest, context: CommandContext
    ) -> service.ResumePipelineRunResponse:
        """Goes on with a run that failed or was cancelled. Raises FailedPrecondition when it succeeded."""
        response = await self._store.execute(
            RUN,
            request.run,
            context=context,
            request=request,
            decide=lambda state: domain.decide_resume(state, context),
            respond=lambda run: service.ResumePipelineRunResponse(run=run),
            fence=self._fence,
        )
        await self._adopt(request.run)
        return response

    async def change_pipeline(
        self,
        name: str,
        *,
        context: CommandContext,
        request: Message,
        decide: Callable[[resources.Pipeline | None], Sequence[Message]],
        respond: Callable[[resources.Pipeline], R],
    ) -> R:
        """A command on a pipeline, under this epoch; raises what ``EventStore.execute`` does."""
        return await self._store.execute(
            PIPELINE, name, context=context, request=request, decide=decide, respond=respond, fence=self._fence
        )

    # --- queries --------------------------------------------------------------------------------------------------

    async def get(self, name: str) -> resources.PipelineRun:
        """A run as it is in the log. Raises NotFound."""
        loaded = await self._store.load(RUN, name)
        if loaded is None:
            raise NotFound("pipeline run", name, field="name")
        return loaded[0]

    async def watch(self, name: str) -> AsyncIterator[resources.PipelineRun]:
        """A run now and after each change until it has ended.

        Raises:
            NotFound: there is no such run.
            Unavailable: this process leads no longer.
        """
        changed, revision = asyncio.Event(), -1
        self._watchers.setdefault(name, set()).add(changed)
        try:
            while not self._over:
                changed.clear()
                state = await self.get(name)
                if state.revision > revision:
                    revision = state.revision
                    yield state
                if state.status not in domain.OPEN:
                    return
                await changed.wait()
            raise Unavailable("another process leads", reason="NOT_LEADING")
        finally:
            self._watchers[name].discard(changed)
            if not self._watchers[name]:
                del self._watchers[name]

    # --- for its parts --------------------------------------------------------------------------------------------

    def state(self, name: str) -> resources.PipelineRun | None:
        """An open run as it was after its last turn."""
        run = self._runs.get(name)
        return run.state if run is not None else None

    def arrive(self, arrival: Arrival) -> None:
        """Takes an outcome into the run's next turn, which begins at once."""
        run = self._runs.get(arrival.run)
        if run is None:
            self.dispatcher.settled([arrival])
            return
        run.arrivals.append(arrival)
        self._touch(arrival.run)
        self.feed()

    def feed(self) -> None:
        """Wakes as many runs as there are free places, in the order in which they began to wait."""
        for name in list(self._hungry)[: self.workers.free]:
            self._touch(name)

    def spawn(self, work: Coroutine[object, object, None]) -> None:
        """Does work while this process leads; a failure of it is one of the scheduler."""
        if self._tasks is None:
            work.close()
        else:
            self._tasks.create_task(work)

    # --- turns ----------------------------------------------------------------------------------------------------

    async def _adopt(self, name: str) -> None:
        """Takes a run as it is in the log after a command that was not a turn."""
        state = await self.get(name)
        if name not in self._runs and state.status in domain.OPEN:
            self._runs[name] = _OpenRun(state)
        self._follow(state)
        self._touch(name)

    def _touch(self, name: str) -> None:
        """Has a run take its turn now, or once more after the one it is in."""
        run = self._runs.get(name)
        if run is None or self._tasks is None:
            return
        if run.turning:
            run.again = True
        else:
            run.turning = True
            self.spawn(self._turns(run))

    async def _turns(self, run: _OpenRun) -> None:
        while run.state.status in domain.OPEN:
            run.again = False
            await self._turn(run)
            if not run.again and not run.arrivals:
                break
        run.turning = False
        self.dispatcher.settled(run.arrivals)

    async def _turn(self, run: _OpenRun) -> None:
        arrivals, run.arrivals = run.arrivals, []
        before = run.state
        context = CommandContext(
            command_id=uuid4(),
            actor=ACTOR,
            now=self._now(),
            on_behalf_of=before.actor,
            causation_id=UUID(before.event_id),
            correlation_id=UUID(before.correlation_id),
        )
        outcomes = [each.outcome for each in arrivals]
        expected = before
        for event in domain.decide_turn(before, domain.Turn(outcomes), context):
            expected = domain.evolve(expected, event)
        grants = self._grants(expected, context.now)
        if not outcomes and not grants:
            return
        after = await self._append(before.name, domain.Turn(outcomes, grants), context)
        self.dispatcher.settled(arrivals)
        self._follow(after)
        await self.dispatcher.carry_out(after, grants)

    async def _append(self, name: str, turn: domain.Turn, context: CommandContext) -> resources.PipelineRun:
        """Writes a turn; waits for a database that is away, unless it is deposed meanwhile."""
        after: list[resources.PipelineRun] = []

        def respond(state: resources.PipelineRun) -> Empty:
            after[:] = [state]
            return Empty()

        while True:
            try:
                await self._store.execute(
                    RUN,
                    name,
                    context=context,
                    request=Empty(),
                    decide=lambda state: domain.decide_turn(state, turn, context),
                    respond=respond,
                    fence=self._fence,
                )
                return after[0] if after else await self.get(name)
            except KitError as error:
                if isinstance(error, Deposed) or not error.retryable:
                    raise
                _log.warning("turn_waits", run=name, cause=error.message)
                await asyncio.sleep(_RETRY_S)

    def _grants(self, state: resources.PipelineRun, now: datetime) -> list[domain.Grant]:
        """Places for the steps that can run; a run that gets too few of them waits in line."""
        self._hungry.pop(state.name, None)
        grants: list[domain.Grant] = []
        if not self._may_run(state):
            return grants
        for step in domain.runnable(state, now):
            grant = self.dispatcher.reserve(step)
            if grant is None:
                self._hungry[state.name] = None
                break
            grants.append(grant)
        return grants

    def _may_run(self, state: resources.PipelineRun) -> bool:
        """Whether a run is among the oldest open ones of its pipeline, as many as may run at one time."""
        most = state.definition.max_active_runs
        if not most:
            return True
        others = (each.state for each in self._runs.values() if each.state.pipeline == state.pipeline)
        return sum(_age(other) < _age(state) for other in others) < most

    def _follow(self, after: resources.PipelineRun) -> None:
        """The log has a run in the state ``after``: leases, timers and watchers follow."""
        name = after.name
        run = self._runs.get(name)
        if run is not None and after.revision >= run.state.revision:
            run.state = after
            self.dispatcher.follow(after)
            retry = domain.next_retry(after)
            if retry is not None:
                self.timers.at(retry, lambda: self._touch(name))
            if after.status not in domain.OPEN:
                del self._runs[name]
                self._hungry.pop(name, None)
                for other in list(self._runs.values()):
                    if other.state.pipeline == after.pipeline and after.definition.max_active_runs:
                        self._touch(other.state.name)
        self._notify(name)

    async def _check_workers(self) -> None:
        while True:
            await asyncio.sleep(self.workers.lease_s / 4)
            self.dispatcher.check()

    def _notify(self, name: str) -> None:
        for changed in self._watchers.get(name, ()):
            changed.set()


def _age(run: resources.PipelineRun) -> tuple[datetime, str]:
    return domain.moment(run.create_time), run.name


def _first(errors: BaseExceptionGroup[KitError]) -> KitError:
    for each in errors.exceptions:
        return _first(each) if isinstance(each, BaseExceptionGroup) else each
    raise AssertionError("an exception group holds an exception")
