"""Decisions on logged models: pure functions from state and command to events."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from google.protobuf.message import Message

from headrace.api.tracking.v1 import events_pb2 as events
from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from headrace_kit.context import CommandContext
from headrace_kit.errors import AlreadyExists, NotFound
from headrace_tracking.domain import (
    MAX_ARTIFACTS,
    MAX_METRICS,
    MAX_PARAMS,
    MAX_TAGS,
    put_artifact,
    require_room,
    require_unchanged,
    stamp,
)

_WHAT: Final = "a logged model"


def decide_create(
    state: resources.LoggedModel | None, command: service.CreateLoggedModelRequest, context: CommandContext
) -> list[Message]:
    """A new logged model. Raises AlreadyExists when there is one of the name."""
    if state is not None:
        raise AlreadyExists(f"{command.name} exists", field="name")
    model = resources.LoggedModel(
        name=command.name,
        experiment=command.experiment,
        display_name=command.display_name,
        model_type=command.model_type,
        run=command.run,
        status=resources.LOGGED_MODEL_STATUS_PENDING,
        create_time=stamp(context.now),
        update_time=stamp(context.now),
        creator=context.actor,
        params=command.params,
        tags=command.tags,
    )
    return [events.LoggedModelCreated(model=model)]


def decide_annotate(
    state: resources.LoggedModel | None, command: service.AnnotateLoggedModelRequest, context: CommandContext
) -> list[Message]:
    """New parameters, tags and metrics, as far as they change anything."""
    model = existing(state, command.model)
    require_unchanged(model.params, command.params)
    params = {key: value for key, value in command.params.items() if key not in model.params}
    removed = [key for key in command.removed if key in model.tags and key not in command.set]
    new = {key: value for key, value in command.set.items() if model.tags.get(key) != value}
    require_room("params", len(model.params) + len(params), MAX_PARAMS, what=_WHAT)
    require_room("set", len(set(model.tags) | set(new)) - len(removed), MAX_TAGS, what=_WHAT)
    kept = {_subject(each) for each in model.metrics} | {_subject(each) for each in command.metrics}
    require_room("metrics", len(kept), MAX_METRICS, what=_WHAT)
    if not (params or new or removed or command.metrics):
        return []
    annotated = events.LoggedModelAnnotated(
        model=model.name, params=params, set=new, removed=removed, metrics=command.metrics, time=stamp(context.now)
    )
    return [annotated]


def decide_artifact(
    state: resources.LoggedModel | None, command: service.LogModelArtifactRequest, context: CommandContext
) -> list[Message]:
    """A file; nothing when the model has the same bytes under the path already."""
    model = existing(state, command.model)
    held = next((each for each in model.artifacts if each.path == command.artifact.path), None)
    if held is not None and held.object == command.artifact.object:
        return []
    if held is None:
        require_room("artifact", len(model.artifacts) + 1, MAX_ARTIFACTS, what=_WHAT)
    artifact = resources.Artifact()
    artifact.CopyFrom(command.artifact)
    artifact.time.CopyFrom(stamp(context.now))
    return [events.LoggedModelArtifactLogged(model=model.name, artifact=artifact)]


def decide_finish(
    state: resources.LoggedModel | None, command: service.FinishLoggedModelRequest, now: datetime
) -> list[Message]:
    """It is complete, or failed; nothing when that is so already."""
    if existing(state, command.model).status == command.status:
        return []
    return [events.LoggedModelFinished(model=command.model, status=command.status, time=stamp(now))]


def decide_delete(state: resources.LoggedModel | None, name: str, now: datetime) -> list[Message]:
    """It is put away."""
    return [events.LoggedModelDeleted(model=existing(state, name).name, time=stamp(now))]


def evolve(state: resources.LoggedModel | None, event: Message) -> resources.LoggedModel:
    """The state after ``event``; the given state is left as it was."""
    model = resources.LoggedModel()
    if state is not None:
        model.CopyFrom(state)
    match event:
        case events.LoggedModelCreated():
            model.CopyFrom(event.model)
        case events.LoggedModelAnnotated():
            model.params.update(event.params)
            for key in event.removed:
                model.tags.pop(key, None)
            model.tags.update(event.set)
            _put_metrics(model, event.metrics)
            model.update_time.CopyFrom(event.time)
        case events.LoggedModelArtifactLogged():
            put_artifact(model.artifacts, event.artifact)
        case events.LoggedModelFinished():
            model.status = event.status
            model.update_time.CopyFrom(event.time)
        case events.LoggedModelDeleted():
            model.delete_time.CopyFrom(event.time)
            model.update_time.CopyFrom(event.time)
        case _:
            pass
    model.revision += 1
    return model


def existing(state: resources.LoggedModel | None, name: str) -> resources.LoggedModel:
    """The model, which must be there and in use. Raises NotFound."""
    if state is None or state.HasField("delete_time"):
        raise NotFound("logged model", name, field="model")
    return state


def _put_metrics(model: resources.LoggedModel, measured: Iterable[resources.ModelMetric]) -> None:
    held = {_subject(each): each for each in model.metrics}
    for each in measured:
        if _subject(each) in held:
            held[_subject(each)].CopyFrom(each)
        else:
            held[_subject(each)] = model.metrics.add()
            held[_subject(each)].CopyFrom(each)


def _subject(metric: resources.ModelMetric) -> tuple[str, str, str]:
    return metric.key, metric.dataset_name, metric.dataset_digest
