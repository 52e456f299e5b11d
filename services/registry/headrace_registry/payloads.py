"""What webhooks are sent: pure functions from an event of the log to bodies, in either form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import orjson
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from headrace.api.registry.v1 import events_pb2 as events
from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1.resources_pb2 import Webhook
from headrace.export.envelope import attributes, rfc3339
from headrace_kit.eventstore import LogEntry
from headrace_kit.logmessages import entry_message

CLOUDEVENT: Final = "application/cloudevents+json"
JSON: Final = "application/json"
Facts = Mapping[str, object]

_SAMPLES: Final[Mapping[str, Facts]] = {
    "registered_model.created": {"name": "example", "tags": {"key": "value"}, "description": "An example"},
    "model_version.created": {
        "name": "example",
        "version": "1",
        "source": "models:/m-example",
        "run_id": None,
        "tags": {"key": "value"},
        "description": "An example",
    },
    "model_version_tag.set": {"name": "example", "version": "1", "key": "key", "value": "value"},
    "model_version_tag.deleted": {"name": "example", "version": "1", "key": "key"},
    "model_version_alias.created": {"name": "example", "alias": "champion", "version": "1"},
    "model_version_alias.deleted": {"name": "example", "alias": "champion"},
}


@dataclass(frozen=True, slots=True)
class Body:
    """The bytes of a payload and what they are."""

    content: bytes
    media_type: str


def parts_of(event: Message, webhook: Webhook, *, model: str) -> list[tuple[int, str]]:
    """The payloads that a webhook wants of an event of ``model``'s stream: number and kind of each; maybe none."""
    if webhook.model and webhook.model != model:
        return []
    if webhook.payload == resources.WEBHOOK_PAYLOAD_MLFLOW:
        kinds = [kind for kind, _ in _mlflow(event, model)]
    else:
        kinds = [event.DESCRIPTOR.name]
    wanted = webhook.event_types
    return [(part, kind) for part, kind in enumerate(kinds) if not wanted or kind in wanted]


def body(entry: LogEntry, webhook: Webhook, part: int, *, called: str = "") -> Body:
    """The payload of an event for a webhook. Always the same bytes.

    Args:
        entry: The event.
        webhook: Whose payload it is.
        part: A number of ``parts_of``.
        called: What people call the model; the id in its resource name when it is empty.

    Raises:
        LookupError: The event has no such part, or is of a kind that this build does not know.
    """
    message = entry.event.message
    if message is None:
        raise LookupError(f"{entry.event.type} is not known here")
    told = entry_message(entry)
    if webhook.payload == resources.WEBHOOK_PAYLOAD_MLFLOW:
        kind, facts = list(_mlflow(message, called))[part]
        return _mlflow_body(kind, facts, rfc3339(told.occurred_at))
    return _event_body(attributes(told), message)


def sample(webhook: Webhook, event_type: str, *, message_id: str, time: str) -> Body:
    """A made-up payload of a kind; ``time`` is RFC 3339. Raises LookupError for a kind that there is not."""
    if webhook.payload == resources.WEBHOOK_PAYLOAD_MLFLOW:
        return _mlflow_body(event_type, _SAMPLES[event_type], time)
    made_up: Message = getattr(events, event_type)()
    facts = {
        "specversion": "1.0",
        "id": message_id,
        "type": f"headrace.registry.v1.{event_type}",
        "source": "headrace/registry",
        "subject": webhook.model or webhook.name,
        "time": time,
        "test": "true",
    }
    return _event_body(facts, made_up)


def _event_body(facts: Mapping[str, str], message: Message) -> Body:
    data = MessageToDict(message, preserving_proto_field_name=True)
    return Body(orjson.dumps({**facts, "datacontenttype": JSON, "data": data}), CLOUDEVENT)


def _mlflow_body(kind: str, facts: Facts, time: str) -> Body:
    entity, _, action = kind.partition(".")
    return Body(orjson.dumps({"entity": entity, "action": action, "timestamp": time, "data": facts}), JSON)


def _mlflow(event: Message, called: str) -> Iterator[tuple[str, Facts]]:
    match event:
        case events.ModelCreated():
            about = {"name": called or _last(event.model), "tags": dict(event.tags), "description": event.description}
            yield "registered_model.created", about
        case events.VersionCreated():
            version = event.version
            yield (
                "model_version.created",
                {
                    "name": called or _last(event.model),
                    "version": str(version.number),
                    "source": version.source,
                    "run_id": _last(version.run).replace("-", "") or None,
                    "tags": dict(version.tags),
                    "description": version.description,
                },
            )
        case events.VersionTagsChanged():
            for key in sorted(event.set):
                yield "model_version_tag.set", {**_version(event.version, called), "key": key, "value": event.set[key]}
            for key in sorted(event.removed):
                yield "model_version_tag.deleted", {**_version(event.version, called), "key": key}
        case events.VersionPromoted() | events.VersionRolledBack():
            yield "model_version_alias.created", {**_version(event.version, called), "alias": event.promotion.alias}
        case events.AliasRemoved():
            yield "model_version_alias.deleted", {"name": called or _last(event.model), "alias": event.alias}
        case _:
            pass


def _version(name: str, called: str) -> dict[str, str]:
    model, _, number = name.partition("/versions/")
    return {"name": called or _last(model), "version": number}


def _last(name: str) -> str:
    return name.rpartition("/")[2]
