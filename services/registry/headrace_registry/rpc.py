"""The registry over gRPC: request -> checks -> command or query -> response."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias, TypeVar
from uuid import uuid4

import grpc
from google.protobuf.message import Message

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.registry.v1 import service_pb2 as service
from headrace.api.registry.v1.resources_pb2 import Model, Promotion, Version
from headrace.api.registry.v1.service_pb2_grpc import RegistryServiceServicer
from headrace_kit.context import CommandContext
from headrace_kit.errors import AlreadyExists, InvalidArgument, NotFound
from headrace_kit.eventstore import EventStore
from headrace_kit.masks import picked
from headrace_kit.names import MODEL as MODEL_NAME
from headrace_kit.names import PROJECT, parse_id, parse_label, require_text
from headrace_kit.objects import PRESIGN_TTL, ObjectStore, holds
from headrace_kit.paging import page_of
from headrace_kit.postgres import UniqueViolation
from headrace_kit.rpc import command_context, current_principal
from headrace_registry import domain, gates, names, packages, requests, rollbacks, signing, upkeep
from headrace_registry.store import MODEL, ModelStore

R = TypeVar("R", bound=Message)
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # Any: the messages of whichever method
Decide = Callable[[Model | None, CommandContext], Sequence[Message]]


class RegistryServicer(RegistryServiceServicer):
    """Answers the registry's calls.

    Args:
        store: The models' streams.
        models: The read model.
        objects: Where packages lie.
    """

    def __init__(self, store: EventStore, models: ModelStore, objects: ObjectStore) -> None:
        self._store, self._models, self._objects = store, models, objects

    async def CreateModel(self, request: service.CreateModelRequest, context: Context) -> service.CreateModelResponse:
        requests.check_create_model(request)
        _, project, _, identity = request.name.split("/")
        guarded = request.open_aliases and await self._models.is_guarded(
            project, request.display_name or identity, besides=request.name
        )
        return await self._command(
            request.name,
            request,
            lambda state, command: domain.decide_create(state, request, command, guarded=guarded),
            lambda model: service.CreateModelResponse(model=model),
        )

    async def GetModel(self, request: service.GetModelRequest, context: Context) -> service.GetModelResponse:
        name, called, field = request.name, request.display_name, "name"
        if called or not name:
            parse_label(called, field="display_name")
        if name:
            MODEL_NAME.parse(name, field=field)
        else:
            project, field = PROJECT.parse(request.parent, field="parent")["project"], "display_name"
            name = await self._models.model_named(project, called) or ""
            if not name:
                raise NotFound("model", called, field=field)
        [model] = picked([await self._model(name, field=field)], request.read_mask, kind=Model)
        return service.GetModelResponse(model=model)

    async def ListModels(self, request: service.ListModelsRequest, context: Context) -> service.ListModelsResponse:
        project = PROJECT.parse(request.parent, field="parent")["project"]
        page = page_of(request)
        models = await self._models.list_models(project, after=page.after, limit=page.limit)
        token = page.token(models[-1].name, count=len(models)) if models else ""
        shown = picked(models, request.read_mask, kind=Model)
        return service.ListModelsResponse(models=shown, next_page_token=token)

    async def CreateVersion(
        self, request: service.CreateVersionRequest, context: Context
    ) -> service.CreateVersionResponse:
        requests.check_create_version(request)
        await self._require_stored(request.artifact, field="artifact")
        if request.HasField("reference_profile"):
            await self._require_stored(request.reference_profile, field="reference_profile")
        return await self._command(
            request.model,
            request,
            lambda state, command: domain.decide_version(state, request, command),
            lambda model: service.CreateVersionResponse(version=model.versions[-1]),
        )

    async def GetVersion(self, request: service.GetVersionRequest, context: Context) -> service.GetVersionResponse:
        name, at, alias = request.name.partition("@")
        if not at:
            model = await self._model(requests.model_of(name, field="name"), field="name")
            return _with_trust(model, domain.version_of(model, name))
        MODEL_NAME.parse(name, field="name")
        requests.require_alias(alias, field="name")
        model = await self._model(name, field="name")
        pointer = gates.find_alias(model, alias)
        if pointer is None:
            raise NotFound("alias", request.name, field="name")
        return _with_trust(model, model.versions[pointer.version - 1])

    async def ListVersions(
        self, request: service.ListVersionsRequest, context: Context
    ) -> service.ListVersionsResponse:
        MODEL_NAME.parse(request.parent, field="parent")
        page = page_of(request)
        model = await self._model(request.parent, field="parent")
        below = int(page.after) if page.after else len(model.versions) + 1
        found = [each for each in reversed(model.versions) if each.number < below and not each.HasField("delete_time")]
        del found[page.limit :]
        token = page.token(str(found[-1].number), count=len(found)) if found else ""
        shown = picked(found, request.read_mask, kind=Version)
        return service.ListVersionsResponse(versions=shown, next_page_token=token)

    async def RecordValidation(
        self, request: service.RecordValidationRequest, context: Context
    ) -> service.RecordValidationResponse:
        name = requests.check_validation(request)
        return await self._command(
            name,
            request,
            lambda state, command: domain.decide_validation(state, request, command),
            lambda model: service.RecordValidationResponse(version=domain.version_of(model, request.version)),
        )

    async def ReviewVersion(
        self, request: service.ReviewVersionRequest, context: Context
    ) -> service.ReviewVersionResponse:
        requests.require_reason(request.reason)
        roles = current_principal().roles
        return await self._command(
            requests.model_of(request.version, field="version"),
            request,
            lambda state, command: domain.decide_review(state, request, command, roles=roles),
            lambda model: service.ReviewVersionResponse(version=domain.version_of(model, request.version)),
        )

    async def ConsentToFormat(
        self, request: service.ConsentToFormatRequest, context: Context
    ) -> service.ConsentToFormatResponse:
        requests.require_reason(request.reason)
        return await self._command(
            requests.model_of(request.version, field="version"),
            request,
            lambda state, command: domain.decide_consent(state, request, command),
            lambda model: service.ConsentToFormatResponse(version=domain.version_of(model, request.version)),
        )

    async def SetGates(self, request: service.SetGatesRequest, context: Context) -> service.SetGatesResponse:
        MODEL_NAME.parse(request.model, field="model")
        requests.check_gates(request.gates)
        return await self._command(
            request.model,
            request,
            lambda state, command: domain.decide_gates(state, request, command),
            lambda model: service.SetGatesResponse(model=model),
        )

    async def GrantStandingApproval(
        self, request: service.GrantStandingApprovalRequest, context: Context
    ) -> service.GrantStandingApprovalResponse:
        MODEL_NAME.parse(request.model, field="model")
        requests.check_standing_approval(request.standing_approval)
        identity = request.standing_approval.id
        return await self._command(
            request.model,
            request,
            lambda state, command: domain.decide_grant(state, request, command),
            lambda model: service.GrantStandingApprovalResponse(
                standing_approval=domain.standing_approval_of(model, identity)
            ),
        )

    async def RevokeStandingApproval(
        self, request: service.RevokeStandingApprovalRequest, context: Context
    ) -> service.RevokeStandingApprovalResponse:
        MODEL_NAME.parse(request.model, field="model")
        parse_id(request.id, field="id")
        requests.require_reason(request.reason)
        return await self._command(
            request.model,
            request,
            lambda state, command: domain.decide_revoke(state, request, command),
            lambda model: service.RevokeStandingApprovalResponse(
                standing_approval=domain.standing_approval_of(model, request.id)
            ),
        )

    async def CheckPromotion(
        self, request: service.CheckPromotionRequest, context: Context
    ) -> service.CheckPromotionResponse:
        requests.require_alias(request.alias, field="alias")
        require_text(request.actor, field="actor", least=0, most=250)
        model = await self._model(requests.model_of(request.version, field="version"), field="version")
        version = domain.version_of(model, request.version)
        actor = request.actor or current_principal().id
        asked = requests.check_asked_gates(request, actor=current_principal().id)
        verdict = gates.judge(model, version, alias=request.alias, actor=actor, now=datetime.now(UTC), asked=asked)
        pointer = gates.find_alias(model, request.alias)
        return service.CheckPromotionResponse(
            unmet=verdict.unmet,
            results=verdict.results,
            standing_approval=verdict.standing_approval,
            revision=pointer.revision if pointer else 0,
            current_version=pointer.version if pointer else 0,
        )

    async def PromoteVersion(
        self, request: service.PromoteVersionRequest, context: Context
    ) -> service.PromoteVersionResponse:
        needed = request.override_gates
        requests.check_move(request.alias, request.expected_revision, request.reason, reason_needed=needed)
        roles = current_principal().roles
        return await self._command(
            requests.model_of(request.version, field="version"),
            request,
            lambda state, command: domain.decide_promotion(state, request, command, roles=roles),
            lambda model: service.PromoteVersionResponse(promotion=_last_move(model, request.alias)),
        )

    async def RollBackAlias(
        self, request: service.RollBackAliasRequest, context: Context
    ) -> service.RollBackAliasResponse:
        MODEL_NAME.parse(request.model, field="model")
        requests.check_move(request.alias, request.expected_revision, request.reason, reason_needed=True)
        requests.check_target(request)
        return await self._command(
            request.model,
            request,
            lambda state, command: rollbacks.decide(state, request, command),
            lambda model: service.RollBackAliasResponse(promotion=_last_move(model, request.alias)),
        )

    async def CheckRollback(
        self, request: service.CheckRollbackRequest, context: Context
    ) -> service.CheckRollbackResponse:
        MODEL_NAME.parse(request.model, field="model")
        requests.check_move(request.alias, -1, "", reason_needed=False)
        requests.check_target(request)
        model = await self._model(request.model, field="model")
        asker = CommandContext(command_id=uuid4(), actor=current_principal().id, now=datetime.now(UTC))
        return rollbacks.preview(model, request, asker)

    async def ArchiveVersion(
        self, request: service.ArchiveVersionRequest, context: Context
    ) -> service.ArchiveVersionResponse:
        require_text(request.reason, field="reason", least=0, most=2000, lines=True)
        return await self._command(
            requests.model_of(request.version, field="version"),
            request,
            lambda state, _: domain.decide_archive(state, request),
            lambda model: service.ArchiveVersionResponse(version=domain.version_of(model, request.version)),
        )

    async def PresignArtifact(
        self, request: service.PresignArtifactRequest, context: Context
    ) -> service.PresignArtifactResponse:
        model = await self._model(requests.model_of(request.version, field="version"), field="version")
        version = domain.version_of(model, request.version)
        artifact = await packages.part_of(self._objects, version, request.sha256)
        response = service.PresignArtifactResponse(url=self._objects.presign_get(artifact), artifact=artifact)
        response.expire_time.FromDatetime(datetime.now(UTC) + PRESIGN_TTL)
        return response

    async def UpdateModel(self, request: service.UpdateModelRequest, context: Context) -> service.UpdateModelResponse:
        MODEL_NAME.parse(request.model, field="model")
        requests.check_update(request)
        return await self._command(
            request.model,
            request,
            lambda state, command: upkeep.decide_update_model(state, request, command),
            lambda model: service.UpdateModelResponse(model=model),
        )

    async def RenameModel(self, request: service.RenameModelRequest, context: Context) -> service.RenameModelResponse:
        project = requests.check_rename(request)
        guarded = await self._models.is_guarded(project, request.display_name, besides=request.model)
        return await self._command(
            request.model,
            request,
            lambda state, command: names.decide_rename(state, request, command, guarded=guarded),
            lambda model: service.RenameModelResponse(model=model),
        )

    async def DeleteModel(self, request: service.DeleteModelRequest, context: Context) -> service.DeleteModelResponse:
        MODEL_NAME.parse(request.model, field="model")
        return await self._command(
            request.model,
            request,
            lambda state, command: domain.decide_delete_model(state, request.model, command.now),
            lambda model: service.DeleteModelResponse(model=model),
        )

    async def UpdateVersion(
        self, request: service.UpdateVersionRequest, context: Context
    ) -> service.UpdateVersionResponse:
        requests.check_update(request)
        return await self._command(
            requests.model_of(request.version, field="version"),
            request,
            lambda state, command: upkeep.decide_update_version(
                domain.version_of(state, request.version), request, command
            ),
            lambda model: service.UpdateVersionResponse(version=domain.version_of(model, request.version)),
        )

    async def WriteCard(self, request: service.WriteCardRequest, context: Context) -> service.WriteCardResponse:
        return await self._command(
            requests.check_card(request),
            request,
            lambda state, command: domain.decide_card(state, request, command),
            lambda model: service.WriteCardResponse(card=domain.carded(model, request.name).card),
        )

    async def DeleteVersion(
        self, request: service.DeleteVersionRequest, context: Context
    ) -> service.DeleteVersionResponse:
        name = requests.model_of(request.version, field="version")
        number = int(request.version.rpartition("/")[2]) if request.version.rpartition("/")[2].isdecimal() else 0
        return await self._command(
            name,
            request,
            lambda state, command: domain.decide_delete_version(state, request.version, command.now),
            lambda model: service.DeleteVersionResponse(version=model.versions[number - 1]),
        )

    async def RemoveAlias(self, request: service.RemoveAliasRequest, context: Context) -> service.RemoveAliasResponse:
        MODEL_NAME.parse(request.model, field="model")
        requests.check_move(request.alias, request.expected_revision, "", reason_needed=False)
        return await self._command(
            request.model,
            request,
            lambda state, command: domain.decide_remove_alias(state, request, command),
            lambda model: service.RemoveAliasResponse(model=model),
        )

    async def _command(self, model: str, request: Message, decide: Decide, respond: Callable[[Model], R]) -> R:
        # Every command has the field; protobuf has no name for that.
        command = command_context(request.command_id)  # type: ignore[attr-defined]
        try:
            return await self._store.execute(
                MODEL,
                model,
                context=command,
                request=request,
                decide=lambda state: decide(state, command),
                respond=respond,
            )
        except UniqueViolation as error:
            if error.constraint != "models_display_name":
                raise
            field = "display_name" if "display_name" in request.DESCRIPTOR.fields_by_name else "model"
            message = "another model of the project has this name for people"
            raise AlreadyExists(message, field=field, reason="NAME_TAKEN") from error

    async def _model(self, name: str, *, field: str) -> Model:
        loaded = await self._store.load(MODEL, name)
        if loaded is None or loaded[0].HasField("delete_time"):
            raise NotFound("model", name, field=field)
        return loaded[0]

    async def _require_stored(self, reference: ObjectRef, *, field: str) -> None:
        if not await holds(self._objects, reference):
            size = await self._objects.size(reference)
            found = "nothing lies there" if size is None else f"what lies there ({size} bytes) is something else"
            raise InvalidArgument(f"upload {reference.size_bytes} bytes to {reference.uri} first: {found}", field=field)


def _with_trust(model: Model, version: Version) -> service.GetVersionResponse:
    return service.GetVersionResponse(version=version, trust=signing.trust_of(model, version))


def _last_move(model: Model, alias: str) -> Promotion:
    pointer = gates.find_alias(model, alias)
    if pointer is None:
        raise NotFound("alias", alias, field="alias")
    return pointer.history[-1]
