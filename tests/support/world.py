"""A small world on a platform: one of everything, and for every RPC a request about it that is right."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from uuid import uuid4

import httpx2
import numpy as np
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.audit.v1 import service_pb2 as audit
from headrace.api.common.v1 import resources_pb2 as common
from headrace.api.common.v1 import telemetry_pb2 as batches
from headrace.api.monitor.v1 import resources_pb2 as monitors
from headrace.api.monitor.v1 import service_pb2 as monitor
from headrace.api.orchestrator.v1 import resources_pb2 as pipelines
from headrace.api.orchestrator.v1 import service_pb2 as orchestrator
from headrace.api.registry.v1 import resources_pb2 as models
from headrace.api.registry.v1 import service_pb2 as registry
from headrace.api.serving.v1 import resources_pb2 as endpoints
from headrace.api.serving.v1 import service_pb2 as serving
from headrace.api.tracking.v1 import resources_pb2 as runs
from headrace.api.tracking.v1 import service_pb2 as tracking
from headrace.client import Client
from headrace.inference import grpc_service_pb2 as oip
from headrace.kafka.batches import Labels, Predictions, encode_labels, encode_predictions
from headrace.kafka.columns import ColumnData
from headrace.kafka.shards import shard_of
from headrace.packages.files import SINGLE
from headrace_registry.webhooks import CHANGEABLE
from tests.support.eventually import eventually
from tests.support.serving import COLUMNS, command_id, package, signature
from tests.support.signing import KeyPair

EXPIRES_S = 4_000_000_000
"""A time that is long to come, seconds since 1970."""
SIGNING_KEY = KeyPair.make()
PIPELINE = pipelines.PipelineDefinition(
    entrypoint="somewhere.else:pipeline",
    steps=[pipelines.StepDefinition(id="first", function="somewhere.else:first", timeout_s=5)],
    parameters=[pipelines.ParameterDefinition(name="days", type="int", default_json="7")],
)


@dataclass(frozen=True, slots=True)
class World:
    """Resource names of what there is."""

    project: str
    run: str
    ended_run: str
    logged_model: str
    trace: str
    artifact: common.ObjectRef
    profile: common.ObjectRef
    model: str
    endpoint: str
    monitor: str
    pipeline: str
    pipeline_run: str
    webhook: str

    @property
    def parent(self) -> str:
        """Of all of it."""
        return f"projects/{self.project}"

    @property
    def version(self) -> str:
        """The version that the endpoint answers with."""
        return f"{self.model}/versions/1"

    @property
    def config(self) -> monitors.MonitorConfig:
        """Settings of a monitor."""
        return monitors.MonitorConfig(
            task=monitors.TASK_KIND_REGRESSION, prediction_column="variable", reference_profile=self.profile
        )

    @property
    def served(self) -> str:
        """The endpoint as the inference protocol calls it."""
        return f"{self.project}/{self.endpoint.rpartition('/')[2]}"

    def fresh(self, kind: str) -> str:
        """The name of something that there is not yet."""
        return f"{self.parent}/{kind}/{uuid4()}"

    def valid(self, full_name: str) -> Message:
        """A request that nothing is wrong with, by the full name of its method; its command id is new each time."""
        service, _, name = full_name.rpartition(".")
        found = _BY_SERVICE[service](self)[name]()
        if "command_id" in found.DESCRIPTOR.fields_by_name:
            found.MergeFrom(type(found)(command_id=command_id()))
        return found


def build(client: Client, author: Client, project: str) -> World:
    """Makes a world in an empty project; the versions are ``author``'s, for whom the client may set gates."""
    parent = f"projects/{project}"
    content = package(1.0)
    world = World(
        project=project,
        run=f"{parent}/runs/{uuid4()}",
        ended_run=f"{parent}/runs/{uuid4()}",
        logged_model=f"{parent}/loggedModels/m-{uuid4().hex}",
        trace=f"{parent}/traces/{uuid4().hex}",
        artifact=_upload(client, parent, content),
        profile=_upload(client, parent, monitors.ReferenceProfile(error_edges=[1.0, 2.0]).SerializeToString()),
        model=f"{parent}/models/delays",
        endpoint=f"{parent}/endpoints/delays",
        monitor=f"{parent}/monitors/delays",
        pipeline=f"{parent}/pipelines/retrain",
        pipeline_run="",
        webhook="",
    )
    for name in (world.run, world.ended_run):
        client.tracking.StartRun(
            tracking.StartRunRequest(command_id=command_id(), name=name, experiment=f"{parent}/experiments/first")
        )
    model = tracking.CreateLoggedModelRequest(
        command_id=command_id(), name=world.logged_model, experiment=f"{parent}/experiments/first", display_name="m"
    )
    client.tracking.CreateLoggedModel(model)
    _call(client.tracking, world, "headrace.api.tracking.v1.TrackingService", "LogMetrics", "LogArtifact", "LogSpans")
    for _ in range(2):
        register = _registry(world)["CreateVersion"]()
        assert isinstance(register, registry.CreateVersionRequest)
        register.command_id, register.create_model = command_id(), True
        author.registry.CreateVersion(register)
    _call(client.registry, world, "headrace.api.registry.v1.RegistryService", "SetGates", "PromoteVersion")
    _call(client.signing, world, "headrace.api.registry.v1.SigningService", "TrustKey")
    create = serving.CreateEndpointRequest(command_id=command_id(), name=world.endpoint, model=world.model)
    client.serving.CreateEndpoint(create)
    watch = monitor.CreateMonitorRequest(
        command_id=command_id(), name=world.monitor, endpoint="delays", config=world.config
    )
    client.monitor.CreateMonitor(watch)
    _call(
        client.orchestrator,
        world,
        "headrace.api.orchestrator.v1.OrchestratorService",
        *("RegisterPipeline", "SetSchedule", "SetTrigger"),
    )
    started = client.orchestrator.StartPipelineRun(
        orchestrator.StartPipelineRunRequest(command_id=command_id(), pipeline=world.pipeline)
    )
    hook = _webhooks(world)["CreateWebhook"]()
    assert isinstance(hook, registry.CreateWebhookRequest)
    hook.command_id, hook.webhook.status = command_id(), models.WEBHOOK_STATUS_DISABLED
    webhook = client.webhooks.CreateWebhook(hook).webhook.name
    eventually(lambda: client.inference.ModelReady(oip.ModelReadyRequest(name=world.served)).ready)
    return replace(world, pipeline_run=started.run.name, webhook=webhook)


def _call(stub: object, world: World, service: str, *names: str) -> None:
    for name in names:
        getattr(stub, name)(world.valid(f"{service}.{name}"))


def _upload(client: Client, parent: str, content: bytes) -> common.ObjectRef:
    presigned = client.tracking.PresignUpload(
        tracking.PresignUploadRequest(
            parent=parent,
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
            media_type="application/onnx",
        )
    )
    if presigned.url:
        httpx2.put(presigned.url, content=content).raise_for_status()
    return presigned.object


DATASET = common.DatasetVersion(
    name="flights", digest="sha256:1", columns=[common.DatasetColumn(name="hour", type="int64")]
)
Requests = dict[str, Callable[[], Message]]


def _tracking(world: World) -> Requests:
    run = world.run
    point = runs.MetricPoint(key="loss", value=0.5, step=1)
    return {
        "StartRun": lambda: tracking.StartRunRequest(
            name=world.fresh("runs"),
            experiment=f"{world.parent}/experiments/{uuid4()}",
            tags={"team": "ops"},
            environment=runs.Environment(packages=[runs.Package(name="p", version="1")]),
        ),
        "ResumeRun": lambda: tracking.ResumeRunRequest(run=world.ended_run),
        "FinishRun": lambda: tracking.FinishRunRequest(run=world.ended_run, status=runs.RUN_STATUS_FINISHED),
        "LogParams": lambda: tracking.LogParamsRequest(run=run, params={"depth": "3"}),
        "LogMetrics": lambda: tracking.LogMetricsRequest(run=run, points=[point]),
        "StreamMetrics": lambda: tracking.StreamMetricsRequest(run=run, points=[point]),
        "LogOutput": lambda: tracking.LogOutputRequest(
            run=run,
            chunks=[runs.OutputChunk(time_us=time.time_ns() // 1000, stream=runs.OUTPUT_STREAM_STDOUT, content=b"a\n")],
        ),
        "ReadOutput": lambda: tracking.ReadOutputRequest(run=run),
        "FollowOutput": lambda: tracking.FollowOutputRequest(run=run),
        "ChangeTags": lambda: tracking.ChangeTagsRequest(run=run, set={"team": "ops"}, removed=["none"]),
        "LogDataset": lambda: tracking.LogDatasetRequest(run=run, dataset=DATASET),
        "LogArtifact": lambda: tracking.LogArtifactRequest(
            run=run, artifact=runs.Artifact(path="model/model.onnx", object=world.artifact)
        ),
        "PresignUpload": lambda: tracking.PresignUploadRequest(
            parent=world.parent, sha256=hashlib.sha256(uuid4().bytes).hexdigest(), size_bytes=9, media_type="text/plain"
        ),
        "BeginUpload": lambda: tracking.BeginUploadRequest(
            parent=world.parent, sha256=hashlib.sha256(uuid4().bytes).hexdigest(), size_bytes=9, media_type="text/plain"
        ),
        "CompleteUpload": lambda: tracking.CompleteUploadRequest(
            parent=world.parent,
            sha256=world.artifact.sha256,
            size_bytes=world.artifact.size_bytes,
            upload_id="completed before",
        ),
        "AbortUpload": lambda: tracking.AbortUploadRequest(
            parent=world.parent, sha256=world.artifact.sha256, upload_id="none"
        ),
        "PresignDownload": lambda: tracking.PresignDownloadRequest(run=run, path="model/model.onnx"),
        "GetRun": lambda: tracking.GetRunRequest(name=run),
        "SearchRuns": lambda: tracking.SearchRunsRequest(
            parent=world.parent,
            filter='metric.loss < 1 and status = "RUNNING"',
            order_by="start_time desc",
            page_size=2,
        ),
        "GetMetricHistory": lambda: tracking.GetMetricHistoryRequest(run=run, key="loss", max_points=10),
        "GetMetricHistories": lambda: tracking.GetMetricHistoriesRequest(
            runs=[run], key="loss", max_points=10, x_key="loss"
        ),
        "GetRunKeys": lambda: tracking.GetRunKeysRequest(parent=world.parent, filter="metric.loss < 1"),
        "GetRunGroups": lambda: tracking.GetRunGroupsRequest(
            parent=world.parent, group_by="tag.team", values="metric.loss, duration_s"
        ),
        "ListExperiments": lambda: tracking.ListExperimentsRequest(parent=world.parent, page_size=2),
        "WatchRun": lambda: tracking.WatchRunRequest(run=run),
        "RenameRun": lambda: tracking.RenameRunRequest(run=run, display_name="the first"),
        "DeleteRun": lambda: tracking.DeleteRunRequest(run=world.fresh("runs")),
        "RestoreRun": lambda: tracking.RestoreRunRequest(run=run),
        "PurgeRuns": lambda: tracking.PurgeRunsRequest(
            parent=world.parent, deleted_before=Timestamp(seconds=1), limit=2, validate_only=True
        ),
        "LinkModels": lambda: tracking.LinkModelsRequest(
            run=run, outputs=[runs.ModelLink(model=world.logged_model, step=1)]
        ),
        **_experiments(world),
        **_logged_models(world),
        **_traces(world),
    }


def _experiments(world: World) -> Requests:
    first = f"{world.parent}/experiments/first"
    return {
        "CreateExperiment": lambda: tracking.CreateExperimentRequest(
            name=world.fresh("experiments"), tags={"team": "ops"}
        ),
        "GetExperiment": lambda: tracking.GetExperimentRequest(parent=world.parent, display_name="first"),
        "UpdateExperiment": lambda: tracking.UpdateExperimentRequest(
            experiment=first, set={"team": "ops"}, removed=["none"]
        ),
        "DeleteExperiment": lambda: tracking.DeleteExperimentRequest(experiment=world.fresh("experiments")),
        "RestoreExperiment": lambda: tracking.RestoreExperimentRequest(experiment=first),
    }


def _logged_models(world: World) -> Requests:
    model, experiment = world.logged_model, f"{world.parent}/experiments/first"
    metric = runs.ModelMetric(key="loss", value=0.5, run=world.run)
    metric.time.FromSeconds(1_700_000_000)
    return {
        "CreateLoggedModel": lambda: tracking.CreateLoggedModelRequest(
            name=world.fresh("loggedModels"), experiment=experiment, display_name="m", run=world.run, tags={"a": "b"}
        ),
        "GetLoggedModel": lambda: tracking.GetLoggedModelRequest(name=model),
        "ListLoggedModels": lambda: tracking.ListLoggedModelsRequest(
            parent=world.parent, experiments=[experiment], run=world.run, page_size=2
        ),
        "AnnotateLoggedModel": lambda: tracking.AnnotateLoggedModelRequest(
            model=model, params={"depth": "3"}, set={"team": "ops"}, removed=["none"], metrics=[metric]
        ),
        "LogModelArtifact": lambda: tracking.LogModelArtifactRequest(
            model=model, artifact=runs.Artifact(path="model.onnx", object=world.artifact)
        ),
        "FinishLoggedModel": lambda: tracking.FinishLoggedModelRequest(
            model=model, status=runs.LOGGED_MODEL_STATUS_READY
        ),
        "DeleteLoggedModel": lambda: tracking.DeleteLoggedModelRequest(model=world.fresh("loggedModels")),
    }


def _traces(world: World) -> Requests:
    experiment, identity = f"{world.parent}/experiments/first", world.trace.rpartition("/")[2]
    began = time.time_ns() - 1_000_000_000
    other = runs.SpanLink(trace_id="ab" * 16, span_id="cd" * 8, attributes={"why": '"retry"'})
    span = runs.Span(
        trace_id=identity,
        span_id="12" * 8,
        parent_span_id="34" * 8,
        name="ask",
        start_time_ns=began,
        end_time_ns=began + 1_000_000,
        attributes={"model": '"m"'},
        events=[runs.SpanEvent(name="token", time_ns=began, attributes={"n": "1"})],
        links=[other],
        resource={"service.name": '"app"'},
    )
    told = tracking.LogTraceRequest(
        trace=world.trace, experiment=experiment, run=world.run, state=runs.TRACE_STATE_OK, tags={"team": "ops"}
    )
    told.start_time.FromNanoseconds(began)
    return {
        "LogSpans": lambda: tracking.LogSpansRequest(experiment=experiment, run=world.run, spans=[span]),
        "LogTrace": lambda: told,
        "GetTrace": lambda: tracking.GetTraceRequest(name=world.trace),
        "ListSpans": lambda: tracking.ListSpansRequest(trace=world.trace, page_size=2),
        "SearchTraces": lambda: tracking.SearchTracesRequest(
            parent=world.parent, filter='status = "OK"', order_by="duration_s", page_size=2, experiments=[experiment]
        ),
        "ChangeTraceTags": lambda: tracking.ChangeTraceTagsRequest(
            trace=world.trace, set={"team": "ops"}, removed=["none"]
        ),
        "DeleteTraces": lambda: tracking.DeleteTracesRequest(
            experiment=experiment, traces=[f"{world.parent}/traces/{uuid4().hex}"], limit=2
        ),
    }


def _registry(world: World) -> Requests:
    model, version = world.model, world.version
    approval = models.StandingApproval(
        id="auto", alias="production", grantees=["services/serving"], reason="it was tried for long"
    )
    approval.expire_time.FromSeconds(EXPIRES_S)
    gates = models.Gates(
        alias="production",
        metrics=[models.MetricGate(metric="rmse", comparison=models.COMPARISON_AT_MOST, threshold=25)],
        champion=[models.ChampionGate(metric="rmse")],
        safe_format_required=True,
    )
    return {
        "CreateModel": lambda: registry.CreateModelRequest(name=world.fresh("models")),
        "GetModel": lambda: registry.GetModelRequest(name=model),
        "ListModels": lambda: registry.ListModelsRequest(parent=world.parent, page_size=2),
        "CreateVersion": lambda: registry.CreateVersionRequest(
            model=model,
            artifact=world.artifact,
            format=models.MODEL_FORMAT_ONNX,
            signature=signature(),
            datasets=[DATASET],
            reference_profile=world.profile,
            metrics=[common.NamedValue(name="rmse", value=20.0)],
        ),
        "GetVersion": lambda: registry.GetVersionRequest(name=version),
        "ListVersions": lambda: registry.ListVersionsRequest(parent=model, page_size=2),
        "RecordValidation": lambda: registry.RecordValidationRequest(
            version=version,
            check="quality",
            passed=True,
            dataset=DATASET,
            metrics=[common.NamedValue(name="rmse", value=20.0)],
            replay=models.Replay(endpoint=world.endpoint, champion=1, requests=10, digest="0" * 64),
        ),
        "ReviewVersion": lambda: registry.ReviewVersionRequest(version=version, approve=True, reason="looked at it"),
        "ConsentToFormat": lambda: registry.ConsentToFormatRequest(version=version, given=True, reason="we made it"),
        "SetGates": lambda: registry.SetGatesRequest(model=model, gates=gates),
        "GrantStandingApproval": lambda: registry.GrantStandingApprovalRequest(model=model, standing_approval=approval),
        "RevokeStandingApproval": lambda: registry.RevokeStandingApprovalRequest(model=model, id="auto", reason="over"),
        "CheckPromotion": lambda: registry.CheckPromotionRequest(version=version, alias="production", gates=gates),
        "PromoteVersion": lambda: registry.PromoteVersionRequest(
            version=version, alias="production", expected_revision=-1
        ),
        "RollBackAlias": lambda: registry.RollBackAliasRequest(
            model=model, alias="staging", expected_revision=-1, reason="worse"
        ),
        "CheckRollback": lambda: registry.CheckRollbackRequest(model=model, alias="staging"),
        "ArchiveVersion": lambda: registry.ArchiveVersionRequest(version=version, reason="old"),
        "PresignArtifact": lambda: registry.PresignArtifactRequest(version=version),
        "UpdateModel": lambda: registry.UpdateModelRequest(
            model=model, description="late flights", set={"team": "ops"}, removed=["none"]
        ),
        "RenameModel": lambda: registry.RenameModelRequest(model=model, display_name=f"Delays {uuid4().hex}"),
        "WriteCard": lambda: registry.WriteCardRequest(
            name=model, card=models.ModelCard(markdown="# Delays", limits="winter"), expected_revision=-1
        ),
        "DeleteModel": lambda: registry.DeleteModelRequest(model=world.fresh("models")),
        "UpdateVersion": lambda: registry.UpdateVersionRequest(
            version=version, description="the first", set={"team": "ops"}, removed=["none"]
        ),
        "DeleteVersion": lambda: registry.DeleteVersionRequest(version=f"{model}/versions/99"),
        "RemoveAlias": lambda: registry.RemoveAliasRequest(model=model, alias="none", expected_revision=-1),
    }


def _signing(world: World) -> Requests:
    files = {SINGLE: world.artifact.sha256}
    return {
        "TrustKey": lambda: registry.TrustKeyRequest(
            model=world.model, public_key=SIGNING_KEY.public.decode(), reason="it is ours"
        ),
        "WithdrawKey": lambda: registry.WithdrawKeyRequest(model=world.model, key_id="0" * 64, reason="it leaked"),
        "SignVersion": lambda: registry.SignVersionRequest(
            version=world.version, bundle=SIGNING_KEY.signer.sign(files, name="delays")
        ),
    }


def _orchestrator(world: World) -> Requests:
    pipeline, run = world.pipeline, world.pipeline_run
    schedule = pipelines.Schedule(id="weekly", cron="0 3 * * 1", time_zone="Europe/Berlin", paused=True)
    trigger = pipelines.Trigger(
        id="drift",
        event_type="headrace.monitor.v1.RetrainRequested",
        match={"endpoint": "none"},
        parameters={"days": "monitor"},
        paused=True,
    )
    return {
        "RegisterPipeline": lambda: orchestrator.RegisterPipelineRequest(name=pipeline, definition=PIPELINE),
        "GetPipeline": lambda: orchestrator.GetPipelineRequest(name=pipeline),
        "ListPipelines": lambda: orchestrator.ListPipelinesRequest(parent=world.parent, page_size=2),
        "SetSchedule": lambda: orchestrator.SetScheduleRequest(pipeline=pipeline, schedule=schedule),
        "RemoveSchedule": lambda: orchestrator.RemoveScheduleRequest(pipeline=pipeline, id="weekly"),
        "SetTrigger": lambda: orchestrator.SetTriggerRequest(pipeline=pipeline, trigger=trigger),
        "RemoveTrigger": lambda: orchestrator.RemoveTriggerRequest(pipeline=pipeline, id="drift"),
        # No such pipeline: what is right with it would start a process each time.
        "StartPipelineRun": lambda: orchestrator.StartPipelineRunRequest(pipeline=pipeline, parameters={"days": '"x"'}),
        "GetPipelineRun": lambda: orchestrator.GetPipelineRunRequest(name=run),
        "ListPipelineRuns": lambda: orchestrator.ListPipelineRunsRequest(
            parent=world.parent, pipeline=pipeline, page_size=2
        ),
        "CancelPipelineRun": lambda: orchestrator.CancelPipelineRunRequest(run=run, reason="enough"),
        "ResumePipelineRun": lambda: orchestrator.ResumePipelineRunRequest(run=world.fresh("pipelineRuns")),
        "WatchPipelineRun": lambda: orchestrator.WatchPipelineRunRequest(run=run),
        "GetStepOutput": lambda: orchestrator.GetStepOutputRequest(run=run, step="first"),
        "ReadStepLogs": lambda: orchestrator.ReadStepLogsRequest(run=run, step="first"),
    }


def _worker(world: World) -> Requests:
    run = world.pipeline_run
    return {
        "Work": lambda: orchestrator.WorkRequest(
            hello=orchestrator.WorkerHello(worker=str(uuid4()), capacity=1),
            held_tokens=[1],
            results=[orchestrator.StepResult(token=1, run=run, step="first", output=pipelines.StepOutput(json="1"))],
            logs=[orchestrator.LogChunk(token=1, run=run, step="first", attempt=1, data=b"a line\n")],
            draining=True,
            beat=1,
        )
    }


def _serving(world: World) -> Requests:
    endpoint, version = world.endpoint, world.version
    second = f"{world.model}/versions/2"
    return {
        "CreateEndpoint": lambda: serving.CreateEndpointRequest(name=world.fresh("endpoints"), model=world.model),
        "GetEndpoint": lambda: serving.GetEndpointRequest(name=endpoint),
        "ListEndpoints": lambda: serving.ListEndpointsRequest(parent=world.parent, page_size=2),
        "ConfigureEndpoint": lambda: serving.ConfigureEndpointRequest(
            name=endpoint, telemetry=endpoints.TELEMETRY_MODE_ASYNC
        ),
        "SetRoutes": lambda: serving.SetRoutesRequest(
            name=endpoint, routes=[endpoints.Route(version=version, weight=100)]
        ),
        "StartRollout": lambda: serving.StartRolloutRequest(
            endpoint=endpoint, version=second, steps=[10, 50], step_rows=1000, step_timeout_s=1
        ),
        "AbortRollout": lambda: serving.AbortRolloutRequest(endpoint=endpoint, reason="enough"),
        "BlockVersion": lambda: serving.BlockVersionRequest(endpoint=endpoint, version=second, reason="bad"),
        "UnblockVersion": lambda: serving.UnblockVersionRequest(endpoint=endpoint, version=second, reason="good"),
        "GetTraffic": lambda: serving.GetTrafficRequest(endpoint=endpoint),
    }


def _inference(world: World) -> Requests:
    name = world.served
    tensor = oip.ModelInferRequest.InferInputTensor(
        name="X",
        datatype="FP32",
        shape=[1, len(COLUMNS)],
        contents=oip.InferTensorContents(fp32_contents=[1.0] * len(COLUMNS)),
    )
    output = oip.ModelInferRequest.InferRequestedOutputTensor(name="variable")
    return {
        "ServerLive": oip.ServerLiveRequest,
        "ServerReady": oip.ServerReadyRequest,
        "ModelReady": lambda: oip.ModelReadyRequest(name=name),
        "ServerMetadata": oip.ServerMetadataRequest,
        "ModelMetadata": lambda: oip.ModelMetadataRequest(name=name),
        "ModelInfer": lambda: oip.ModelInferRequest(model_name=name, inputs=[tensor], outputs=[output]),
        "ModelStreamInfer": lambda: oip.ModelInferRequest(model_name=name, inputs=[tensor], outputs=[output]),
        "RepositoryIndex": oip.RepositoryIndexRequest,
        "RepositoryModelLoad": lambda: oip.RepositoryModelLoadRequest(model_name=name),
        "RepositoryModelUnload": lambda: oip.RepositoryModelUnloadRequest(model_name=f"{name}-other"),
    }


def _monitor(world: World) -> Requests:
    name = world.monitor
    return {
        "CreateMonitor": lambda: monitor.CreateMonitorRequest(
            name=world.fresh("monitors"), endpoint=f"e-{uuid4()}", config=world.config
        ),
        "GetMonitor": lambda: monitor.GetMonitorRequest(name=name),
        "ListMonitors": lambda: monitor.ListMonitorsRequest(parent=world.parent, page_size=2),
        "ConfigureMonitor": lambda: monitor.ConfigureMonitorRequest(name=name, config=world.config),
        "PauseMonitor": lambda: monitor.PauseMonitorRequest(name=name, paused=False, reason="enough"),
        "ListWindows": lambda: monitor.ListWindowsRequest(monitor=name, page_size=2),
        "ListAlerts": lambda: monitor.ListAlertsRequest(parent=world.parent, monitor=name, page_size=2),
        "AcknowledgeAlert": lambda: monitor.AcknowledgeAlertRequest(alert=world.fresh("alerts"), note="seen"),
        "SubscribeAlerts": lambda: monitor.SubscribeAlertsRequest(parent=world.parent, monitor=name, cursor="now"),
        "GetCounts": lambda: monitor.GetCountsRequest(endpoint=world.endpoint),
    }


def _archive(world: World) -> Requests:
    name = "projects/headrace/archives/predictions-0/ranges/00000000000000000000"
    nothing = monitor.ColumnValue(column="none", value="1")
    return {
        "GetArchiveStatus": monitor.GetArchiveStatusRequest,
        "ListArchivedRanges": lambda: monitor.ListArchivedRangesRequest(
            topic="headrace.telemetry.predictions.v1", partition=0, page_size=2
        ),
        "GetArchivedRange": lambda: monitor.GetArchivedRangeRequest(name=name),
        # Of an endpoint without telemetry: what is right with it would rewrite what other tests sent.
        "EraseTelemetry": lambda: monitor.EraseTelemetryRequest(
            project=world.project, endpoint="none", where=[nothing], prediction_ids=[str(uuid4())]
        ),
        "GetErasure": lambda: monitor.GetErasureRequest(id=str(uuid4())),
    }


def _persons(world: World) -> Requests:
    return {
        "AddPerson": lambda: registry.AddPersonRequest(display_name=f"Somebody of {world.project}"),
        "ListPersons": lambda: registry.ListPersonsRequest(page_size=2),
        "ErasePerson": lambda: registry.ErasePersonRequest(person=f"persons/{uuid4().hex}"),
    }


def _webhooks(world: World) -> Requests:
    target = models.Webhook(display_name="chat", url="http://127.0.0.1:9/hook", event_types=["VersionPromoted"])
    changed = models.Webhook(name=world.webhook)
    changed.MergeFrom(target)
    return {
        "CreateWebhook": lambda: registry.CreateWebhookRequest(
            parent=world.parent, webhook=target, secret="a secret of ours"
        ),
        "GetWebhook": lambda: registry.GetWebhookRequest(name=world.webhook),
        "ListWebhooks": lambda: registry.ListWebhooksRequest(parent=world.parent, page_size=2),
        "UpdateWebhook": lambda: registry.UpdateWebhookRequest(
            webhook=changed, update_mask=FieldMask(paths=CHANGEABLE), secret="another secret"
        ),
        "DeleteWebhook": lambda: registry.DeleteWebhookRequest(name=world.fresh("webhooks")),
        "TestWebhook": lambda: registry.TestWebhookRequest(name=world.webhook, event_type="VersionPromoted"),
        "ListDeliveries": lambda: registry.ListDeliveriesRequest(parent=world.webhook, page_size=2),
        "RedriveDelivery": lambda: registry.RedriveDeliveryRequest(id=str(uuid4())),
    }


def _telemetry(world: World) -> Requests:
    ids = [str(uuid4())]
    shard = shard_of(ids[0])
    one, time = np.ones(1, "<u4"), np.full(1, 1_700_000_000_000_000, "<i8")
    values = np.ones(1, "<f4")
    inputs = [ColumnData(name, values) for name in COLUMNS]
    output = ColumnData("variable", values, batches.COLUMN_ROLE_OUTPUT)
    label = ColumnData("label", values, batches.COLUMN_ROLE_UNSPECIFIED)
    predictions = Predictions(
        world.project, "elsewhere", "ours/1", shard, ids, row_counts=one, times_us=time, columns=[*inputs, output]
    )
    labels = Labels(
        world.project, "elsewhere", shard, ids, row_counts=one, rows=np.zeros(1, "<u4"), times_us=time, values=label
    )
    return {
        "PublishPredictions": lambda: monitor.PublishPredictionsRequest(
            batches=[encode_predictions(predictions, producer_id=str(uuid4()), epoch=1, seq=1)]
        ),
        "PublishLabels": lambda: monitor.PublishLabelsRequest(
            batches=[encode_labels(labels, producer_id=str(uuid4()), epoch=1, seq=1)]
        ),
    }


def _audit(world: World) -> Requests:
    return {
        "ReadLog": lambda: audit.ReadLogRequest(from_position=1, page_size=2, stream_prefix=f"{world.parent}/"),
        "FollowLog": lambda: audit.FollowLogRequest(from_position=1, stream_prefix="projects/"),
        "ReadStream": lambda: audit.ReadStreamRequest(stream_id=world.run, from_version=1, page_size=2),
        "GetEvent": lambda: audit.GetEventRequest(event_id=str(uuid4())),
        "GetLogStatus": audit.GetLogStatusRequest,
        "ListParked": lambda: audit.ListParkedRequest(page_size=2),
        "RedriveParked": lambda: audit.RedriveParkedRequest(consumer="none", stream_id=world.run),
        "StateAt": lambda: audit.StateAtRequest(stream_id=world.run, position=1),
        "PositionAt": lambda: audit.PositionAtRequest(time=Timestamp(seconds=1_700_000_000)),
        "RebuildReadModels": lambda: audit.RebuildReadModelsRequest(check=True),
        "ListEffects": lambda: audit.ListEffectsRequest(event_ids=[str(uuid4())], page_size=2),
        "ListConsumers": audit.ListConsumersRequest,
        "ListStates": lambda: audit.ListStatesRequest(stream_id=world.run, from_version=1, page_size=2),
        "GetCheckpoint": audit.GetCheckpointRequest,
        "ListCheckpoints": lambda: audit.ListCheckpointsRequest(from_size=1, page_size=2),
        "ListVerifyingKeys": audit.ListVerifyingKeysRequest,
        "ProveInclusion": lambda: audit.ProveInclusionRequest(position=1),
        "ProveConsistency": lambda: audit.ProveConsistencyRequest(old_size=1),
        "GetTree": lambda: audit.GetTreeRequest(size=1),
        "ReadLeaves": lambda: audit.ReadLeavesRequest(from_position=1, to_position=2),
    }


_BY_SERVICE: dict[str, Callable[[World], Requests]] = {
    "headrace.api.tracking.v1.TrackingService": _tracking,
    "headrace.api.registry.v1.RegistryService": _registry,
    "headrace.api.registry.v1.SigningService": _signing,
    "headrace.api.registry.v1.PersonService": _persons,
    "headrace.api.registry.v1.WebhookService": _webhooks,
    "headrace.api.orchestrator.v1.OrchestratorService": _orchestrator,
    "headrace.api.orchestrator.v1.WorkerService": _worker,
    "headrace.api.serving.v1.ServingService": _serving,
    "inference.GRPCInferenceService": _inference,
    "headrace.api.monitor.v1.MonitorService": _monitor,
    "headrace.api.monitor.v1.TelemetryService": _telemetry,
    "headrace.api.monitor.v1.ArchiveService": _archive,
    "headrace.api.audit.v1.AuditService": _audit,
}
