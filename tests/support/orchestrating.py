"""A scheduler in memory with workers played by the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from google.protobuf.message import Message

from headrace.api.orchestrator.v1 import resources_pb2 as resources
from headrace.api.orchestrator.v1 import service_pb2 as service
from headrace_kit.context import CommandContext
from headrace_kit.eventstore import Fence, MemoryEventStore
from headrace_kit.eventtypes import EventTypes
from headrace_kit.objects import MemoryObjectStore
from headrace_orchestrator import definitions, domain
from headrace_orchestrator.automation import Automation
from headrace_orchestrator.events import EVENT_TYPES
from headrace_orchestrator.leading import LEASE
from headrace_orchestrator.outputs import Outputs
from headrace_orchestrator.scheduler import Scheduler
from headrace_orchestrator.store import PIPELINE, RUN
from headrace_orchestrator.workers import Outbox, Worker, Workers

PIPELINE_NAME = "projects/p/pipelines/x"
START = datetime(2026, 3, 2, 10, 0, 30, tzinfo=UTC)
LEASE_S = 10.0


@dataclass
class Clock:
    """Time as the test wants it, wall and monotonic."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        return (self.now - START).total_seconds()

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class PlayedWorker:
    """A worker's side of the stream."""

    def __init__(self, scheduler: Scheduler, *, capacity: int, worker_id: str = "") -> None:
        self.scheduler = scheduler
        self.capacity = capacity
        self.id = worker_id or str(uuid4())
        self.worker: Worker
        self.outbox: Outbox
        self._messages: AsyncIterator[service.WorkResponse]
        self.leases: dict[int, service.Lease] = {}
        self.acknowledged: list[int] = []
        self.cancelled: list[int] = []

    async def connect(self, held: Iterable[int] = ()) -> None:
        self.worker, self.outbox = self.scheduler.workers.connect(self.id, self.capacity)
        self._messages = self.outbox.messages()
        await self.scheduler.dispatcher.greet(self.worker, held)

    async def hear(self, until: Callable[[], bool]) -> None:
        """Reads messages until something holds."""
        async with asyncio.timeout(5):
            while not until():
                message = await anext(self._messages)
                self.acknowledged.extend(message.acknowledged_tokens)
                self.cancelled.extend(message.cancelled_tokens)
                for lease in message.leases:
                    self.leases[lease.token] = lease

    async def take(self, count: int = 1) -> list[service.Lease]:
        """The next leases."""
        await self.hear(lambda: len(self.leases) >= count)
        taken, self.leases = list(self.leases.values()), {}
        return taken

    async def report(self, lease: service.Lease, json: str = "null", *, error_class: str = "") -> None:
        result = service.StepResult(token=lease.token, run=lease.run, step=lease.step, error_class=error_class)
        if not error_class:
            result.output.json = json
        await self.scheduler.dispatcher.report(self.worker, result)

    async def complete(self, lease: service.Lease, json: str = "null") -> None:
        await self.report(lease, json)
        await self.hear(lambda: lease.token in self.acknowledged)


@dataclass
class Orchestration:
    """A log and whoever leads on it."""

    clock: Clock = field(default_factory=Clock)
    epoch: int = 0

    def __post_init__(self) -> None:
        self.store = MemoryEventStore("headrace/orchestrator", EventTypes(*EVENT_TYPES), self.clock)
        self.outputs = Outputs(MemoryObjectStore())

    @asynccontextmanager
    async def leading(self) -> AsyncIterator[tuple[Scheduler, Automation]]:
        """A new leader, recovered from the log; older ones are deposed."""
        self.epoch += 1
        self.store.epochs[LEASE] = self.epoch
        workers = Workers(LEASE_S, self.clock.monotonic)
        fence = Fence(LEASE, self.epoch)
        scheduler = Scheduler(self.store, fence, workers=workers, outputs=self.outputs, now=self.clock)
        automation = Automation(scheduler, self.clock)
        automation.recover(await self._states(PIPELINE.name))
        runs = [run for run in await self._runs() if run.status in domain.OPEN]
        leading = asyncio.create_task(scheduler.run(runs))
        await asyncio.sleep(0)
        try:
            yield scheduler, automation
        finally:
            leading.cancel()
            await asyncio.gather(leading, return_exceptions=True)

    async def register(
        self, scheduler: Scheduler, definition: resources.PipelineDefinition, name: str = PIPELINE_NAME
    ) -> None:
        request = service.RegisterPipelineRequest(command_id=str(uuid4()), name=name, definition=definition)
        context = self.context(UUID(request.command_id))
        await scheduler.change_pipeline(
            name,
            context=context,
            request=request,
            decide=lambda state: definitions.decide_register(state, request, context),
            respond=lambda pipeline: pipeline,
        )

    async def start(self, scheduler: Scheduler, command_id: UUID | None = None, **parameters: str) -> str:
        context = self.context(command_id or uuid4())
        request = service.StartPipelineRunRequest(
            command_id=str(context.command_id), pipeline=PIPELINE_NAME, parameters=parameters
        )
        return (await scheduler.start(request, cause="manual", context=context)).run.name

    def context(self, command_id: UUID | None = None) -> CommandContext:
        return CommandContext(command_id=command_id or uuid4(), actor="persons/operator", now=self.clock.now)

    async def state(self, run: str) -> resources.PipelineRun:
        loaded = await self.store.load(RUN, run)
        assert loaded is not None
        return loaded[0]

    async def events(self, stream: str) -> list[tuple[str, Message]]:
        """The events of a stream, each with the id of its command."""
        found = await self.store.read_stream(stream)
        return [(str(each.origin.command_id), each.message) for each in found if each.message is not None]

    async def _states(self, _aggregate: str) -> list[resources.Pipeline]:
        loaded = [await self.store.load(PIPELINE, str(row["name"])) for row in self.store.rows("pipelines")]
        return [each[0] for each in loaded if each is not None]

    async def _runs(self) -> list[resources.PipelineRun]:
        return [await self.state(str(row["name"])) for row in self.store.rows("pipeline_runs")]


def chain(count: int, *, retries: int = 0, max_active_runs: int = 0) -> resources.PipelineDefinition:
    """Steps ``s0``, ``s1``, ... each of which takes the output of the one before."""
    steps = [
        resources.StepDefinition(
            id=f"s{index}",
            function="m:f",
            inputs=[resources.StepInput(argument="given", step=f"s{index - 1}")] if index else [],
            retry=resources.RetryPolicy(max_attempts=retries + 1, backoff_s=30),
            timeout_s=60,
        )
        for index in range(count)
    ]
    return resources.PipelineDefinition(entrypoint="m:p", steps=steps, max_active_runs=max_active_runs)


def wide(count: int) -> resources.PipelineDefinition:
    """Steps that need nothing."""
    steps = [resources.StepDefinition(id=f"s{index}", function="m:f", timeout_s=60) for index in range(count)]
    return resources.PipelineDefinition(entrypoint="m:p", steps=steps)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Waits until a condition holds."""
    async with asyncio.timeout(5):
        while not await condition():
            await asyncio.sleep(0.01)
