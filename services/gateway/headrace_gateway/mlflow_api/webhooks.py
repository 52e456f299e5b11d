"""Webhooks with MLflow's payloads: create, look up, list, change, delete, try. The registry delivers."""

from __future__ import annotations

from typing import Final

from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace_gateway.mlflow_api.asking import Arguments, Ask
from headrace_gateway.mlflow_api.errors import MlflowError, missing
from headrace_gateway.mlflow_api.naming import last_part
from headrace_gateway.mlflow_api.sifting import page
from headrace_gateway.mlflow_api.table import V2, Endpoint
from headrace_gateway.mlflow_api.wire import Json, milliseconds

MAX_RESULTS: Final = 1000
STATUSES: Final = {
    "ACTIVE": resources.WEBHOOK_STATUS_ACTIVE,
    "DISABLED": resources.WEBHOOK_STATUS_DISABLED,
}
_FIELDS: Final = {
    "name": "display_name",
    "description": "description",
    "url": "url",
    "events": "event_types",
    "status": "status",
}
"""MLflow's fields, and the registry's."""


def endpoints() -> list[Endpoint]:
    """Every endpoint on webhooks."""
    one = f"{V2}/webhooks/{{webhook_id}}"
    return [
        Endpoint("POST", f"{V2}/webhooks", _create),
        Endpoint("GET", f"{V2}/webhooks", _list),
        Endpoint("GET", one, _get),
        Endpoint("PATCH", one, _update),
        Endpoint("DELETE", one, _delete),
        Endpoint("POST", f"{one}/test", _test),
    ]


def webhook_json(webhook: resources.Webhook) -> Json:
    """A webhook."""
    active = webhook.status == resources.WEBHOOK_STATUS_ACTIVE
    return {
        "webhook_id": last_part(webhook.name),
        "name": webhook.display_name,
        "description": webhook.description,
        "url": webhook.url,
        "events": [_event_json(each) for each in webhook.event_types],
        "status": "ACTIVE" if active else "DISABLED",
        "creation_timestamp": milliseconds(webhook.create_time),
        "last_updated_timestamp": milliseconds(webhook.update_time),
    }


async def _create(ask: Ask) -> Json:
    asked = _asked(ask)
    asked.payload = resources.WEBHOOK_PAYLOAD_MLFLOW
    ask.required("name")
    ask.required("url")
    if not asked.event_types:
        raise MlflowError("Missing value for required parameter 'events'.")
    request = service.CreateWebhookRequest(parent=ask.parent, webhook=asked, secret=ask.text("secret"))
    created = await ask.command(ask.services.webhooks.CreateWebhook, request)
    return {"webhook": webhook_json(created.webhook)}


async def _list(ask: Ask) -> Json:
    found: list[resources.Webhook] = []
    request = service.ListWebhooksRequest(parent=ask.parent, page_size=1000)
    while True:
        listed = await ask.call(ask.services.webhooks.ListWebhooks, request)
        found.extend(each for each in listed.webhooks if each.payload == resources.WEBHOOK_PAYLOAD_MLFLOW)
        request.page_token = listed.next_page_token
        if not request.page_token:
            break
    size = ask.integer("max_results", 100)
    shown, token = page(found, token=ask.text("page_token"), size=size, most=MAX_RESULTS)
    answer: Json = {"webhooks": [webhook_json(each) for each in shown]}
    return answer | ({"next_page_token": token} if token else {})


async def _get(ask: Ask) -> Json:
    return {"webhook": webhook_json(await _existing(ask))}


async def _update(ask: Ask) -> Json:
    webhook = await _existing(ask)
    asked = _asked(ask)
    asked.name = webhook.name
    request = service.UpdateWebhookRequest(webhook=asked, secret=ask.text("secret"))
    request.update_mask.paths.extend(ours for theirs, ours in _FIELDS.items() if ask.given(theirs))
    changed = await ask.command(ask.services.webhooks.UpdateWebhook, request)
    return {"webhook": webhook_json(changed.webhook)}


async def _delete(ask: Ask) -> Json:
    webhook = await _existing(ask)
    await ask.command(ask.services.webhooks.DeleteWebhook, service.DeleteWebhookRequest(name=webhook.name))
    return {}


async def _test(ask: Ask) -> Json:
    webhook = await _existing(ask)
    kind = _event_type(ask.item("event")) if ask.given("event") else ""
    request = service.TestWebhookRequest(name=webhook.name, event_type=kind)
    answer = await ask.call(ask.services.webhooks.TestWebhook, request)
    result: Json = {"success": answer.delivered}
    if answer.response_status:
        result |= {"response_status": answer.response_status, "response_body": answer.response_body}
    if answer.error:
        result["error_message"] = answer.error
    return {"result": result}


async def _existing(ask: Ask) -> resources.Webhook:
    """The webhook of the path. Raises MlflowError when there is none with MLflow's payloads."""
    identity = ask.path("webhook_id")
    if not (len(identity) == 32 and identity.isalnum() and identity.isascii() and identity == identity.lower()):
        raise missing(f"Webhook with ID {identity[:100]} not found.")
    request = service.GetWebhookRequest(name=f"{ask.parent}/webhooks/{identity}")
    found: resources.Webhook = (await ask.call(ask.services.webhooks.GetWebhook, request)).webhook
    if found.payload != resources.WEBHOOK_PAYLOAD_MLFLOW:
        raise missing(f"Webhook with ID {identity} not found.")
    return found


def _asked(ask: Ask) -> resources.Webhook:
    status = ask.text("status", default="ACTIVE")
    if status not in STATUSES:
        raise MlflowError(f"Invalid value '{status[:100]}' for parameter 'status': give {' or '.join(STATUSES)}.")
    return resources.Webhook(
        display_name=ask.text("name"),
        description=ask.text("description"),
        url=ask.text("url"),
        event_types=[_event_type(each) for each in ask.items("events")],
        status=STATUSES[status],
    )


def _event_type(event: Arguments) -> str:
    return f"{event.required('entity').lower()}.{event.required('action').lower()}"


def _event_json(event_type: str) -> Json:
    entity, _, action = event_type.upper().partition(".")
    return {"entity": entity, "action": action}
