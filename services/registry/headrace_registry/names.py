"""Decisions on what a model is called: pure, from state and command to events.

The id in a model's resource name never changes, and all that is told of it goes by that. Its name for people does; that
no two models of a project have one is held by the read model, in the statement that appends.
"""

from typing import Final

from google.protobuf.message import Message

from headrace.api.registry.v1 import events_pb2 as events
from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace_kit.context import CommandContext
from headrace_kit.errors import FailedPrecondition
from headrace_registry.upkeep import existing, stamp

MAX_FORMER: Final = 100


def created(name: str, description: str, context: CommandContext) -> events.ModelCreated:
    """That a model was created, under the id in its resource name."""
    return events.ModelCreated(model=name, description=description, creator=context.actor, time=stamp(context.now))


def decide_rename(
    state: resources.Model | None, command: service.RenameModelRequest, context: CommandContext, *, guarded: bool
) -> list[Message]:
    """Another name for people; nothing when it has that already.

    Args:
        state: The model.
        command: What is asked for.
        context: Of the command.
        guarded: Whether another model that needs approvals has or had the name.

    Raises:
        NotFound: There is no such model.
        FailedPrecondition: Its aliases are open and the name is guarded, or it had too many names.
    """
    model = existing(state, command.model)
    if command.display_name == model.display_name:
        return []
    if guarded and model.open_aliases:
        message = (
            f"versions of a model called {command.display_name!r} needed approvals, and those of this one need none"
        )
        raise FailedPrecondition(f"{message}: set its gates first", field="display_name", reason="NAME_GUARDED")
    if len(_former(model, command.display_name)) > MAX_FORMER:
        raise FailedPrecondition(
            f"{model.name} had {MAX_FORMER} names before", field="display_name", reason="NAMES_FULL"
        )
    return [events.ModelRenamed(model=model.name, display_name=command.display_name, time=stamp(context.now))]


def evolve(model: resources.Model, event: Message) -> bool:
    """Folds ``event`` into the model, in place; False when it is none of this module's."""
    match event:
        case events.ModelCreated():
            _create(model, event)
        case events.ModelRenamed():
            _call(model, event.display_name)
            model.update_time.CopyFrom(event.time)
        case _:
            return False
    return True


def _create(model: resources.Model, event: events.ModelCreated) -> None:
    """A model that was deleted begins anew, but its numbers, its names and its aliases' revisions go on."""
    model.name, model.description, model.creator = event.model, event.description, event.creator
    _call(model, event.display_name or event.model.rpartition("/")[2])
    model.create_time.CopyFrom(event.time)
    model.update_time.CopyFrom(event.time)
    model.ClearField("delete_time")
    model.ClearField("card")
    model.ClearField("tags")
    model.tags.update(event.tags)
    model.open_aliases = event.open_aliases


def _call(model: resources.Model, name: str) -> None:
    former = _former(model, name)
    model.ClearField("former_names")
    model.former_names.extend(former)
    model.display_name = name


def _former(model: resources.Model, name: str) -> list[str]:
    """The names it had before, once it is called ``name``: each once, the latest last."""
    had = [*model.former_names, model.display_name]
    return [each for each in dict.fromkeys(had) if each not in ("", name)]
