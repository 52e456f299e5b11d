"""Experiments over gRPC: request -> checks -> command or query -> response."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar
from uuid import uuid5

import grpc
from google.protobuf.message import Message

from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.resources_pb2 import Experiment
from headrace.api.tracking.v1.service_pb2_grpc import TrackingServiceServicer
from headrace_kit.context import CommandContext
from headrace_kit.errors import AlreadyExists, FailedPrecondition, NotFound
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.masks import picked
from headrace_kit.names import EXPERIMENT as EXPERIMENT_NAME
from headrace_kit.names import PROJECT, require_text
from headrace_kit.paging import page_of
from headrace_kit.postgres import UniqueViolation
from headrace_kit.rpc import command_context
from headrace_kit.validate import require_enum
from headrace_tracking import experiments, requests
from headrace_tracking.store import EXPERIMENT, RunStore

R = TypeVar("R", bound=Message)
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # Any: the messages of whichever method
Decide = Callable[[Experiment | None, CommandContext], Sequence[Message]]


class ExperimentsRpc(TrackingServiceServicer):
    """Answers the calls on experiments.

    Args:
        store: The streams of experiments.
        runs: The read models.
    """

    def __init__(self, store: PostgresEventStore, runs: RunStore) -> None:
        self._store, self._runs = store, runs

    async def CreateExperiment(
        self, request: service.CreateExperimentRequest, context: Context
    ) -> service.CreateExperimentResponse:
        requests.check_experiment(request)
        return await self._on_experiment(
            request.name,
            request,
            lambda state, command: experiments.decide_create(state, request, command),
            lambda found: service.CreateExperimentResponse(experiment=found),
        )

    async def GetExperiment(
        self, request: service.GetExperimentRequest, context: Context
    ) -> service.GetExperimentResponse:
        if request.name:
            EXPERIMENT_NAME.parse(request.name, field="name")
            return service.GetExperimentResponse(experiment=await self._experiment(request.name))
        project = PROJECT.parse(request.parent, field="parent")["project"]
        require_text(request.display_name, field="display_name", least=0, most=500)
        name = await self._runs.experiment_named(project, display_name=request.display_name, number=request.number)
        if name is None:
            raise NotFound("experiment", request.display_name or str(request.number), field="display_name")
        return service.GetExperimentResponse(experiment=await self._experiment(name))

    async def UpdateExperiment(
        self, request: service.UpdateExperimentRequest, context: Context
    ) -> service.UpdateExperimentResponse:
        requests.check_experiment_update(request)
        return await self._on_experiment(
            request.experiment,
            request,
            lambda state, command: experiments.decide_update(state, request, command),
            lambda found: service.UpdateExperimentResponse(experiment=found),
        )

    async def DeleteExperiment(
        self, request: service.DeleteExperimentRequest, context: Context
    ) -> service.DeleteExperimentResponse:
        EXPERIMENT_NAME.parse(request.experiment, field="experiment")
        return await self._on_experiment(
            request.experiment,
            request,
            lambda state, command: experiments.decide_delete(state, request.experiment, command.now),
            lambda found: service.DeleteExperimentResponse(experiment=found),
        )

    async def RestoreExperiment(
        self, request: service.RestoreExperimentRequest, context: Context
    ) -> service.RestoreExperimentResponse:
        EXPERIMENT_NAME.parse(request.experiment, field="experiment")
        return await self._on_experiment(
            request.experiment,
            request,
            lambda state, command: experiments.decide_restore(state, request.experiment, command.now),
            lambda found: service.RestoreExperimentResponse(experiment=found),
        )

    async def ListExperiments(
        self, request: service.ListExperimentsRequest, context: Context
    ) -> service.ListExperimentsResponse:
        project = PROJECT.parse(request.parent, field="parent")["project"]
        require_enum(request.view, field="view", names=requests.VIEWS)
        page = page_of(request)
        found = await self._runs.list_experiments(project, after=page.after, limit=page.limit, view=request.view)
        token = page.token(found[-1].name, count=len(found)) if found else ""
        shown = picked(found, request.read_mask, kind=Experiment)
        return service.ListExperimentsResponse(experiments=shown, next_page_token=token)

    async def _has_experiment(self, name: str) -> bool:
        """Whether it is there and in use."""
        loaded = await self._store.load(EXPERIMENT, name)
        return loaded is not None and not loaded[0].HasField("delete_time")

    async def _usable_experiment(self, name: str, command: CommandContext) -> None:
        """Creates the experiment of a run or a trace when there is none; its command follows from the other's.

        Raises:
            FailedPrecondition: It was put away.
        """
        loaded = await self._store.load(EXPERIMENT, name)
        if loaded is not None:
            if loaded[0].HasField("delete_time"):
                raise FailedPrecondition(
                    f"{name} was put away: restore it first", field="experiment", reason="EXPERIMENT_DELETED"
                )
            return
        own = CommandContext(
            command_id=uuid5(command.command_id, name),
            actor=command.actor,
            now=command.now,
            on_behalf_of=command.on_behalf_of,
            causation_id=command.causation_id,
            correlation_id=command.correlation_id,
            traceparent=command.traceparent,
            hlc=command.hlc,
        )
        await self._store.execute(
            EXPERIMENT,
            name,
            context=own,
            request=service.ListExperimentsRequest(parent=name),
            decide=lambda state: experiments.decide_first_run(state, name, own),
            respond=lambda experiment: experiment,
        )

    async def _on_experiment(
        self, name: str, request: Message, decide: Decide, respond: Callable[[Experiment], R]
    ) -> R:
        # Every command has the field; protobuf has no name for that.
        command = command_context(request.command_id)  # type: ignore[attr-defined]
        try:
            return await self._store.execute(
                EXPERIMENT,
                name,
                context=command,
                request=request,
                decide=lambda state: decide(state, command),
                respond=respond,
            )
        except UniqueViolation as error:
            if error.constraint != "experiments_display_name":
                raise
            raise AlreadyExists("another experiment has this name", field="display_name") from error

    async def _experiment(self, name: str) -> Experiment:
        loaded = await self._store.load(EXPERIMENT, name)
        if loaded is None:
            raise NotFound("experiment", name, field="name")
        return loaded[0]
