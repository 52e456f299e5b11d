"""Models: versions, gates, approvals, moves of aliases; and what a person may do about them."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Final

import grpc
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace_gateway.pages import Pages
from headrace_gateway.platform import Platform
from headrace_gateway.views.history import moment_of
from headrace_gateway.views.lineage import around
from headrace_gateway.web import explained, field, form_of
from headrace_kit.errors import InvalidArgument, NotFound

MOVES: Final = 200
"""Moves of aliases that the page of a model shows."""


def routes(platform: Platform, pages: Pages) -> list[BaseRoute]:
    """Every page about models."""

    async def listing(request: Request) -> Response:
        query = service.ListModelsRequest(parent=platform.parent, page_size=1000)
        models = (await platform.read.registry.ListModels(query)).models
        template = "_models.html" if "hx-request" in request.headers else "models.html"
        return pages.render(request, template, models=models)

    async def get(request: Request) -> resources.Model:
        name = f"{platform.parent}/models/{request.path_params['model']}"
        found: resources.Model = (await platform.read.registry.GetModel(service.GetModelRequest(name=name))).model
        return found

    async def model_page(
        request: Request,
        problem: str = "",
        status: HTTPStatus = HTTPStatus.OK,
        effect: service.CheckRollbackResponse | None = None,
    ) -> Response:
        model = await get(request)
        graph, silent = await around(platform, model.versions[-1].name) if model.versions else (None, ())
        return pages.render(
            request,
            "model.html",
            model=model,
            graph=graph,
            silent=silent,
            moves=moves(model)[:MOVES],
            effect=effect,
            problem=problem,
            status=status,
            State=resources.VersionState,
            Format=resources.ModelFormat,
        )

    async def lacking(version: str, alias: str) -> tuple[str, service.CheckPromotionResponse]:
        # Asked in the person's name: whether it may be depends on who promotes.
        query = service.CheckPromotionRequest(version=version, alias=alias)
        return alias, await platform.act.registry.CheckPromotion(query)

    async def version_page(
        request: Request, number: str, problem: str = "", status: HTTPStatus = HTTPStatus.OK
    ) -> Response:
        model = await get(request)
        version = next((each for each in model.versions if str(each.number) == number), None)
        if version is None:
            raise NotFound("version", f"{model.name}/versions/{number}")
        promotions, (graph, silent) = await asyncio.gather(
            asyncio.gather(*(lacking(version.name, alias) for alias in aliases(model))),
            around(platform, version.name),
        )
        return pages.render(
            request,
            "version.html",
            model=model,
            version=version,
            graph=graph,
            silent=silent,
            promotions=promotions,
            may_run_code=version.format in (resources.MODEL_FORMAT_PICKLE, resources.MODEL_FORMAT_MLFLOW),
            moves=[move for move in moves(model) if number in (str(move.version), str(move.previous_version))],
            problem=problem,
            status=status,
            State=resources.VersionState,
            Format=resources.ModelFormat,
        )

    async def show(request: Request) -> Response:
        return await model_page(request)

    async def show_version(request: Request) -> Response:
        return await version_page(request, request.path_params["version"])

    async def act(request: Request) -> Response:
        form = await form_of(request)
        number, path = field(form, "version"), f"/models/{request.path_params['model']}"
        try:
            if request.path_params["action"] == "rollback-check":
                query = service.CheckRollbackRequest(
                    model=f"{platform.parent}/models/{request.path_params['model']}", alias=field(form, "alias")
                )
                _set_time(query, form)
                return await model_page(request, effect=await platform.act.registry.CheckRollback(query))
            await _command(platform, request.path_params["model"], request.path_params["action"], form)
        except grpc.aio.AioRpcError as error:
            status, message = explained(error)
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise
            if number:
                return await version_page(request, number, message, status)
            return await model_page(request, message, status)
        return RedirectResponse(f"{path}/versions/{number}" if number else path, HTTPStatus.SEE_OTHER)

    return [
        Route("/models", listing),
        Route("/models/{model}", show),
        Route("/models/{model}/versions/{version}", show_version),
        Route("/models/{model}/{action}", act, methods=["POST"]),
    ]


def moves(model: resources.Model) -> list[resources.Promotion]:
    """Every move of the model's aliases, newest first."""
    found = [move for alias in model.aliases for move in alias.history]
    return sorted(found, key=lambda each: (each.time.seconds, each.time.nanos, each.revision), reverse=True)


def aliases(model: resources.Model) -> list[str]:
    """Aliases to which a version may be promoted: ``production`` first, ``staging``, and what there is beside."""
    known = {each.alias for each in model.aliases} | {each.alias for each in model.gates}
    return ["production", "staging", *sorted(known - {"production", "staging"})]


async def _command(platform: Platform, model_id: str, action: str, form: FormData) -> None:
    model = f"{platform.parent}/models/{model_id}"
    version, reason = f"{model}/versions/{field(form, 'version')}", field(form, "reason")
    alias, command_id = field(form, "alias"), field(form, "command_id")
    registry = platform.act.registry
    match action:
        case "approve" | "reject":
            await registry.ReviewVersion(
                service.ReviewVersionRequest(
                    command_id=command_id, version=version, approve=action == "approve", reason=reason
                )
            )
        case "consent" | "withdraw":
            await registry.ConsentToFormat(
                service.ConsentToFormatRequest(
                    command_id=command_id, version=version, given=action == "consent", reason=reason
                )
            )
        case "promote":
            await registry.PromoteVersion(
                service.PromoteVersionRequest(
                    command_id=command_id,
                    version=version,
                    alias=alias,
                    expected_revision=_revision(form),
                    reason=reason,
                )
            )
        case "override":
            alias, _, revision = field(form, "alias_at").rpartition("@")
            await registry.PromoteVersion(
                service.PromoteVersionRequest(
                    command_id=command_id,
                    version=version,
                    alias=alias,
                    expected_revision=_number(revision),
                    reason=reason,
                    override_gates=True,
                )
            )
        case "rollback":
            back = service.RollBackAliasRequest(
                command_id=command_id, model=model, alias=alias, expected_revision=_revision(form), reason=reason
            )
            _set_time(back, form)
            await registry.RollBackAlias(back)
        case "card":
            await registry.WriteCard(
                service.WriteCardRequest(
                    command_id=command_id,
                    name=version if field(form, "version") else model,
                    card=_card(form),
                    expected_revision=_revision(form),
                )
            )
        case "archive":
            await registry.ArchiveVersion(
                service.ArchiveVersionRequest(command_id=command_id, version=version, reason=reason)
            )
        case _:
            raise InvalidArgument(f"there is no action {action}")


def _card(form: FormData) -> resources.ModelCard:
    def text(name: str) -> str:
        return field(form, name).replace("\r\n", "\n")

    return resources.ModelCard(
        markdown=text("markdown"),
        intended_use=text("intended_use"),
        limits=text("limits"),
        evaluation=text("evaluation"),
        data=text("data"),
    )


def _set_time(request: service.RollBackAliasRequest | service.CheckRollbackRequest, form: FormData) -> None:
    if text := field(form, "to_time"):
        request.to_time.FromDatetime(moment_of(text))


def _revision(form: FormData) -> int:
    return _number(field(form, "revision"))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise InvalidArgument("the form names no revision of the alias: load the page again", field="revision")
    return int(text)
