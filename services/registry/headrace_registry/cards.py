"""Cards of models and versions: what people should know before they use one; each writing is an event."""

from typing import Final

from google.protobuf.message import Message

from headrace.api.registry.v1 import events_pb2 as events
from headrace.api.registry.v1.resources_pb2 import Model, ModelCard, Version
from headrace.api.registry.v1.service_pb2 import WriteCardRequest
from headrace_kit.context import CommandContext
from headrace_kit.errors import Aborted
from headrace_registry.upkeep import stamp

SECTIONS: Final = ("markdown", "intended_use", "limits", "evaluation", "data")
"""The fields that people write."""


def decide(state: Model | Version, command: WriteCardRequest, context: CommandContext) -> list[Message]:
    """A model or a version has this card; nothing when it says the same already.

    Raises:
        Aborted: Somebody wrote it since the caller looked.
    """
    current = state.card
    if command.expected_revision not in (-1, current.revision):
        raise Aborted(
            f"the card of {state.name} is at revision {current.revision}, not {command.expected_revision}: look again",
            field="expected_revision",
            reason="CARD_CHANGED",
        )
    if all(getattr(command.card, each) == getattr(current, each) for each in SECTIONS):
        return []
    card = ModelCard(
        markdown=command.card.markdown,
        intended_use=command.card.intended_use,
        limits=command.card.limits,
        evaluation=command.card.evaluation,
        data=command.card.data,
        revision=current.revision + 1,
        actor=context.actor,
        time=stamp(context.now),
        event_id=str(context.event_id(0)),
    )
    if isinstance(state, Version):
        return [events.VersionCardWritten(version=state.name, card=card)]
    return [events.ModelCardWritten(model=state.name, card=card)]
