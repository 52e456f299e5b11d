"""Webhooks: pure decisions about them. The path of a URL and the secret are in none of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC
from typing import Final
from uuid import UUID, uuid5

from google.protobuf.message import Message

from headrace.api.registry.v1 import events_pb2 as events
from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1.resources_pb2 import Webhook
from headrace_kit.context import CommandContext
from headrace_kit.errors import InvalidArgument, NotFound
from headrace_kit.eventstore import Aggregate, Row
from headrace_kit.names import MODEL as MODEL_NAME
from headrace_kit.names import WEBHOOK as WEBHOOK_NAME
from headrace_kit.names import require_text
from headrace_kit.validate import require_size
from headrace_registry.events import EVENT_TYPES
from headrace_registry.upkeep import stamp

WEBHOOKS: Final = UUID("0d7c1c4e-7d1f-5a5c-8f3e-2b6d1e9a4c70")
"""Root of the ids of webhooks. Fixed for ever."""
MLFLOW_TYPES: Final = (
    "registered_model.created",
    "model_version.created",
    "model_version_tag.set",
    "model_version_tag.deleted",
    "model_version_alias.created",
    "model_version_alias.deleted",
)
"""What MLflow calls the events that headrace has as well."""
ABOUT_MODELS: Final = tuple(each for each in EVENT_TYPES if not each.DESCRIPTOR.name.startswith(("Person", "Webhook")))
"""The events that webhooks are told of."""
TYPES: Final = {
    resources.WEBHOOK_PAYLOAD_EVENTS: tuple(each.DESCRIPTOR.name for each in ABOUT_MODELS),
    resources.WEBHOOK_PAYLOAD_MLFLOW: MLFLOW_TYPES,
}
"""Kinds of events that a webhook may name, by the form of its payloads."""
CHANGEABLE: Final = ("display_name", "description", "url", "event_types", "model", "status")
_STATUSES: Final = (resources.WEBHOOK_STATUS_ACTIVE, resources.WEBHOOK_STATUS_DISABLED)


def name_of(parent: str, command_id: UUID) -> str:
    """Resource name of the webhook that a command creates in a project."""
    return f"{parent}/webhooks/{uuid5(WEBHOOKS, str(command_id)).hex}"


def decide_create(
    state: Webhook | None, asked: Webhook, context: CommandContext, *, name: str, origin: str, signed: bool
) -> Sequence[Message]:
    """A new webhook; nothing when the command created it before. Raises InvalidArgument."""
    if state is not None:
        return []
    webhook = Webhook(
        name=name,
        display_name=asked.display_name,
        description=asked.description,
        origin=origin,
        event_types=asked.event_types,
        model=asked.model,
        payload=asked.payload or resources.WEBHOOK_PAYLOAD_EVENTS,
        status=asked.status or resources.WEBHOOK_STATUS_ACTIVE,
        signed=signed,
        creator=context.actor,
        create_time=stamp(context.now),
        update_time=stamp(context.now),
    )
    check(webhook)
    return [events.WebhookCreated(webhook=webhook)]


def decide_change(
    state: Webhook | None,
    asked: Webhook,
    context: CommandContext,
    *,
    paths: Collection[str],
    origin: str,
    rotated: bool,
) -> Sequence[Message]:
    """The fields of ``paths`` as asked; nothing when they are so already and no URL or secret is given.

    Raises:
        NotFound: There is no such webhook.
        InvalidArgument: It would not be as webhooks are.
    """
    present = existing(state, asked.name)
    wanted = Webhook()
    wanted.CopyFrom(present)
    if "display_name" in paths:
        wanted.display_name = asked.display_name
    if "description" in paths:
        wanted.description = asked.description
    if "url" in paths:
        wanted.origin = origin
    if "event_types" in paths:
        wanted.ClearField("event_types")
        wanted.event_types.extend(asked.event_types)
    if "model" in paths:
        wanted.model = asked.model
    if "status" in paths:
        wanted.status = asked.status or resources.WEBHOOK_STATUS_ACTIVE
    wanted.signed = present.signed or rotated
    check(wanted)
    if wanted == present and not rotated and "url" not in paths:
        return []
    wanted.update_time.CopyFrom(stamp(context.now))
    changed = events.WebhookChanged(webhook=wanted, actor=context.actor)
    changed.secret_rotated, changed.url_changed = rotated, "url" in paths
    return [changed]


def decide_delete(state: Webhook | None, name: str, context: CommandContext) -> Sequence[Message]:
    """It is gone. Raises NotFound."""
    existing(state, name)
    return [events.WebhookDeleted(webhook=name, actor=context.actor, time=stamp(context.now))]


def existing(state: Webhook | None, name: str) -> Webhook:
    """The webhook, which must be there. Raises NotFound."""
    if state is None or state.HasField("delete_time"):
        raise NotFound("webhook", name, field="name")
    return state


def check(webhook: Webhook) -> None:
    """Raises InvalidArgument with the field at fault."""
    project = WEBHOOK_NAME.parse(webhook.name, field="webhook.name")["project"]
    require_text(webhook.display_name, field="webhook.display_name", most=250)
    require_text(webhook.description, field="webhook.description", least=0, most=10000, lines=True)
    if webhook.model and MODEL_NAME.parse(webhook.model, field="webhook.model")["project"] != project:
        raise InvalidArgument("the model is of another project", field="webhook.model")
    if webhook.payload not in TYPES:
        raise InvalidArgument("give WEBHOOK_PAYLOAD_EVENTS or WEBHOOK_PAYLOAD_MLFLOW", field="webhook.payload")
    if webhook.status not in _STATUSES:
        raise InvalidArgument("give WEBHOOK_STATUS_ACTIVE or WEBHOOK_STATUS_DISABLED", field="webhook.status")
    require_size(webhook.event_types, field="webhook.event_types", most=100)
    for index, each in enumerate(webhook.event_types):
        check_type(each, webhook, field=f"webhook.event_types[{index}]")
        if each in list(webhook.event_types)[:index]:
            raise InvalidArgument(f"{each} is there twice", field=f"webhook.event_types[{index}]")


def check_type(event_type: str, webhook: Webhook, *, field: str) -> None:
    """A kind of event that the webhook can be told of. Raises InvalidArgument."""
    known = TYPES[webhook.payload]
    if event_type not in known:
        raise InvalidArgument(f"{event_type[:100]!r} is none of {', '.join(known)}", field=field)


def evolve(state: Webhook | None, event: Message) -> Webhook:
    """The state after an event."""
    webhook = Webhook()
    match event:
        case events.WebhookCreated() | events.WebhookChanged():
            webhook.CopyFrom(event.webhook)
        case events.WebhookDeleted() if state is not None:
            webhook.CopyFrom(state)
            webhook.delete_time.CopyFrom(event.time)
        case _:
            pass
    webhook.revision = (state.revision if state is not None else 0) + 1
    return webhook


def rows(stream_id: str, state: Webhook, _events: Sequence[Message]) -> Sequence[Row]:
    """The row of a webhook."""
    deleted = state.HasField("delete_time")
    values = {
        "project": stream_id.split("/")[1],
        "create_time": state.create_time.ToDatetime(tzinfo=UTC),
        "active": state.status == resources.WEBHOOK_STATUS_ACTIVE and not deleted,
        "deleted": deleted,
    }
    return [Row("webhooks", {"name": stream_id}, values)]


WEBHOOK: Final = Aggregate(name="webhook", state=Webhook, evolve=evolve, rows=rows, tables=("webhooks",))
"""Stream: ``projects/{project}/webhooks/{webhook}``."""
