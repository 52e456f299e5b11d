"""Webhooks over gRPC. URLs and secrets pass through here alone: no event, stored answer or log line has them."""

from __future__ import annotations

import time
from typing import Any, TypeAlias, TypeVar
from uuid import UUID, uuid4

import grpc

from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace.api.registry.v1.resources_pb2 import Webhook
from headrace.api.registry.v1.service_pb2_grpc import WebhookServiceServicer
from headrace.export.envelope import rfc3339
from headrace_kit.errors import FailedPrecondition, InvalidArgument, NotFound
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.masks import require_mask
from headrace_kit.names import PROJECT
from headrace_kit.names import WEBHOOK as WEBHOOK_NAME
from headrace_kit.paging import page_of
from headrace_kit.postgres import Connection
from headrace_kit.rpc import command_context
from headrace_kit.rpc.call import parse_uuid, utc_now
from headrace_kit.validate import require_enum
from headrace_kit.webhooks import Sender, require_secret
from headrace_registry import payloads, webhooks
from headrace_registry.delivering import signed
from headrace_registry.upkeep import stamp
from headrace_registry.webhooks import WEBHOOK
from headrace_registry.webhookstore import DELIVERED, WebhookStore

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # Any: the messages of whichever method
Asked = TypeVar("Asked", service.CreateWebhookRequest, service.UpdateWebhookRequest)
_STATES = {int(number): name for name, number in resources.WebhookDeliveryState.items()}


class WebhookServicer(WebhookServiceServicer):
    """Answers calls about webhooks.

    Args:
        store: The webhooks' streams.
        webhooks: The tables.
        sender: Checks targets, and tries them.
    """

    def __init__(self, store: PostgresEventStore, webhooks: WebhookStore, sender: Sender) -> None:
        self._store, self._webhooks, self._sender = store, webhooks, sender

    async def CreateWebhook(
        self, request: service.CreateWebhookRequest, context: Context
    ) -> service.CreateWebhookResponse:
        PROJECT.parse(request.parent, field="parent")
        command, asked, secret = command_context(request.command_id), request.webhook, request.secret
        if secret or asked.payload != resources.WEBHOOK_PAYLOAD_MLFLOW:
            require_secret(secret, field="secret")
        name = webhooks.name_of(request.parent, command.command_id)
        target = await self._sender.check(asked.url, field="webhook.url")

        async def keep(connection: Connection) -> None:
            await self._webhooks.add_target(connection, name, url=asked.url, secret=secret)

        response = await self._store.execute(
            WEBHOOK,
            name,
            context=command,
            request=_unspoken(request),
            decide=lambda state: webhooks.decide_create(
                state, asked, command, name=name, origin=target.origin, signed=bool(secret)
            ),
            respond=lambda webhook: service.CreateWebhookResponse(webhook=webhook),
            within=keep,
        )
        return service.CreateWebhookResponse(webhook=await self._with_url(response.webhook))

    async def GetWebhook(self, request: service.GetWebhookRequest, context: Context) -> service.GetWebhookResponse:
        return service.GetWebhookResponse(webhook=await self._with_url(await self._existing(request.name)))

    async def ListWebhooks(
        self, request: service.ListWebhooksRequest, context: Context
    ) -> service.ListWebhooksResponse:
        project = PROJECT.parse(request.parent, field="parent")["project"]
        page = page_of(request)
        found = await self._webhooks.page(project, after=page.after, limit=page.limit)
        token = page.token(found[-1].name, count=len(found)) if found else ""
        return service.ListWebhooksResponse(webhooks=found, next_page_token=token)

    async def UpdateWebhook(
        self, request: service.UpdateWebhookRequest, context: Context
    ) -> service.UpdateWebhookResponse:
        asked, secret, paths = request.webhook, request.secret, set(request.update_mask.paths)
        WEBHOOK_NAME.parse(asked.name, field="webhook.name")
        command = command_context(request.command_id)
        require_mask(request.update_mask, Webhook, field="update_mask")
        fixed = paths.difference(webhooks.CHANGEABLE)
        if fixed:
            message = f"{min(fixed)} does not change; {', '.join(webhooks.CHANGEABLE)} do"
            raise InvalidArgument(message, field="update_mask")
        if secret:
            require_secret(secret, field="secret")
        url = asked.url if "url" in paths else ""
        origin = (await self._sender.check(url, field="webhook.url")).origin if "url" in paths else ""

        async def keep(connection: Connection) -> None:
            await self._webhooks.change_target(connection, asked.name, url=url, secret=secret)

        response = await self._store.execute(
            WEBHOOK,
            asked.name,
            context=command,
            request=_unspoken(request),
            decide=lambda state: webhooks.decide_change(
                state, asked, command, paths=paths, origin=origin, rotated=bool(secret)
            ),
            respond=lambda webhook: service.UpdateWebhookResponse(webhook=webhook),
            within=keep,
        )
        return service.UpdateWebhookResponse(webhook=await self._with_url(response.webhook))

    async def DeleteWebhook(
        self, request: service.DeleteWebhookRequest, context: Context
    ) -> service.DeleteWebhookResponse:
        WEBHOOK_NAME.parse(request.name, field="name")
        command = command_context(request.command_id)

        async def forget(connection: Connection) -> None:
            await self._webhooks.forget(connection, request.name)

        return await self._store.execute(
            WEBHOOK,
            request.name,
            context=command,
            request=request,
            decide=lambda state: webhooks.decide_delete(state, request.name, command),
            respond=lambda webhook: service.DeleteWebhookResponse(webhook=webhook),
            within=forget,
        )

    async def TestWebhook(self, request: service.TestWebhookRequest, context: Context) -> service.TestWebhookResponse:
        webhook = await self._existing(request.name)
        target = await self._webhooks.target(request.name)
        if target is None:
            raise NotFound("webhook", request.name, field="name")
        kind = request.event_type or (webhook.event_types or webhooks.TYPES[webhook.payload])[0]
        webhooks.check_type(kind, webhook, field="event_type")
        now, message_id, (url, secrets) = utc_now(), str(uuid4()), target
        body = payloads.sample(webhook, kind, message_id=message_id, time=rfc3339(stamp(now)))
        headers = signed(message_id, webhook, body, secrets, now=int(time.time()))
        answer = await self._sender.send(url, body.content, headers)
        return service.TestWebhookResponse(
            delivered=answer.delivered,
            response_status=answer.status,
            response_body=answer.body,
            error=answer.error,
        )

    async def ListDeliveries(
        self, request: service.ListDeliveriesRequest, context: Context
    ) -> service.ListDeliveriesResponse:
        webhook = request.parent if "/webhooks/" in request.parent else ""
        pattern = WEBHOOK_NAME if webhook else PROJECT
        project = pattern.parse(request.parent, field="parent")["project"]
        require_enum(request.state, field="state", names=_STATES)
        page = page_of(request)
        position, _, last = page.after.partition("/")
        found = await self._webhooks.deliveries(
            project,
            webhook=webhook,
            state=request.state,
            after=(int(position), UUID(last)) if last else None,
            limit=page.limit,
        )
        token = page.token(f"{found[-1].position}/{found[-1].id}", count=len(found)) if found else ""
        return service.ListDeliveriesResponse(deliveries=found, next_page_token=token)

    async def RedriveDelivery(
        self, request: service.RedriveDeliveryRequest, context: Context
    ) -> service.RedriveDeliveryResponse:
        command_context(request.command_id)
        id_ = parse_uuid(request.id, field="id")
        await self._webhooks.redrive(id_)
        found = await self._webhooks.delivery(id_)
        if found is None:
            raise NotFound("delivery", request.id, field="id")
        if found.state == DELIVERED:
            raise FailedPrecondition("it was delivered", field="id", reason="DELIVERED")
        return service.RedriveDeliveryResponse(delivery=found)

    async def _existing(self, name: str) -> Webhook:
        WEBHOOK_NAME.parse(name, field="name")
        loaded = await self._store.load(WEBHOOK, name)
        return webhooks.existing(loaded[0] if loaded else None, name)

    async def _with_url(self, webhook: Webhook) -> Webhook:
        found = Webhook()
        found.CopyFrom(webhook)
        target = await self._webhooks.target(webhook.name)
        if target is not None:
            found.url = target[0]
        return found


def _unspoken(request: Asked) -> Asked:
    """The request without URL and secret, whose digest may be kept."""
    found = type(request)()
    found.CopyFrom(request)
    found.ClearField("secret")
    found.webhook.ClearField("url")
    return found
