"""Models: versions, gates, approvals, moves of aliases; and what a person may do about them."""

from __future__ import annotations

from http import HTTPStatus
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace_gateway.pages import Pages
from headrace_gateway.platform import Platform
from headrace_gateway.web import field, form_of
from headrace_kit.errors import InvalidArgument


def routes(platform: Platform, pages: Pages) -> list[BaseRoute]:
    """Every page about models."""

    async def listing(request: Request) -> Response:
        query = service.ListModelsRequest(parent=platform.parent, page_size=1000)
        models = (await platform.read.registry.ListModels(query)).models
        return pages.render(request, "models.html", models=models)

    async def show(request: Request) -> Response:
        name = f"{platform.parent}/models/{request.path_params['model']}"
        model = (await platform.read.registry.GetModel(service.GetModelRequest(name=name))).model
        moves = sorted((move for alias in model.aliases for move in alias.history), key=lambda each: -each.time.seconds)
        return pages.render(
            request, "model.html", model=model, moves=moves, State=resources.VersionState, Format=resources.ModelFormat
        )

    async def act(request: Request) -> Response:
        form = await form_of(request)
        model = f"{platform.parent}/models/{request.path_params['model']}"
        number, reason = field(form, "version"), field(form, "reason")
        alias, command_id = field(form, "alias") or "production", field(form, "command_id") or str(uuid4())
        registry, version = platform.act.registry, f"{model}/versions/{number}"
        match request.path_params["action"]:
            case "approve" | "reject" as action:
                review = service.ReviewVersionRequest(
                    command_id=command_id, version=version, approve=action == "approve", reason=reason
                )
                await registry.ReviewVersion(review)
            case "promote":
                promotion = service.PromoteVersionRequest(
                    command_id=command_id,
                    version=version,
                    alias=alias,
                    expected_revision=_revision(form),
                    reason=reason,
                )
                await registry.PromoteVersion(promotion)
            case "rollback":
                rollback = service.RollBackAliasRequest(
                    command_id=command_id, model=model, alias=alias, expected_revision=_revision(form), reason=reason
                )
                await registry.RollBackAlias(rollback)
            case action:
                raise InvalidArgument(f"there is no action {action}")
        return RedirectResponse(f"/models/{request.path_params['model']}", HTTPStatus.SEE_OTHER)

    return [
        Route("/models", listing),
        Route("/models/{model}", show),
        Route("/models/{model}/{action}", act, methods=["POST"]),
    ]


def _revision(form: object) -> int:
    text = field(form, "revision")  # type: ignore[arg-type] # always what form_of gives
    return int(text) if text.isascii() and text.isdecimal() else -1
