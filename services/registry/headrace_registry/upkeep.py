"""Decisions on what is said about models and versions, and on their end: pure, from state and command to events."""

from datetime import datetime
from typing import Final

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.registry.v1 import events_pb2 as events
from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace_kit.context import CommandContext
from headrace_kit.errors import FailedPrecondition, NotFound

MAX_TAGS: Final = 1000


def decide_update_model(
    state: resources.Model | None, command: service.UpdateModelRequest, context: CommandContext
) -> list[Message]:
    """Another description, tags set and removed, as far as that changes anything."""
    model = existing(state, command.model)
    time, decided = stamp(context.now), list[Message]()
    if command.HasField("description") and command.description != model.description:
        decided.append(events.ModelDescribed(model=model.name, description=command.description, time=time))
    new, removed = _tag_changes(model, command)
    if new or removed:
        decided.append(events.ModelTagsChanged(model=model.name, set=new, removed=removed, time=time))
    return decided


def decide_update_version(
    state: resources.Version, command: service.UpdateVersionRequest, context: CommandContext
) -> list[Message]:
    """As ``decide_update_model``, for a version."""
    time, decided = stamp(context.now), list[Message]()
    if command.HasField("description") and command.description != state.description:
        decided.append(events.VersionDescribed(version=state.name, description=command.description, time=time))
    new, removed = _tag_changes(state, command)
    if new or removed:
        decided.append(events.VersionTagsChanged(version=state.name, set=new, removed=removed, time=time))
    return decided


def evolve(model: resources.Model, event: Message) -> bool:
    """Folds ``event`` into the model, in place; False when it is none of this module's."""
    match event:
        case events.ModelDescribed():
            model.description = event.description
            model.update_time.CopyFrom(event.time)
        case events.ModelTagsChanged():
            _change_tags(model, event)
        case events.ModelDeleted():
            model.delete_time.CopyFrom(event.time)
            for version in model.versions:
                if not version.HasField("delete_time"):
                    version.delete_time.CopyFrom(event.time)
        case events.ModelCardWritten():
            model.card.CopyFrom(event.card)
        case events.VersionCardWritten():
            _version(model, event.version).card.CopyFrom(event.card)
        case events.VersionDescribed():
            version = _version(model, event.version)
            version.description = event.description
            version.update_time.CopyFrom(event.time)
        case events.VersionTagsChanged():
            _change_tags(_version(model, event.version), event)
        case events.VersionDeleted():
            _version(model, event.version).delete_time.CopyFrom(event.time)
        case _:
            return False
    return True


def existing(state: resources.Model | None, name: str) -> resources.Model:
    """The model, which must be there. Raises NotFound."""
    if state is None or state.HasField("delete_time"):
        raise NotFound("model", name.partition("/versions/")[0], field="model")
    return state


def is_person(actor: str) -> bool:
    """Whether a principal is a person."""
    return actor.startswith("persons/")


def stamp(moment: datetime) -> Timestamp:
    """A moment as the wire has it."""
    time = Timestamp()
    time.FromDatetime(moment)
    return time


def _version(model: resources.Model, name: str) -> resources.Version:
    return model.versions[int(name.rpartition("/")[2]) - 1]


def _tag_changes(
    state: resources.Model | resources.Version, command: service.UpdateModelRequest | service.UpdateVersionRequest
) -> tuple[dict[str, str], list[str]]:
    removed = [key for key in command.removed if key in state.tags and key not in command.set]
    new = {key: value for key, value in command.set.items() if state.tags.get(key) != value}
    if len(set(state.tags) | set(new)) - len(removed) > MAX_TAGS:
        raise FailedPrecondition(f"{state.name} holds at most {MAX_TAGS} tags", field="set", reason="TAGS_FULL")
    return new, removed


def _change_tags(
    state: resources.Model | resources.Version, event: events.ModelTagsChanged | events.VersionTagsChanged
) -> None:
    for key in event.removed:
        state.tags.pop(key, None)
    state.tags.update(event.set)
    state.update_time.CopyFrom(event.time)
