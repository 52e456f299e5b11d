"""Leases in the hands of workers: who holds which token, what workers report, and what they are told."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Protocol

import structlog

from headrace.api.orchestrator.v1 import resources_pb2 as resources
from headrace.api.orchestrator.v1 import service_pb2 as service
from headrace_kit.errors import InvalidArgument, KitError
from headrace_orchestrator import domain
from headrace_orchestrator.outputs import Outputs
from headrace_orchestrator.timers import Timers
from headrace_orchestrator.workers import Worker, Workers

INPUT_UNAVAILABLE = "INPUT_UNAVAILABLE"
OUTPUT_REFUSED = "OUTPUT_REFUSED"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Held:
    """A lease that is in the log: who runs which step."""

    run: str
    step: str
    worker: str


@dataclass(frozen=True, slots=True)
class Arrival:
    """An outcome on its way into the log; ``reported`` by the worker itself, or concluded from its silence."""

    run: str
    outcome: domain.Outcome
    reported: bool


class Runs(Protocol):
    """What the scheduler offers the dispatcher."""

    def state(self, name: str) -> resources.PipelineRun | None:
        """An open run."""
        ...

    def arrive(self, arrival: Arrival) -> None:
        """Takes an outcome into the run's next turn."""
        ...

    def feed(self) -> None:
        """There may be free places."""
        ...


class Dispatcher:
    """The leases of one epoch. Its book follows the log: a token is held from its StepLeased to its outcome.

    Args:
        runs: The scheduler.
        workers: The workers.
        outputs: Where arguments and outputs lie.
        timers: For deadlines.
        epoch: High half of the fencing tokens.
    """

    def __init__(self, runs: Runs, *, workers: Workers, outputs: Outputs, timers: Timers, epoch: int) -> None:
        self._runs, self._workers, self._outputs, self._timers = runs, workers, outputs, timers
        self._held: dict[int, Held] = {}
        self._last_token = epoch << 32

    def reserve(self, step: str) -> domain.Grant | None:
        """A place for a step and a new fencing token, None when no worker has one."""
        worker = self._workers.most_free()
        if worker is None:
            return None
        self._last_token += 1
        worker.slots.add(self._last_token)
        worker.reserved.add(self._last_token)
        return domain.Grant(step, self._last_token, worker.id)

    async def carry_out(self, run: resources.PipelineRun, grants: Iterable[domain.Grant]) -> None:
        """Sends the leases that were granted in a turn which is in the log; gives the places of the others back."""
        for grant in grants:
            worker = self._workers.find(grant.worker)
            if worker is not None:
                worker.reserved.discard(grant.token)
            if grant.token in self._held:
                await self._deliver(run, grant.token)
            elif worker is not None:
                worker.slots.discard(grant.token)
                self._runs.feed()

    def follow(self, run: resources.PipelineRun) -> None:
        """Brings the book up to the state of a run; workers end steps whose lease is over."""
        leased = {step.token: step for step in domain.leases(run)}
        for token, held in list(self._held.items()):
            if held.run == run.name and token not in leased:
                del self._held[token]
                worker = self._workers.find(held.worker)
                if worker is not None and token in worker.slots and worker.outbox is not None:
                    worker.outbox.cancel(token)
        for token, step in leased.items():
            if token not in self._held:
                self._held[token] = Held(run.name, step.id, step.worker)
                self._workers.get(step.worker).slots.add(token)
                grace = timedelta(seconds=self._workers.lease_s)  # the worker ends it itself at its deadline
                self._timers.at(domain.deadline(run, step) + grace, partial(self._time_out, token))

    def settled(self, arrivals: Iterable[Arrival]) -> None:
        """Outcomes are in the log, or came too late: workers may forget what they reported."""
        for arrival in arrivals:
            if arrival.reported:
                for worker in self._workers:
                    if worker.outbox is not None and arrival.outcome.token in worker.reported:
                        worker.reported.discard(arrival.outcome.token)
                        worker.outbox.acknowledge(arrival.outcome.token)

    async def greet(self, worker: Worker, held: Iterable[int]) -> None:
        """A worker dialled in with the leases it holds; those that never reached it are sent again."""
        theirs = set(held)
        self.renew(worker, theirs)
        for token, lease in list(self._held.items()):
            if lease.worker == worker.id and token not in theirs and token not in worker.reserved:
                run = self._runs.state(lease.run)
                if run is not None:
                    await self._deliver(run, token)
        self._runs.feed()

    def renew(self, worker: Worker, held: Iterable[int]) -> None:
        """A heartbeat: steps whose lease is over are ended, and places that became free are used."""
        theirs = set(held)
        for token in theirs - self._held.keys() - worker.reported:
            if worker.outbox is not None:
                worker.outbox.cancel(token)
        over = worker.slots - theirs - self._held.keys() - worker.reserved
        if over:
            worker.slots -= over
            self._runs.feed()

    async def report(self, worker: Worker, result: service.StepResult) -> None:
        """An attempt ended. It is acknowledged once that is in the log, and at once when it came too late."""
        held = self._held.get(result.token)
        if result.token in worker.reported:
            return
        if held is None:
            worker.slots.discard(result.token)
            if worker.outbox is not None:
                worker.outbox.acknowledge(result.token)
            self._runs.feed()
            return
        try:
            outcome = await self._outcome(held, result)
        except KitError as error:  # the worker repeats its result until it is acknowledged
            _log.warning("output_not_stored", run=held.run, step=held.step, cause=error.message)
            return
        worker.slots.discard(result.token)
        worker.reported.add(result.token)
        self._runs.arrive(Arrival(held.run, outcome, reported=True))

    def lost(self, worker: Worker) -> None:
        """A worker died, or was silent for too long: its leases are over."""
        _log.warning("worker_lost", worker=worker.id)
        self._workers.forget(worker)
        for token, held in list(self._held.items()):
            if held.worker == worker.id:
                self._conclude(token, held, domain.WORKER_LOST, f"worker {worker.id} was lost")

    def check(self) -> None:
        """Gives up on workers that were silent for too long."""
        for worker in self._workers.silent():
            self.lost(worker)

    async def _outcome(self, held: Held, result: service.StepResult) -> domain.Outcome:
        if result.error_class:
            return domain.Outcome(held.step, result.token, None, result.error_class, result.error)
        try:
            output = await self._outputs.store(held.run, result.output.json)
        except InvalidArgument as error:
            return domain.Outcome(held.step, result.token, None, OUTPUT_REFUSED, error.message)
        return domain.Outcome(held.step, result.token, output)

    async def _deliver(self, run: resources.PipelineRun, token: int) -> None:
        held = self._held[token]
        try:
            lease = await self._outputs.lease(run, held.step)
        except KitError as error:
            self._conclude(token, held, INPUT_UNAVAILABLE, error.message)
            return
        worker = self._workers.find(held.worker)
        if token in self._held and worker is not None and worker.outbox is not None:
            worker.outbox.lease(lease)

    def _time_out(self, token: int) -> None:
        held = self._held.get(token)
        if held is not None:
            self._conclude(token, held, domain.TIMEOUT, "its time was over and its worker did not end it")

    def _conclude(self, token: int, held: Held, error_class: str, error: str) -> None:
        outcome = domain.Outcome(held.step, token, None, error_class, error)
        self._runs.arrive(Arrival(held.run, outcome, reported=False))
