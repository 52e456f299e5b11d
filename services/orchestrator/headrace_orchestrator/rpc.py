"""The orchestrator over gRPC: request -> checks -> command or query -> response."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message

from headrace.api.orchestrator.v1 import resources_pb2 as resources
from headrace.api.orchestrator.v1 import service_pb2 as service
from headrace.api.orchestrator.v1.service_pb2_grpc import OrchestratorServiceServicer
from headrace_kit.context import CommandContext
from headrace_kit.errors import FailedPrecondition, NotFound
from headrace_kit.eventstore import EventStore
from headrace_kit.masks import picked
from headrace_kit.names import PIPELINE as PIPELINE_NAME
from headrace_kit.names import PIPELINE_RUN, PROJECT, parse_id, require_text
from headrace_kit.paging import page_of
from headrace_kit.rpc import command_context, parse_uuid
from headrace_kit.validate import require_range
from headrace_orchestrator import definitions, domain
from headrace_orchestrator.leading import Leader
from headrace_orchestrator.logs import StepLogs
from headrace_orchestrator.outputs import Outputs
from headrace_orchestrator.store import PIPELINE, RUN, OrchestratorStore

R = TypeVar("R", bound=Message)
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # Any: the messages of whichever method
Decide = Callable[[resources.Pipeline | None, CommandContext], Sequence[Message]]
MAX_OFFSET = 1 << 40


class OrchestratorServicer(OrchestratorServiceServicer):
    """Answers the calls about pipelines and runs.

    Args:
        leader: Who carries commands out.
        store: The streams.
        reads: The read model.
        outputs: Where large outputs lie.
        logs: What steps wrote.
    """

    def __init__(
        self, leader: Leader, store: EventStore, reads: OrchestratorStore, *, outputs: Outputs, logs: StepLogs
    ) -> None:
        self._leader, self._store, self._reads, self._outputs, self._logs = leader, store, reads, outputs, logs

    async def RegisterPipeline(
        self, request: service.RegisterPipelineRequest, context: Context
    ) -> service.RegisterPipelineResponse:
        PIPELINE_NAME.parse(request.name, field="name")
        return await self._change(
            request.name,
            request,
            lambda state, command: definitions.decide_register(state, request, command),
            lambda pipeline: service.RegisterPipelineResponse(pipeline=pipeline),
        )

    async def GetPipeline(self, request: service.GetPipelineRequest, context: Context) -> service.GetPipelineResponse:
        PIPELINE_NAME.parse(request.name, field="name")
        loaded = await self._store.load(PIPELINE, request.name)
        if loaded is None:
            raise NotFound("pipeline", request.name, field="name")
        return service.GetPipelineResponse(pipeline=loaded[0])

    async def ListPipelines(
        self, request: service.ListPipelinesRequest, context: Context
    ) -> service.ListPipelinesResponse:
        project = PROJECT.parse(request.parent, field="parent")["project"]
        page = page_of(request)
        found = await self._reads.list_pipelines(project, after=page.after, limit=page.limit)
        token = page.token(found[-1].name, count=len(found)) if found else ""
        shown = picked(found, request.read_mask, kind=resources.Pipeline)
        return service.ListPipelinesResponse(pipelines=shown, next_page_token=token)

    async def SetSchedule(self, request: service.SetScheduleRequest, context: Context) -> service.SetScheduleResponse:
        PIPELINE_NAME.parse(request.pipeline, field="pipeline")
        parse_id(request.schedule.id, field="schedule.id")
        return await self._change(
            request.pipeline,
            request,
            lambda state, command: definitions.decide_set_schedule(state, request, command),
            lambda pipeline: service.SetScheduleResponse(pipeline=pipeline),
        )

    async def RemoveSchedule(
        self, request: service.RemoveScheduleRequest, context: Context
    ) -> service.RemoveScheduleResponse:
        PIPELINE_NAME.parse(request.pipeline, field="pipeline")
        parse_id(request.id, field="id")
        return await self._change(
            request.pipeline,
            request,
            lambda state, _: definitions.decide_remove_schedule(state, request),
            lambda pipeline: service.RemoveScheduleResponse(pipeline=pipeline),
        )

    async def SetTrigger(self, request: service.SetTriggerRequest, context: Context) -> service.SetTriggerResponse:
        PIPELINE_NAME.parse(request.pipeline, field="pipeline")
        parse_id(request.trigger.id, field="trigger.id")
        return await self._change(
            request.pipeline,
            request,
            lambda state, _: definitions.decide_set_trigger(state, request),
            lambda pipeline: service.SetTriggerResponse(pipeline=pipeline),
        )

    async def RemoveTrigger(
        self, request: service.RemoveTriggerRequest, context: Context
    ) -> service.RemoveTriggerResponse:
        PIPELINE_NAME.parse(request.pipeline, field="pipeline")
        parse_id(request.id, field="id")
        return await self._change(
            request.pipeline,
            request,
            lambda state, _: definitions.decide_remove_trigger(state, request),
            lambda pipeline: service.RemoveTriggerResponse(pipeline=pipeline),
        )

    async def StartPipelineRun(
        self, request: service.StartPipelineRunRequest, context: Context
    ) -> service.StartPipelineRunResponse:
        command = command_context(request.command_id)
        PIPELINE_NAME.parse(request.pipeline, field="pipeline")
        lead = await self._leader.lead()
        return await lead.scheduler.start(request, cause="manual", context=command)

    async def GetPipelineRun(
        self, request: service.GetPipelineRunRequest, context: Context
    ) -> service.GetPipelineRunResponse:
        _require_run(request.name, field="name")
        return service.GetPipelineRunResponse(run=await self._run(request.name, field="name"))

    async def ListPipelineRuns(
        self, request: service.ListPipelineRunsRequest, context: Context
    ) -> service.ListPipelineRunsResponse:
        project = PROJECT.parse(request.parent, field="parent")["project"]
        if request.pipeline:
            PIPELINE_NAME.parse(request.pipeline, field="pipeline")
        page = page_of(request)
        found = await self._reads.list_runs(project, pipeline=request.pipeline, before=page.after, limit=page.limit)
        token = page.token(found[-1].name, count=len(found)) if found else ""
        shown = picked(found, request.read_mask, kind=resources.PipelineRun)
        return service.ListPipelineRunsResponse(runs=shown, next_page_token=token)

    async def CancelPipelineRun(
        self, request: service.CancelPipelineRunRequest, context: Context
    ) -> service.CancelPipelineRunResponse:
        command = command_context(request.command_id)
        _require_run(request.run, field="run")
        require_text(request.reason, field="reason", least=0, most=2000, lines=True)
        lead = await self._leader.lead()
        return await lead.scheduler.cancel(request, command)

    async def ResumePipelineRun(
        self, request: service.ResumePipelineRunRequest, context: Context
    ) -> service.ResumePipelineRunResponse:
        command = command_context(request.command_id)
        _require_run(request.run, field="run")
        lead = await self._leader.lead()
        return await lead.scheduler.resume(request, command)

    async def WatchPipelineRun(
        self, request: service.WatchPipelineRunRequest, context: Context
    ) -> AsyncIterator[service.WatchPipelineRunResponse]:
        _require_run(request.run, field="run")
        lead = await self._leader.lead()
        async for run in lead.scheduler.watch(request.run):
            yield service.WatchPipelineRunResponse(run=run)

    async def GetStepOutput(
        self, request: service.GetStepOutputRequest, context: Context
    ) -> service.GetStepOutputResponse:
        _require_run(request.run, field="run")
        run = await self._run(request.run, field="run")
        step = domain.step_state(run, request.step)
        if step.status != resources.STEP_STATUS_COMPLETED:
            raise FailedPrecondition(f"step {step.id} is not completed", field="step", reason="STEP_NOT_COMPLETED")
        return service.GetStepOutputResponse(json=await self._outputs.read(step.output))

    async def ReadStepLogs(
        self, request: service.ReadStepLogsRequest, context: Context
    ) -> service.ReadStepLogsResponse:
        _require_run(request.run, field="run")
        require_range(request.offset, field="offset", least=0, most=MAX_OFFSET)
        run = await self._run(request.run, field="run")
        step = domain.step_state(run, request.step)
        require_range(request.attempt, field="attempt", least=0, most=max(step.attempt, 0))
        attempt = request.attempt or step.attempt
        under_way = attempt == step.attempt and step.status in (
            resources.STEP_STATUS_LEASED,
            resources.STEP_STATUS_READY,
            resources.STEP_STATUS_PENDING,
        )
        found = self._logs.read(request.run, request.step, attempt=attempt, offset=request.offset)
        return service.ReadStepLogsResponse(
            text=found.text, next_offset=found.next_offset, end=found.end and not under_way
        )

    async def _change(
        self, name: str, request: Message, decide: Decide, respond: Callable[[resources.Pipeline], R]
    ) -> R:
        # Every command has the field; protobuf has no name for that.
        command = command_context(request.command_id)  # type: ignore[attr-defined]
        lead = await self._leader.lead()
        after: list[resources.Pipeline] = []

        def answer(state: resources.Pipeline) -> R:
            after[:] = [state]
            return respond(state)

        response = await lead.scheduler.change_pipeline(
            name, context=command, request=request, decide=lambda state: decide(state, command), respond=answer
        )
        for pipeline in after:
            lead.automation.follow(pipeline)
        return response

    async def _run(self, name: str, *, field: str) -> resources.PipelineRun:
        loaded = await self._store.load(RUN, name)
        if loaded is None:
            raise NotFound("pipeline run", name, field=field)
        return loaded[0]


def _require_run(name: str, *, field: str) -> None:
    parse_uuid(PIPELINE_RUN.parse(name, field=field)["run"], field=field)
