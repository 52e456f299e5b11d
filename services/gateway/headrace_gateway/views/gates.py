"""The page on which a person sets the gates of an alias, after seeing which versions would pass them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

import grpc
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.audit.v1.service_pb2 import ReadStreamRequest, StateAtRequest
from headrace.api.registry.v1 import events_pb2 as events
from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace.errors import from_rpc_error
from headrace_gateway.gateform import KINDS, field_of, gates_of, texts_of
from headrace_gateway.pages import Pages
from headrace_gateway.platform import Platform
from headrace_gateway.web import explained, field, form_of
from headrace_kit.errors import InvalidArgument

TRIED: Final = 20
"""Newest versions that are held to the gates of the form."""
LOOKED_AT: Final = 1000
"""Newest events of a model among which its gates' past is looked for."""
_TYPE: Final = "headrace.registry.v1.GatesSet"


@dataclass(frozen=True, slots=True)
class Past:
    """Gates that were set once."""

    entry: LogEntry
    gates: resources.Gates


def routes(platform: Platform, pages: Pages) -> list[BaseRoute]:
    """``/models/{model}/gates``: the form, its preview, and setting."""

    async def get(request: Request) -> resources.Model:
        name = f"{platform.parent}/models/{request.path_params['model']}"
        found: resources.Model = (await platform.read.registry.GetModel(service.GetModelRequest(name=name))).model
        return found

    async def tried(model: resources.Model, gates: resources.Gates) -> list[service.CheckPromotionResponse]:
        async def ask(version: resources.Version) -> service.CheckPromotionResponse:
            query = service.CheckPromotionRequest(version=version.name, alias=gates.alias, gates=gates)
            found: service.CheckPromotionResponse = await platform.act.registry.CheckPromotion(query)
            return found

        return list(await asyncio.gather(*(ask(each) for each in newest(model))))

    async def show(request: Request) -> Response:
        model = await get(request)
        alias = request.query_params.get("alias") or "production"
        texts = texts_of(set_gates(model, alias) or resources.Gates(approval_required=True))
        return await page(request, model, alias, texts)

    async def act(request: Request) -> Response:
        form = await form_of(request)
        model, alias = await get(request), field(form, "alias")
        texts = {kind.path: field(form, kind.path) for kind in KINDS}
        try:
            gates = gates_of(texts, alias)
            if field(form, "do") == "preview":
                return await page(request, model, alias, texts, checked=await tried(model, gates))
            command = service.SetGatesRequest(command_id=field(form, "command_id"), model=model.name, gates=gates)
            await platform.act.registry.SetGates(command)
        except InvalidArgument as error:
            problem, fault = error.message, error.field
            status = HTTPStatus.BAD_REQUEST
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise
            status, problem = explained(error)
            path = from_rpc_error(error).field
            fault = field_of(path) or ("alias" if path.endswith("alias") else "")
        else:
            return RedirectResponse(f"/models/{quote(request.path_params['model'])}#gates", HTTPStatus.SEE_OTHER)
        return await page(request, model, alias, texts, problem=problem, fault=fault, status=status)

    async def page(
        request: Request,
        model: resources.Model,
        alias: str,
        texts: dict[str, str],
        *,
        checked: list[service.CheckPromotionResponse] | None = None,
        problem: str = "",
        fault: str = "",
        status: HTTPStatus = HTTPStatus.OK,
    ) -> Response:
        return pages.render(
            request,
            "gates.html",
            model=model,
            alias=alias,
            kinds=KINDS,
            texts=texts,
            current=set_gates(model, alias),
            earlier=await past(platform, model.name, alias),
            tried=None if checked is None else list(zip(newest(model), checked, strict=True)),
            problem=problem,
            fault=fault,
            status=status,
        )

    return [
        Route("/models/{model}/gates", show, methods=["GET"]),
        Route("/models/{model}/gates", act, methods=["POST"]),
    ]


def set_gates(model: resources.Model, alias: str) -> resources.Gates | None:
    """The gates that are set for an alias, or None."""
    return next((each for each in model.gates if each.alias == alias), None)


def newest(model: resources.Model) -> list[resources.Version]:
    """The newest versions that are still there, newest first, and with them those that aliases point to."""
    there = [each for each in reversed(model.versions) if not each.HasField("delete_time")]
    pointed = {each.version for each in model.aliases}
    return [each for place, each in enumerate(there) if place < TRIED or each.number in pointed]


async def past(platform: Platform, model: str, alias: str) -> list[Past]:
    """Who set what for an alias and when, newest first, as far as the newest events of the model tell."""
    log = platform.read.log("registry")
    last = (await log.StateAt(StateAtRequest(stream_id=model))).entry.version
    begin = max(last - LOOKED_AT + 1, 1)
    answer = await log.ReadStream(ReadStreamRequest(stream_id=model, from_version=begin, page_size=LOOKED_AT))
    found = [Past(each, events.GatesSet.FromString(each.data).gates) for each in answer.entries if each.type == _TYPE]
    return [each for each in reversed(found) if each.gates.alias == alias]
