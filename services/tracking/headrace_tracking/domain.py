"""Decisions on runs: pure functions from state and command to events."""

from collections.abc import Mapping, MutableSequence, Sequence
from datetime import datetime
from types import MappingProxyType

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.tracking.v1 import events_pb2 as events
from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from headrace_kit.context import CommandContext
from headrace_kit.errors import AlreadyExists, FailedPrecondition, NotFound, Violation
from headrace_tracking import summaries

MAX_PARAMS = 2000
MAX_TAGS = 1000
MAX_METRICS = 10000
MAX_DATASETS = 100
MAX_ARTIFACTS = 10000
MAX_MODELS = 1000
NO_HISTORY: Mapping[str, resources.MetricSummary] = MappingProxyType({})
ENDED = (resources.RUN_STATUS_FINISHED, resources.RUN_STATUS_FAILED, resources.RUN_STATUS_KILLED)


def decide_start(
    state: resources.Run | None,
    command: service.StartRunRequest,
    context: CommandContext,
    *,
    history: Mapping[str, resources.MetricSummary] = NO_HISTORY,
) -> list[Message]:
    """A new run; a fork begins with what the ``history`` it goes on with came to.

    Raises AlreadyExists when there is one of the name.
    """
    if state is not None:
        raise AlreadyExists(f"{command.name} exists", field="name")
    run = resources.Run(
        name=command.name,
        experiment=command.experiment,
        display_name=command.display_name or f"run-{command.name.rpartition('/')[2][-8:]}",
        status=resources.RUN_STATUS_RUNNING,
        start_time=command.start_time if command.HasField("start_time") else stamp(context.now),
        actor=context.actor,
        tags=command.tags,
        parent_run=command.parent_run,
        pipeline_run=command.pipeline_run,
        group=command.group,
        forked_from=command.forked_from,
        fork_step=command.fork_step,
        metrics=history,
    )
    if command.HasField("code"):
        run.code.CopyFrom(command.code)
    if command.HasField("environment"):
        run.environment.CopyFrom(command.environment)
    return [events.RunStarted(run=run)]


def decide_resume(state: resources.Run | None, run: str, context: CommandContext) -> list[Message]:
    """An ended run goes on; nothing when it is under way."""
    if active(state, run).status not in ENDED:
        return []
    return [events.RunResumed(run=run, time=stamp(context.now))]


def decide_finish(
    state: resources.Run | None, command: service.FinishRunRequest, context: CommandContext
) -> list[Message]:
    """A run ends; nothing when it has ended so already. Raises FailedPrecondition when it ended otherwise."""
    current = existing(state, command.run)
    if current.status in ENDED:
        if current.status == command.status:
            return []
        status = resources.RunStatus.Name(current.status).removeprefix("RUN_STATUS_")
        raise FailedPrecondition(f"{command.run} has ended as {status}: resume it first", field="status")
    time = command.end_time if command.HasField("end_time") else stamp(context.now)
    return [events.RunFinished(run=command.run, status=command.status, time=time, error=command.error)]


def decide_params(state: resources.Run | None, command: service.LogParamsRequest) -> list[Message]:
    """New parameters; those that are set to the same value already are left out."""
    run = active(state, command.run)
    require_unchanged(run.params, command.params)
    new = {key: value for key, value in command.params.items() if key not in run.params}
    require_room("params", len(run.params) + len(new), MAX_PARAMS)
    return [events.ParamsLogged(run=run.name, params=new)] if new else []


def decide_tags(state: resources.Run | None, command: service.ChangeTagsRequest) -> list[Message]:
    """Tags set and removed, as far as that changes anything."""
    run = active(state, command.run)
    removed = [key for key in command.removed if key in run.tags and key not in command.set]
    new = {key: value for key, value in command.set.items() if run.tags.get(key) != value}
    require_room("set", len(set(run.tags) | set(new)) - len(removed), MAX_TAGS)
    return [events.TagsChanged(run=run.name, set=new, removed=removed)] if new or removed else []


def decide_dataset(state: resources.Run | None, command: service.LogDatasetRequest) -> list[Message]:
    """A dataset; nothing when the run has it already."""
    run = active(state, command.run)
    if command.dataset in run.datasets:
        return []
    require_room("dataset", len(run.datasets) + 1, MAX_DATASETS)
    return [events.DatasetLogged(run=run.name, dataset=command.dataset)]


def decide_artifact(
    state: resources.Run | None, command: service.LogArtifactRequest, context: CommandContext
) -> list[Message]:
    """A file; nothing when the run has the same bytes under the path already."""
    run = active(state, command.run)
    held = next((each for each in run.artifacts if each.path == command.artifact.path), None)
    if held is not None and (held.object, held.kind) == (command.artifact.object, command.artifact.kind):
        return []
    if held is None:
        require_room("artifact", len(run.artifacts) + 1, MAX_ARTIFACTS)
    artifact = resources.Artifact()
    artifact.CopyFrom(command.artifact)
    artifact.time.CopyFrom(stamp(context.now))
    return [events.ArtifactLogged(run=run.name, artifact=artifact)]


def decide_rename(state: resources.Run | None, command: service.RenameRunRequest) -> list[Message]:
    """Another name for people; nothing when it is that already."""
    run = active(state, command.run)
    if run.display_name == command.display_name:
        return []
    return [events.RunRenamed(run=run.name, display_name=command.display_name)]


def decide_delete(state: resources.Run | None, run: str, context: CommandContext) -> list[Message]:
    """A run is put away; nothing when it was already."""
    if existing(state, run).HasField("delete_time"):
        return []
    return [events.RunDeleted(run=run, time=stamp(context.now))]


def decide_restore(state: resources.Run | None, run: str, context: CommandContext) -> list[Message]:
    """A run is back; nothing when it was never away."""
    if not existing(state, run).HasField("delete_time"):
        return []
    return [events.RunRestored(run=run, time=stamp(context.now))]


def decide_purge(
    state: resources.Run | None, found: service.PurgedRun, objects: Sequence[ObjectRef], context: CommandContext
) -> list[Message]:
    """A run that was put away is gone; nothing when it is already, or in use again."""
    if state is None or state.HasField("purge_time") or not state.HasField("delete_time"):
        return []
    purged = events.RunPurged(
        run=found.run,
        time=stamp(context.now),
        point_count=found.point_count,
        output_bytes=found.output_bytes,
        objects=objects,
        metrics=sorted(state.metrics),
    )
    return [purged]


def decide_links(state: resources.Run | None, command: service.LinkModelsRequest) -> list[Message]:
    """Logged models the run took and made, those it has left out."""
    run = active(state, command.run)
    inputs = [each for each in command.inputs if each not in run.model_inputs]
    outputs = [each for each in command.outputs if each not in run.model_outputs]
    require_room("inputs", len(run.model_inputs) + len(inputs), MAX_MODELS)
    require_room("outputs", len(run.model_outputs) + len(outputs), MAX_MODELS)
    return [events.ModelsLinked(run=run.name, inputs=inputs, outputs=outputs)] if inputs or outputs else []


def evolve_run(state: resources.Run | None, event: Message) -> resources.Run:
    """The state after ``event``; the given state is left as it was."""
    run = resources.Run()
    if state is not None:
        run.CopyFrom(state)
    match event:
        case events.RunStarted():
            run.CopyFrom(event.run)
        case events.ParamsLogged():
            run.params.update(event.params)
        case events.TagsChanged():
            for key in event.removed:
                run.tags.pop(key, None)
            run.tags.update(event.set)
        case events.MetricsRecorded():
            for key, summary in event.summaries.items():
                summaries.merge(run.metrics[key], summary)
        case events.DatasetLogged():
            run.datasets.append(event.dataset)
        case events.ArtifactLogged():
            put_artifact(run.artifacts, event.artifact)
        case events.ModelsLinked():
            run.model_inputs.extend(event.inputs)
            run.model_outputs.extend(event.outputs)
        case _:
            _live(run, event)
    run.revision += 1
    return run


def _live(run: resources.Run, event: Message) -> None:
    """Folds what happens to a run as a whole, in place."""
    match event:
        case events.RunResumed():
            run.status, run.error = resources.RUN_STATUS_RUNNING, ""
            run.ClearField("end_time")
        case events.RunFinished():
            run.status, run.error = event.status, event.error
            run.end_time.CopyFrom(event.time)
        case events.RunRenamed():
            run.display_name = event.display_name
        case events.RunDeleted():
            run.delete_time.CopyFrom(event.time)
        case events.RunRestored():
            run.ClearField("delete_time")
        case events.RunPurged():
            left = resources.Run(
                name=run.name, experiment=run.experiment, delete_time=run.delete_time, revision=run.revision
            )
            left.purge_time.CopyFrom(event.time)
            run.CopyFrom(left)
        case _:
            pass


def existing(state: resources.Run | None, name: str, *, field: str = "run") -> resources.Run:
    """The run, which must be there. Raises NotFound."""
    if state is None or state.HasField("purge_time"):
        raise NotFound("run", name, field=field)
    return state


def active(state: resources.Run | None, name: str, *, field: str = "run") -> resources.Run:
    """The run, which must be there and in use. Raises NotFound, FailedPrecondition."""
    run = existing(state, name, field=field)
    if run.HasField("delete_time"):
        raise FailedPrecondition(f"{name} was put away: restore it first", field=field, reason="RUN_DELETED")
    return run


def stamp(moment: datetime) -> Timestamp:
    """A moment as the wire has it."""
    time = Timestamp()
    time.FromDatetime(moment)
    return time


def put_artifact(artifacts: MutableSequence[resources.Artifact], artifact: resources.Artifact) -> None:
    """Adds a file; one of the same path is replaced."""
    for held in artifacts:
        if held.path == artifact.path:
            held.CopyFrom(artifact)
            return
    artifacts.append(artifact)


def require_unchanged(held: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Raises FailedPrecondition when a parameter would become another."""
    changed = sorted(key for key, value in wanted.items() if held.get(key, value) != value)
    if changed:
        violations = [Violation("param", key, f"is {held[key]!r} and can not become another") for key in changed]
        message = f"parameters never change: {', '.join(changed)}"
        raise FailedPrecondition(message, violations, field=f"params[{changed[0]!r}]", reason="PARAM_CHANGED")


def require_room(field: str, wanted: int, limit: int, *, what: str = "a run") -> None:
    """Raises FailedPrecondition when there would be more than ``limit``."""
    if wanted > limit:
        raise FailedPrecondition(
            f"{what} holds at most {limit}, this would make {wanted}", field=field, reason="RUN_FULL"
        )
