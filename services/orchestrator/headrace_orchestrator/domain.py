"""Decisions on a pipeline run: pure functions from its state and a command to events.

The state of the stream is the :class:`PipelineRun` message; ``evolve`` never changes one in place. Times, ids and
fencing tokens are passed in. A step goes PENDING -> READY -> LEASED -> COMPLETED; a failed attempt leads to
WAITING_RETRY or FAILED. What a worker reports counts only under the token of the step's newest lease, so that each
attempt has one outcome.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.orchestrator.v1 import events_pb2 as events
from headrace.api.orchestrator.v1 import resources_pb2 as resources
from headrace_kit.context import CommandContext
from headrace_kit.errors import AlreadyExists, FailedPrecondition, NotFound
from headrace_orchestrator.definitions import check_parameters, needed_steps

DEFAULT_TIMEOUT_S = 3600.0
DEFAULT_MAX_BACKOFF_S = 300.0
MAX_LOST_ATTEMPTS = 5
"""A step on whose attempts so many workers were lost is taken for the cause and fails."""
MAX_ERROR_LENGTH = 8000

WORKER_LOST = "WORKER_LOST"
TIMEOUT = "TIMEOUT"

OPEN = (resources.PIPELINE_RUN_STATUS_QUEUED, resources.PIPELINE_RUN_STATUS_RUNNING)
_STOPPED = (resources.PIPELINE_RUN_STATUS_FAILED, resources.PIPELINE_RUN_STATUS_CANCELLED)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the lease ``token``: an output, or an error with its class."""

    step: str
    token: int
    output: resources.StepOutput | None = None
    error_class: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Grant:
    """A worker that shall run a step under a new fencing token."""

    step: str
    token: int
    worker: str


@dataclass(frozen=True, slots=True)
class Turn:
    """What happened to a run's steps since its last turn, and who shall run the next ones: one append."""

    outcomes: Sequence[Outcome] = ()
    grants: Sequence[Grant] = ()


def decide_start(
    state: resources.PipelineRun | None,
    *,
    name: str,
    pipeline: resources.Pipeline,
    parameters: dict[str, str],
    cause: str,
    context: CommandContext,
) -> list[Message]:
    """A new run of the newest definition.

    Raises:
        AlreadyExists: there is a run of the name.
        InvalidArgument: a parameter is missing, unknown or of another type.
    """
    if state is not None:
        raise AlreadyExists(f"{name} exists", field="command_id")
    definition = pipeline.definition
    run = resources.PipelineRun(
        name=name,
        pipeline=pipeline.name,
        pipeline_version=pipeline.version,
        definition=definition,
        parameters=check_parameters(definition, parameters),
        status=resources.PIPELINE_RUN_STATUS_QUEUED,
        create_time=timestamp(context.now),
        cause=cause,
        causation_id=str(context.causation_id or ""),
        actor=context.actor,
        event_id=str(context.event_id(0)),
        correlation_id=str(context.correlation_id or context.command_id),
    )
    for step in definition.steps:
        ready = not needed_steps(step)
        status = resources.STEP_STATUS_READY if ready else resources.STEP_STATUS_PENDING
        run.steps.add(id=step.id, status=status)
    return [events.PipelineRunStarted(run=run)]


def decide_turn(state: resources.PipelineRun | None, turn: Turn, context: CommandContext) -> list[Message]:
    """Outcomes, then the end of the run if it came, then leases. What is stale or not possible any more is left out."""
    run = existing(state)
    decided: list[Message] = []
    for outcome in turn.outcomes:
        event = _settled(run, outcome, context.now)
        if event is not None:
            decided.append(event)
            run = evolve(run, event)
    if run.status not in OPEN:
        return decided
    ending = _ending(run, context.now)
    if ending is not None:
        return [*decided, ending]
    return [*decided, *_leased(run, turn.grants, context, first=len(decided))]


def decide_cancel(state: resources.PipelineRun | None, *, reason: str, context: CommandContext) -> list[Message]:
    """The end of an open run; nothing when it was cancelled already.

    Raises:
        FailedPrecondition: it ended in another way.
    """
    run = existing(state)
    if run.status == resources.PIPELINE_RUN_STATUS_CANCELLED:
        return []
    if run.status not in OPEN:
        raise FailedPrecondition(f"{run.name} has ended", field="run", reason="PIPELINE_RUN_ENDED")
    cancelled = events.PipelineRunCancelled(
        run=run.name, actor=context.actor, reason=reason, time=timestamp(context.now)
    )
    return [cancelled]


def decide_supersede(state: resources.PipelineRun | None, *, reason: str, context: CommandContext) -> list[Message]:
    """The end of a run that still waits for a place; nothing when it has begun or ended."""
    run = existing(state)
    if run.status != resources.PIPELINE_RUN_STATUS_QUEUED or any(step.attempt for step in run.steps):
        return []
    return decide_cancel(state, reason=reason, context=context)


def decide_resume(state: resources.PipelineRun | None, context: CommandContext) -> list[Message]:
    """Goes on with a failed or cancelled run; nothing when it is open already.

    Raises:
        FailedPrecondition: it succeeded.
    """
    run = existing(state)
    if run.status in OPEN:
        return []
    if run.status not in _STOPPED:
        raise FailedPrecondition(f"{run.name} succeeded", field="run", reason="PIPELINE_RUN_SUCCEEDED")
    return [events.PipelineRunResumed(run=run.name, actor=context.actor, time=timestamp(context.now))]


def runnable(run: resources.PipelineRun, now: datetime) -> list[str]:
    """Ids of the steps that may be leased at ``now``, in the order of the definition."""
    if run.status not in OPEN or _has(run, resources.STEP_STATUS_FAILED):
        return []
    return [step.id for step in run.steps if _may_begin(step, now)]


def leases(run: resources.PipelineRun) -> Iterator[resources.StepState]:
    """The steps that workers have."""
    if run.status in OPEN:
        yield from (step for step in run.steps if step.status == resources.STEP_STATUS_LEASED)


def deadline(run: resources.PipelineRun, step: resources.StepState) -> datetime:
    """When the newest attempt of a step has had its time."""
    return moment(step.start_time) + timedelta(seconds=timeout_s(step_definition(run, step.id)))


def next_retry(run: resources.PipelineRun) -> datetime | None:
    """The earliest time at which a waiting step may be tried again."""
    waiting = (step for step in run.steps if step.status == resources.STEP_STATUS_WAITING_RETRY)
    return min((moment(step.retry_time) for step in waiting), default=None)


def timeout_s(step: resources.StepDefinition) -> float:
    """Seconds an attempt may take."""
    return step.timeout_s or DEFAULT_TIMEOUT_S


def step_definition(run: resources.PipelineRun, step: str) -> resources.StepDefinition:
    """The definition of a step. Raises NotFound."""
    for each in run.definition.steps:
        if each.id == step:
            return each
    raise NotFound("step", f"{run.name}/steps/{step}", field="step")


def step_state(run: resources.PipelineRun, step: str) -> resources.StepState:
    """The state of a step, which belongs to ``run``. Raises NotFound."""
    for each in run.steps:
        if each.id == step:
            return each
    raise NotFound("step", f"{run.name}/steps/{step}", field="step")


def existing(state: resources.PipelineRun | None) -> resources.PipelineRun:
    """The state. Raises NotFound when there is none."""
    if state is None:
        raise NotFound("the pipeline run does not exist", field="run")
    return state


def evolve(state: resources.PipelineRun | None, event: Message) -> resources.PipelineRun:
    """The state after an event."""
    run = resources.PipelineRun()
    if isinstance(event, events.PipelineRunStarted):
        run.CopyFrom(event.run)
        run.revision = 1
        return run
    run.CopyFrom(existing(state))
    run.revision += 1
    match event:
        case events.StepLeased():
            _apply_leased(run, event)
        case events.StepCompleted():
            _apply_completed(run, event)
        case events.StepFailed():
            _apply_failed(run, event)
        case events.PipelineRunSucceeded():
            _end(run, resources.PIPELINE_RUN_STATUS_SUCCEEDED, event.time)
        case events.PipelineRunFailed():
            _end(run, resources.PIPELINE_RUN_STATUS_FAILED, event.time, event.error)
        case events.PipelineRunCancelled():
            _end(run, resources.PIPELINE_RUN_STATUS_CANCELLED, event.time, event.reason)
        case events.PipelineRunResumed():
            _apply_resumed(run)
        case _:
            raise TypeError(f"{event.DESCRIPTOR.full_name} is no event of a pipeline run")
    return run


def timestamp(at: datetime) -> Timestamp:
    """A time as protobuf has it."""
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp


def moment(stamp: Timestamp) -> datetime:
    """A time as Python has it, UTC."""
    return stamp.ToDatetime(tzinfo=UTC)


def _settled(run: resources.PipelineRun, outcome: Outcome, now: datetime) -> Message | None:
    step = next((each for each in leases(run) if each.id == outcome.step and each.token == outcome.token), None)
    if step is None:
        return None
    if not outcome.error_class:
        return events.StepCompleted(
            run=run.name,
            step=step.id,
            attempt=step.attempt,
            token=step.token,
            output=outcome.output,
            time=timestamp(now),
        )
    failed = events.StepFailed(
        run=run.name,
        step=step.id,
        attempt=step.attempt,
        token=step.token,
        error_class=outcome.error_class,
        error=outcome.error[:MAX_ERROR_LENGTH],
        time=timestamp(now),
    )
    wait_s = _wait_s(step_definition(run, step.id).retry, step, lost=outcome.error_class == WORKER_LOST)
    if wait_s is not None:
        failed.retry_time.CopyFrom(timestamp(now + timedelta(seconds=wait_s)))
    return failed


def _wait_s(retry: resources.RetryPolicy, step: resources.StepState, *, lost: bool) -> float | None:
    """Seconds until the next attempt, None when there is none. A lost worker costs no attempt of the policy."""
    if lost:
        return 0.0 if step.lost_attempts + 1 < MAX_LOST_ATTEMPTS else None
    counted = step.attempt - step.uncounted_attempts
    if counted >= max(1, retry.max_attempts):
        return None
    doubled = retry.backoff_s * 2.0 ** min(counted - 1, 64)
    return min(doubled, retry.max_backoff_s or DEFAULT_MAX_BACKOFF_S)


def _ending(run: resources.PipelineRun, now: datetime) -> Message | None:
    """The event that ends the run, if nothing is left to do: steps under way are let finish before it fails."""
    if all(step.status == resources.STEP_STATUS_COMPLETED for step in run.steps):
        return events.PipelineRunSucceeded(run=run.name, time=timestamp(now))
    if any(leases(run)):
        return None
    failed = next((step for step in run.steps if step.status == resources.STEP_STATUS_FAILED), None)
    if failed is None:
        return None
    error = f"step {failed.id} failed: {failed.error_class}: {failed.error}"
    return events.PipelineRunFailed(run=run.name, step=failed.id, error=error[:MAX_ERROR_LENGTH], time=timestamp(now))


def _leased(
    run: resources.PipelineRun, grants: Sequence[Grant], context: CommandContext, *, first: int
) -> list[Message]:
    """Leases for grants of steps that can run; ``first`` is the number of events that the command writes before."""
    free, highest = set(runnable(run, context.now)), max(step.token for step in run.steps)
    decided: list[Message] = []
    for grant in grants:
        if grant.step not in free or grant.token <= highest:
            continue
        free.discard(grant.step)
        highest = grant.token
        leased = events.StepLeased(
            run=run.name,
            step=grant.step,
            attempt=step_state(run, grant.step).attempt + 1,
            token=grant.token,
            worker=grant.worker,
            time=timestamp(context.now),
            event_id=str(context.event_id(first + len(decided))),
        )
        decided.append(leased)
    return decided


def _may_begin(step: resources.StepState, now: datetime) -> bool:
    if step.status == resources.STEP_STATUS_WAITING_RETRY:
        return moment(step.retry_time) <= now
    return step.status == resources.STEP_STATUS_READY


def _has(run: resources.PipelineRun, status: "resources.StepStatus.ValueType") -> bool:
    return any(step.status == status for step in run.steps)


def _apply_leased(run: resources.PipelineRun, event: events.StepLeased) -> None:
    step = step_state(run, event.step)
    step.status = resources.STEP_STATUS_LEASED
    step.attempt, step.token, step.worker, step.event_id = event.attempt, event.token, event.worker, event.event_id
    step.start_time.CopyFrom(event.time)
    step.ClearField("end_time")
    step.ClearField("retry_time")
    run.status = resources.PIPELINE_RUN_STATUS_RUNNING


def _apply_completed(run: resources.PipelineRun, event: events.StepCompleted) -> None:
    step = step_state(run, event.step)
    step.status = resources.STEP_STATUS_COMPLETED
    step.output.CopyFrom(event.output)
    step.end_time.CopyFrom(event.time)
    step.ClearField("error")
    step.ClearField("error_class")
    _make_ready(run)


def _apply_failed(run: resources.PipelineRun, event: events.StepFailed) -> None:
    step = step_state(run, event.step)
    step.error, step.error_class = event.error, event.error_class
    step.end_time.CopyFrom(event.time)
    if event.error_class == WORKER_LOST:
        step.lost_attempts += 1
        step.uncounted_attempts += 1
    if event.HasField("retry_time"):
        step.status = resources.STEP_STATUS_WAITING_RETRY
        step.retry_time.CopyFrom(event.retry_time)
    else:
        step.status = resources.STEP_STATUS_FAILED


def _apply_resumed(run: resources.PipelineRun) -> None:
    run.status = resources.PIPELINE_RUN_STATUS_QUEUED
    run.ClearField("end_time")
    run.ClearField("error")
    for step in run.steps:
        if step.status != resources.STEP_STATUS_COMPLETED:
            step.status = resources.STEP_STATUS_PENDING
            step.lost_attempts, step.uncounted_attempts = 0, step.attempt
            step.ClearField("retry_time")
    _make_ready(run)


def _make_ready(run: resources.PipelineRun) -> None:
    completed = {step.id for step in run.steps if step.status == resources.STEP_STATUS_COMPLETED}
    for step, definition in zip(run.steps, run.definition.steps, strict=True):
        if step.status == resources.STEP_STATUS_PENDING and needed_steps(definition) <= completed:
            step.status = resources.STEP_STATUS_READY


def _end(
    run: resources.PipelineRun, status: "resources.PipelineRunStatus.ValueType", time: Timestamp, error: str = ""
) -> None:
    run.status = status
    run.end_time.CopyFrom(time)
    run.error = error
    for step in run.steps:
        if step.status not in (resources.STEP_STATUS_COMPLETED, resources.STEP_STATUS_FAILED):
            step.status = resources.STEP_STATUS_SKIPPED
