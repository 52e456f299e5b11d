"""Decisions on experiments: pure functions from state and command to events."""

import hashlib
from datetime import datetime
from typing import Final

from google.protobuf.message import Message

from headrace.api.tracking.v1 import events_pb2 as events
from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from headrace_kit.context import CommandContext
from headrace_kit.errors import AlreadyExists, NotFound
from headrace_tracking.domain import require_room, stamp

MAX_TAGS: Final = 1000
DEFAULT: Final = "Default"
"""The experiment of number 0."""
_FIRST: Final = 10**17


def number_of(name: str) -> int:
    """The number of an experiment, from its resource name: 0 for `Default`, else 18 digits of its SHA-256."""
    if name.rpartition("/")[2] == DEFAULT:
        return 0
    return _FIRST + int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % (9 * _FIRST)


def decide_first_run(state: resources.Experiment | None, name: str, context: CommandContext) -> list[Message]:
    """The experiment that a run names; nothing when there is one."""
    if state is not None:
        return []
    return [events.ExperimentCreated(experiment=name, creator=context.actor, time=stamp(context.now))]


def decide_create(
    state: resources.Experiment | None, command: service.CreateExperimentRequest, context: CommandContext
) -> list[Message]:
    """A new experiment. Raises AlreadyExists when there is one of the resource name."""
    if state is not None:
        raise AlreadyExists(f"{command.name} exists", field="name")
    created = events.ExperimentCreated(
        experiment=command.name,
        creator=context.actor,
        time=stamp(context.now),
        display_name=command.display_name,
        tags=command.tags,
    )
    return [created]


def decide_update(
    state: resources.Experiment | None, command: service.UpdateExperimentRequest, context: CommandContext
) -> list[Message]:
    """Another name for people, tags set and removed, as far as that changes anything."""
    found = existing(state, command.experiment)
    time, decided = stamp(context.now), list[Message]()
    if command.display_name and command.display_name != found.display_name:
        decided.append(events.ExperimentRenamed(experiment=found.name, display_name=command.display_name, time=time))
    removed = [key for key in command.removed if key in found.tags and key not in command.set]
    new = {key: value for key, value in command.set.items() if found.tags.get(key) != value}
    require_room("set", len(set(found.tags) | set(new)) - len(removed), MAX_TAGS, what="an experiment")
    if new or removed:
        decided.append(events.ExperimentTagsChanged(experiment=found.name, set=new, removed=removed, time=time))
    return decided


def decide_delete(state: resources.Experiment | None, name: str, now: datetime) -> list[Message]:
    """It is put away; nothing when it was already."""
    if existing(state, name).HasField("delete_time"):
        return []
    return [events.ExperimentDeleted(experiment=name, time=stamp(now))]


def decide_restore(state: resources.Experiment | None, name: str, now: datetime) -> list[Message]:
    """It is back; nothing when it was never away."""
    if not existing(state, name).HasField("delete_time"):
        return []
    return [events.ExperimentRestored(experiment=name, time=stamp(now))]


def evolve(state: resources.Experiment | None, event: Message) -> resources.Experiment:
    """The state after ``event``; the given state is left as it was."""
    found = resources.Experiment()
    if state is not None:
        found.CopyFrom(state)
    match event:
        case events.ExperimentCreated():
            found.name, found.creator, found.number = event.experiment, event.creator, number_of(event.experiment)
            found.display_name = event.display_name or event.experiment.rpartition("/")[2]
            found.tags.update(event.tags)
            found.create_time.CopyFrom(event.time)
            found.update_time.CopyFrom(event.time)
        case events.ExperimentRenamed():
            found.display_name = event.display_name
            found.update_time.CopyFrom(event.time)
        case events.ExperimentTagsChanged():
            for key in event.removed:
                found.tags.pop(key, None)
            found.tags.update(event.set)
            found.update_time.CopyFrom(event.time)
        case events.ExperimentDeleted():
            found.delete_time.CopyFrom(event.time)
            found.update_time.CopyFrom(event.time)
        case events.ExperimentRestored():
            found.ClearField("delete_time")
            found.update_time.CopyFrom(event.time)
        case _:
            pass
    return found


def existing(state: resources.Experiment | None, name: str) -> resources.Experiment:
    """The experiment, which must be there. Raises NotFound."""
    if state is None:
        raise NotFound("experiment", name, field="experiment")
    return state
