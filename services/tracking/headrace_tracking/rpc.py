"""Tracking over gRPC: request -> checks -> command or query -> response."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message

from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.resources_pb2 import Artifact, MetricSummary, Run
from headrace_kit.context import CommandContext
from headrace_kit.errors import NotFound
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.eventstore.commands import request_hash
from headrace_kit.masks import picked
from headrace_kit.names import EXPERIMENT, PROJECT, require_text
from headrace_kit.objects import PRESIGN_TTL, ObjectStore
from headrace_kit.paging import page_of
from headrace_kit.rpc import command_context
from headrace_kit.validate import require_dataset, require_enum, require_range, require_size
from headrace_tracking import domain, requests
from headrace_tracking.census import Census
from headrace_tracking.census_rpc import CensusRpc
from headrace_tracking.filters import parse_filter, parse_order
from headrace_tracking.loggedmodels_rpc import LoggedModelsRpc, require_stored
from headrace_tracking.metrics import MetricWriter
from headrace_tracking.output_rpc import OutputRpc
from headrace_tracking.outputs import OutputStore
from headrace_tracking.pointstore import MetricCommand, PointStore
from headrace_tracking.purging import Purger
from headrace_tracking.purging_rpc import PurgingRpc
from headrace_tracking.spanintake import SpanIntake
from headrace_tracking.store import RUN, RunStore
from headrace_tracking.thinning import thin
from headrace_tracking.tracedeleting import TraceDeleter
from headrace_tracking.traces_rpc import TracesRpc
from headrace_tracking.tracestore import TraceStore
from headrace_tracking.uploads_rpc import UploadsRpc

R = TypeVar("R", bound=Message)
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # Any: the messages of whichever method
Decide = Callable[[Run | None, CommandContext], Sequence[Message]]
WATCH_POLL_S: Final = 0.25


class TrackingServicer(TracesRpc, LoggedModelsRpc, UploadsRpc, CensusRpc, OutputRpc, PurgingRpc):
    """Answers tracking's calls.

    Args:
        store: The streams of experiments and runs.
        runs: The read models.
        census: Queries over many runs.
        outputs: What runs wrote.
        points: The tables of metric points.
        writer: The way of metric points.
        purger: Removes runs for good.
        traces: The tables of traces.
        deleter: Removes traces for good.
        objects: Where artifacts lie.
    """

    def __init__(
        self,
        store: PostgresEventStore,
        runs: RunStore,
        points: PointStore,
        *,
        census: Census,
        outputs: OutputStore,
        writer: MetricWriter,
        purger: Purger,
        traces: TraceStore,
        deleter: TraceDeleter,
        objects: ObjectStore,
    ) -> None:
        self._store, self._runs, self._objects = store, runs, objects
        self._points, self._writer, self._purger = points, writer, purger
        self._census, self._outputs = census, outputs
        self._traces, self._deleter, self._intake = traces, deleter, SpanIntake(traces, deleter)

    async def StartRun(self, request: service.StartRunRequest, context: Context) -> service.StartRunResponse:
        requests.check_start(request)
        command = command_context(request.command_id)
        if not await self._has_experiment(request.experiment) and await self._store.load(RUN, request.name) is None:
            # Where the run is there, the call is refused, or is a repeat.
            await self._usable_experiment(request.experiment, command)
        history = await self._history(request) if request.forked_from else domain.NO_HISTORY
        return await self._command(
            request.name,
            request,
            lambda state, given: domain.decide_start(state, request, given, history=history),
            lambda run: service.StartRunResponse(run=run),
        )

    async def ResumeRun(self, request: service.ResumeRunRequest, context: Context) -> service.ResumeRunResponse:
        requests.check_run(request.run)
        return await self._command(
            request.run,
            request,
            lambda state, command: domain.decide_resume(state, request.run, command),
            lambda run: service.ResumeRunResponse(run=run),
        )

    async def FinishRun(self, request: service.FinishRunRequest, context: Context) -> service.FinishRunResponse:
        requests.check_finish(request)
        await self._writer.seal(request.run)  # the log tells a run's metrics before its end
        answer = await self._command(
            request.run,
            request,
            lambda state, command: domain.decide_finish(state, request, command),
            lambda run: service.FinishRunResponse(run=run),
        )
        self._writer.over(request.run)
        return answer

    async def LogParams(self, request: service.LogParamsRequest, context: Context) -> service.LogParamsResponse:
        requests.check_params(request)
        return await self._command(
            request.run,
            request,
            lambda state, _: domain.decide_params(state, request),
            lambda run: service.LogParamsResponse(run=run),
        )

    async def LogMetrics(self, request: service.LogMetricsRequest, context: Context) -> service.LogMetricsResponse:
        return service.LogMetricsResponse(count=await self._write(request))

    async def StreamMetrics(
        self, request_iterator: AsyncIterator[service.StreamMetricsRequest], context: Context
    ) -> AsyncIterator[service.StreamMetricsResponse]:
        async for request in request_iterator:
            yield service.StreamMetricsResponse(command_id=request.command_id, count=await self._write(request))

    async def ChangeTags(self, request: service.ChangeTagsRequest, context: Context) -> service.ChangeTagsResponse:
        requests.check_tags(request)
        return await self._command(
            request.run,
            request,
            lambda state, _: domain.decide_tags(state, request),
            lambda run: service.ChangeTagsResponse(run=run),
        )

    async def LogDataset(self, request: service.LogDatasetRequest, context: Context) -> service.LogDatasetResponse:
        requests.check_run(request.run)
        require_dataset(request.dataset, field="dataset")
        return await self._command(
            request.run,
            request,
            lambda state, _: domain.decide_dataset(state, request),
            lambda run: service.LogDatasetResponse(run=run),
        )

    async def LogArtifact(self, request: service.LogArtifactRequest, context: Context) -> service.LogArtifactResponse:
        requests.check_artifact(request.artifact, project=requests.check_run(request.run))
        await self._purger.keep(request.artifact.object.uri)
        await require_stored(self._objects, request.artifact.object)
        return await self._command(
            request.run,
            request,
            lambda state, command: domain.decide_artifact(state, request, command),
            lambda run: service.LogArtifactResponse(run=run),
        )

    async def PresignDownload(
        self, request: service.PresignDownloadRequest, context: Context
    ) -> service.PresignDownloadResponse:
        artifacts = await self._artifacts_of(request.run)
        artifact = next((each for each in artifacts if each.path == request.path), None)
        if artifact is None:
            raise NotFound("artifact", request.path[:500], field="path")
        url = self._objects.presign_get(artifact.object)
        response = service.PresignDownloadResponse(url=url, object=artifact.object)
        response.expire_time.FromDatetime(datetime.now(UTC) + PRESIGN_TTL)
        return response

    async def RenameRun(self, request: service.RenameRunRequest, context: Context) -> service.RenameRunResponse:
        requests.check_run(request.run)
        require_text(request.display_name, field="display_name", most=250)
        return await self._command(
            request.run,
            request,
            lambda state, _: domain.decide_rename(state, request),
            lambda run: service.RenameRunResponse(run=run),
        )

    async def DeleteRun(self, request: service.DeleteRunRequest, context: Context) -> service.DeleteRunResponse:
        requests.check_run(request.run)
        await self._writer.seal(request.run)
        response = await self._command(
            request.run,
            request,
            lambda state, command: domain.decide_delete(state, request.run, command),
            lambda run: service.DeleteRunResponse(run=run),
        )
        self._writer.forget(request.run)
        return response

    async def RestoreRun(self, request: service.RestoreRunRequest, context: Context) -> service.RestoreRunResponse:
        requests.check_run(request.run)
        return await self._command(
            request.run,
            request,
            lambda state, command: domain.decide_restore(state, request.run, command),
            lambda run: service.RestoreRunResponse(run=run),
        )

    async def LinkModels(self, request: service.LinkModelsRequest, context: Context) -> service.LinkModelsResponse:
        requests.check_links(request)
        return await self._command(
            request.run,
            request,
            lambda state, _: domain.decide_links(state, request),
            lambda run: service.LinkModelsResponse(run=run),
        )

    async def GetRun(self, request: service.GetRunRequest, context: Context) -> service.GetRunResponse:
        requests.check_run(request.name, field="name")
        [run] = picked([await self._run(request.name, field="name")], request.read_mask, kind=Run)
        return service.GetRunResponse(run=run)

    async def SearchRuns(self, request: service.SearchRunsRequest, context: Context) -> service.SearchRunsResponse:
        project = PROJECT.parse(request.parent, field="parent")["project"]
        require_text(request.filter, field="filter", least=0, most=4000, lines=True)
        require_text(request.order_by, field="order_by", least=0, most=1000, lines=True)
        require_size(request.experiments, field="experiments", most=1000)
        require_enum(request.view, field="view", names=requests.VIEWS)
        experiments = [*request.experiments, *([request.experiment] if request.experiment else ())]
        for each in experiments:
            EXPERIMENT.parse(each, field="experiment")
        require_range(request.skip, field="skip", least=0, most=10_000_000)
        page = page_of(request)
        found = await self._runs.search(
            project,
            experiments=experiments,
            condition=parse_filter(request.filter),
            orders=parse_order(request.order_by),
            after=page.after,
            skip=0 if page.after else request.skip,
            limit=page.limit,
            view=request.view,
        )
        if found.behind:
            await self._points.with_latest_metrics(found.behind)
        token = page.token(found.place, count=len(found.runs))
        shown = picked(found.runs, request.read_mask, kind=Run)
        return service.SearchRunsResponse(runs=shown, next_page_token=token)

    async def GetMetricHistory(
        self, request: service.GetMetricHistoryRequest, context: Context
    ) -> service.GetMetricHistoryResponse:
        requests.check_run(request.run)
        require_text(request.key, field="key", most=250)
        require_range(request.max_points, field="max_points", least=0, most=1_000_000)
        requests.check_thinning(request.thinning)
        run = await self._run(request.run, field="run")
        if request.key not in run.metrics:
            raise NotFound("metric", request.key, field="key")
        series = thin(await self._runs.series(request.run, request.key), request.max_points, request.thinning)
        return service.GetMetricHistoryResponse(steps=series.steps, times_us=series.times_us, values=series.values)

    async def WatchRun(
        self, request: service.WatchRunRequest, context: Context
    ) -> AsyncIterator[service.WatchRunResponse]:
        requests.check_run(request.run)
        seen = 0
        while True:
            run = await self._run(request.run, field="run")
            if run.revision != seen:
                seen = run.revision
                yield service.WatchRunResponse(run=run)
            if run.status in domain.ENDED:
                return
            await asyncio.sleep(WATCH_POLL_S)

    async def _history(self, request: service.StartRunRequest) -> Mapping[str, MetricSummary]:
        """What a fork begins with. Raises NotFound and FailedPrecondition for the run it goes on with."""
        loaded = await self._store.load(RUN, request.forked_from)
        domain.active(loaded[0] if loaded else None, request.forked_from, field="forked_from")
        return await self._runs.history(request.forked_from, up_to=request.fork_step)

    async def _write(self, request: service.LogMetricsRequest | service.StreamMetricsRequest) -> int:
        """Whichever way it comes: both messages have the same fields, and a command sent both ways is one."""
        requests.check_run(request.run)
        command = command_context(request.command_id)
        hashed = request_hash(request, name=service.LogMetricsRequest.DESCRIPTOR.full_name)
        points = requests.metric_points(request)
        return await self._writer.write(MetricCommand(request.run, command, hashed, points))

    async def _command(self, run: str, request: Message, decide: Decide, respond: Callable[[Run], R]) -> R:
        # Every command has the field; protobuf has no name for that.
        command = command_context(request.command_id)  # type: ignore[attr-defined]
        return await self._store.execute(
            RUN,
            run,
            context=command,
            request=request,
            decide=lambda state: decide(state, command),
            respond=respond,
        )

    async def _artifacts_of(self, owner: str) -> Sequence[Artifact]:
        """Files of a run or a logged model."""
        if "/loggedModels/" in owner:
            requests.check_logged_model(owner, field="run")
            return (await self._logged_model(owner)).artifacts
        requests.check_run(owner)
        return (await self._run(owner, field="run")).artifacts

    async def _run(self, name: str, *, field: str) -> Run:
        loaded = await self._store.load(RUN, name)
        run = domain.existing(loaded[0] if loaded else None, name, field=field)
        await self._points.with_latest_metrics([run])
        return run
