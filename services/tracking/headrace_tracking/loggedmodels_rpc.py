"""Logged models over gRPC: request -> checks -> command or query -> response."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.resources_pb2 import LoggedModel
from headrace.api.tracking.v1.service_pb2_grpc import TrackingServiceServicer
from headrace_kit.context import CommandContext
from headrace_kit.errors import InvalidArgument
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.names import EXPERIMENT, PROJECT
from headrace_kit.objects import ObjectStore, holds
from headrace_kit.paging import page_of
from headrace_kit.rpc import command_context
from headrace_kit.validate import require_size
from headrace_tracking import loggedmodels, requests
from headrace_tracking.purging import Purger
from headrace_tracking.store import LOGGED_MODEL, RunStore

R = TypeVar("R", bound=Message)
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # Any: the messages of whichever method
Decide = Callable[[LoggedModel | None, CommandContext], Sequence[Message]]


class LoggedModelsRpc(TrackingServiceServicer):
    """Answers the calls on logged models.

    Args:
        store: The streams of logged models.
        runs: The read models.
        objects: Where their files lie.
        purger: Keeps what is about to be referred to.
    """

    def __init__(self, store: PostgresEventStore, runs: RunStore, objects: ObjectStore, purger: Purger) -> None:
        self._store, self._runs, self._objects, self._purger = store, runs, objects, purger

    async def CreateLoggedModel(
        self, request: service.CreateLoggedModelRequest, context: Context
    ) -> service.CreateLoggedModelResponse:
        requests.check_new_model(request)
        return await self._on_model(
            request.name,
            request,
            lambda state, command: loggedmodels.decide_create(state, request, command),
            lambda model: service.CreateLoggedModelResponse(model=model),
        )

    async def GetLoggedModel(
        self, request: service.GetLoggedModelRequest, context: Context
    ) -> service.GetLoggedModelResponse:
        requests.check_logged_model(request.name, field="name")
        return service.GetLoggedModelResponse(model=await self._logged_model(request.name))

    async def ListLoggedModels(
        self, request: service.ListLoggedModelsRequest, context: Context
    ) -> service.ListLoggedModelsResponse:
        project = PROJECT.parse(request.parent, field="parent")["project"]
        require_size(request.experiments, field="experiments", most=1000)
        for index, each in enumerate(request.experiments):
            EXPERIMENT.parse(each, field=f"experiments[{index}]")
        if request.run:
            requests.check_run(request.run)
        page = page_of(request)
        found = await self._runs.list_logged_models(
            project, experiments=request.experiments, run=request.run, after=page.after, limit=page.limit
        )
        token = page.token(found[-1].name, count=len(found)) if found else ""
        return service.ListLoggedModelsResponse(models=found, next_page_token=token)

    async def AnnotateLoggedModel(
        self, request: service.AnnotateLoggedModelRequest, context: Context
    ) -> service.AnnotateLoggedModelResponse:
        requests.check_annotation(request)
        return await self._on_model(
            request.model,
            request,
            lambda state, command: loggedmodels.decide_annotate(state, request, command),
            lambda model: service.AnnotateLoggedModelResponse(model=model),
        )

    async def LogModelArtifact(
        self, request: service.LogModelArtifactRequest, context: Context
    ) -> service.LogModelArtifactResponse:
        requests.check_artifact(request.artifact, project=requests.check_logged_model(request.model))
        await self._purger.keep(request.artifact.object.uri)
        await require_stored(self._objects, request.artifact.object)
        return await self._on_model(
            request.model,
            request,
            lambda state, command: loggedmodels.decide_artifact(state, request, command),
            lambda model: service.LogModelArtifactResponse(model=model),
        )

    async def FinishLoggedModel(
        self, request: service.FinishLoggedModelRequest, context: Context
    ) -> service.FinishLoggedModelResponse:
        requests.check_finished_model(request)
        return await self._on_model(
            request.model,
            request,
            lambda state, command: loggedmodels.decide_finish(state, request, command.now),
            lambda model: service.FinishLoggedModelResponse(model=model),
        )

    async def DeleteLoggedModel(
        self, request: service.DeleteLoggedModelRequest, context: Context
    ) -> service.DeleteLoggedModelResponse:
        requests.check_logged_model(request.model)
        return await self._on_model(
            request.model,
            request,
            lambda state, command: loggedmodels.decide_delete(state, request.model, command.now),
            lambda model: service.DeleteLoggedModelResponse(model=model),
        )

    async def _logged_model(self, name: str) -> LoggedModel:
        loaded = await self._store.load(LOGGED_MODEL, name)
        return loggedmodels.existing(loaded[0] if loaded else None, name)

    async def _on_model(self, name: str, request: Message, decide: Decide, respond: Callable[[LoggedModel], R]) -> R:
        # Every command has the field; protobuf has no name for that.
        command = command_context(request.command_id)  # type: ignore[attr-defined]
        return await self._store.execute(
            LOGGED_MODEL,
            name,
            context=command,
            request=request,
            decide=lambda state: decide(state, command),
            respond=respond,
        )


async def require_stored(objects: ObjectStore, wanted: ObjectRef) -> None:
    """Raises InvalidArgument when the store has not these bytes."""
    if not await holds(objects, wanted):
        raise InvalidArgument(
            f"upload {wanted.size_bytes} bytes of this digest to {wanted.uri} first", field="artifact.object"
        )
