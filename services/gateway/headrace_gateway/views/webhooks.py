"""Webhooks: whom the registry tells of its events, what was delivered, and dead letters that are made due again."""

from __future__ import annotations

import asyncio
import secrets
from base64 import b64encode
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID, uuid5

import grpc
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from headrace.api.registry.v1 import events_pb2 as events
from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace.errors import from_rpc_error
from headrace_gateway.pages import Pages, short
from headrace_gateway.platform import Platform
from headrace_gateway.web import explained, field, form_of
from headrace_kit.errors import InvalidArgument

DELIVERIES: Final = 100
"""Deliveries of one page."""
REDRIVEN: Final = 1000
"""Dead letters that one form makes due again."""
KINDS: Final = tuple(each for each in events.DESCRIPTOR.message_types_by_name if not each.startswith(("Person", "Web")))
"""The events that webhooks are told of."""
_FIELDS: Final = {"webhook.display_name": "name", "webhook.url": "url", "webhook.model": "model", "secret": "secret"}
"""Paths of a refused request, and the form's fields."""
_AWAY: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_AT_ONCE: Final = 16


def routes(platform: Platform, pages: Pages) -> list[BaseRoute]:
    """``/webhooks``, the page of each, and what is done about them."""
    state = resources.WebhookDeliveryState

    async def listing(request: Request) -> Response:
        return await list_page(request, {})

    async def list_page(
        request: Request, texts: dict[str, str], *, problem: str = "", fault: str = "", status: int = HTTPStatus.OK
    ) -> Response:
        asked = service.ListWebhooksRequest(parent=platform.parent, page_size=1000)
        dead = service.ListDeliveriesRequest(
            parent=platform.parent, state=resources.WEBHOOK_DELIVERY_STATE_DEAD, page_size=1000
        )
        hooks, letters = await asyncio.gather(
            platform.read.webhooks.ListWebhooks(asked), platform.read.webhooks.ListDeliveries(dead)
        )
        counts = {each.name: 0 for each in hooks.webhooks}
        for each in letters.deliveries:
            counts[each.webhook] = counts.get(each.webhook, 0) + 1
        return pages.render(
            request,
            "webhooks.html",
            webhooks=hooks.webhooks,
            dead=counts,
            more_dead=bool(letters.next_page_token),
            kinds=KINDS,
            texts=texts,
            chosen=texts.get("event", "").split(),
            secret=texts.get("secret") or made_secret(),
            problem=problem,
            fault=fault,
            status=HTTPStatus(status),
            Status=resources.WebhookStatus,
        )

    async def create(request: Request) -> Response:
        form = await form_of(request)
        texts = {each: field(form, each) for each in ("name", "url", "model", "description", "secret")}
        texts["event"] = " ".join(str(each) for each in form.getlist("event"))
        try:
            made = await platform.act.webhooks.CreateWebhook(_creating(platform, form, texts))
        except grpc.aio.AioRpcError as error:
            if error.code() in _AWAY:
                raise
            status, message = explained(error)
            fault = _FIELDS.get(from_rpc_error(error).field, "")
            return await list_page(request, texts, problem=message, fault=fault, status=status)
        return await hook_page(request, made.webhook, secret=texts["secret"], done="It was made.")

    async def show(request: Request) -> Response:
        return await hook_page(request, await get(request))

    async def get(request: Request) -> resources.Webhook:
        asked = service.GetWebhookRequest(name=f"{platform.parent}/webhooks/{request.path_params['webhook']}")
        found: resources.Webhook = (await platform.read.webhooks.GetWebhook(asked)).webhook
        return found

    async def hook_page(
        request: Request,
        webhook: resources.Webhook,
        *,
        secret: str = "",
        done: str = "",
        problem: str = "",
        status: HTTPStatus = HTTPStatus.OK,
    ) -> Response:
        query = request.query_params
        asked = service.ListDeliveriesRequest(
            parent=webhook.name, page_size=DELIVERIES, page_token=query.get("after", "")
        )
        if query.get("dead"):
            asked.state = resources.WEBHOOK_DELIVERY_STATE_DEAD
        found = await platform.read.webhooks.ListDeliveries(asked)
        return pages.render(
            request,
            "webhook.html",
            webhook=webhook,
            deliveries=found.deliveries,
            following=found.next_page_token,
            only_dead=bool(query.get("dead")),
            kinds=webhook.event_types or KINDS,
            new_secret=made_secret(),
            secret=secret,
            done=done,
            problem=problem,
            status=status,
            Status=resources.WebhookStatus,
            Payload=resources.WebhookPayload,
            State=state,
        )

    async def act(request: Request) -> Response:
        form, action = await form_of(request), request.path_params["action"]
        name = f"{platform.parent}/webhooks/{request.path_params['webhook']}"
        try:
            if action == "delete":
                command = service.DeleteWebhookRequest(command_id=field(form, "command_id"), name=name)
                await platform.act.webhooks.DeleteWebhook(command)
                return RedirectResponse("/webhooks", HTTPStatus.SEE_OTHER)
            secret, done = await _command(platform, name, action, form)
        except grpc.aio.AioRpcError as error:
            if error.code() in _AWAY:
                raise
            status, message = explained(error)
            return await hook_page(request, await get(request), problem=message, status=status)
        if done:
            return await hook_page(request, await get(request), secret=secret, done=done)
        return RedirectResponse(f"/webhooks/{short(name)}", HTTPStatus.SEE_OTHER)

    return [
        Route("/webhooks", listing, methods=["GET"]),
        Route("/webhooks", create, methods=["POST"]),
        Route("/webhooks/{webhook}", show, methods=["GET"]),
        Route("/webhooks/{webhook}/{action}", act, methods=["POST"]),
    ]


def made_secret() -> str:
    """A new secret. It goes with the form, so that a form sent twice is one command."""
    return f"whsec_{b64encode(secrets.token_bytes(32)).decode()}"


def _creating(platform: Platform, form: FormData, texts: dict[str, str]) -> service.CreateWebhookRequest:
    webhook = resources.Webhook(
        display_name=texts["name"],
        url=texts["url"],
        description=texts["description"].replace("\r\n", "\n"),
        event_types=texts["event"].split(),
        model=f"{platform.parent}/models/{texts['model']}" if texts["model"] else "",
        payload=resources.WEBHOOK_PAYLOAD_EVENTS,
    )
    return service.CreateWebhookRequest(
        command_id=field(form, "command_id"), parent=platform.parent, webhook=webhook, secret=texts["secret"]
    )


async def _command(platform: Platform, name: str, action: str, form: FormData) -> tuple[str, str]:
    """Does it; returns a secret that is to be shown, and what came of it where the page does not tell by itself."""
    hooks, command_id = platform.act.webhooks, field(form, "command_id")
    match action:
        case "test":
            answer = await hooks.TestWebhook(service.TestWebhookRequest(name=name, event_type=field(form, "event")))
            told = f"answered {answer.response_status}" if answer.response_status else "no answer"
            return "", f"The target took it: {told}." if answer.delivered else f"It did not arrive: {answer.error}"
        case "rotate":
            secret = field(form, "secret")
            rotate = service.UpdateWebhookRequest(command_id=command_id, secret=secret)
            rotate.webhook.name = name
            await hooks.UpdateWebhook(rotate)
            return secret, "It has another secret; the one before signs beside it for a day."
        case "enable" | "disable":
            off, on = resources.WEBHOOK_STATUS_DISABLED, resources.WEBHOOK_STATUS_ACTIVE
            change = service.UpdateWebhookRequest(command_id=command_id)
            change.webhook.name, change.webhook.status = name, off if action == "disable" else on
            change.update_mask.paths.append("status")
            await hooks.UpdateWebhook(change)
        case "redrive":
            one = field(form, "delivery")
            count = await _redrive(hooks, [one] if one else await _dead(hooks, name), command_id)
            return "", f"{count} {'is' if count == 1 else 'are'} due again."
        case _:
            raise InvalidArgument(f"there is no action {action}")
    return "", ""


async def _dead(hooks: Any, name: str) -> list[str]:  # noqa: ANN401 - a stub
    state = resources.WEBHOOK_DELIVERY_STATE_DEAD
    listed = await hooks.ListDeliveries(service.ListDeliveriesRequest(parent=name, state=state, page_size=REDRIVEN))
    return [each.id for each in listed.deliveries]


async def _redrive(hooks: Any, ids: Sequence[str], command_id: str) -> int:  # noqa: ANN401 - a stub
    """Makes dead letters due again; ids of commands are made of the form's, so that a second time is none."""
    try:
        base = UUID(command_id)
    except ValueError:
        raise InvalidArgument("the form has no id: load the page again", field="command_id") from None
    gate = asyncio.Semaphore(_AT_ONCE)

    async def again(identity: str) -> None:
        async with gate:
            await hooks.RedriveDelivery(
                service.RedriveDeliveryRequest(command_id=str(uuid5(base, identity)), id=identity)
            )

    await asyncio.gather(*(again(each) for each in ids))
    return len(ids)
