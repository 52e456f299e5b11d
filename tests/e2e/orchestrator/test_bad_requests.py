"""Whatever is sent: a clear error with its field, never INTERNAL, and nothing half-written."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import grpc
import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.api.orchestrator.v1 import resources_pb2 as resources
from headrace.api.orchestrator.v1 import service_pb2 as service
from headrace.api.orchestrator.v1.service_pb2_grpc import WorkerServiceStub
from headrace.errors import HeadraceError, InvalidArgument, NotFound, from_rpc_error
from tests.support.platform import Platform

pytestmark = pytest.mark.timeout(120)
RUN = f"projects/default/pipelineRuns/{uuid4()}"
PIPELINE = "projects/default/pipelines/none"


def command() -> str:
    return str(uuid4())


def definition(**changes: object) -> resources.PipelineDefinition:
    step = resources.StepDefinition(id="a", function="m:f")
    made = resources.PipelineDefinition(entrypoint="m:p", steps=[step])
    for name, value in changes.items():
        target: Message = made if name in resources.PipelineDefinition.DESCRIPTOR.fields_by_name else made.steps[0]
        setattr(target, name, value)
    return made


def registering(made: resources.PipelineDefinition, name: str = PIPELINE) -> service.RegisterPipelineRequest:
    return service.RegisterPipelineRequest(command_id=command(), name=name, definition=made)


def with_steps(*steps: resources.StepDefinition) -> service.RegisterPipelineRequest:
    return registering(resources.PipelineDefinition(entrypoint="m:p", steps=steps))


def refused(platform: Platform, method: str, request: Message) -> HeadraceError:
    with platform.client() as client:
        call: Callable[[Message], object] = getattr(client.orchestrator, method)
        try:
            answer = call(request)
            if method == "WatchPipelineRun":
                list(answer)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType, reportCallIssue]
        except grpc.RpcError as error:
            return from_rpc_error(error)
    pytest.fail(f"{method} took it")


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (service.RegisterPipelineRequest(name=PIPELINE, definition=definition()), "command_id"),
        (service.RegisterPipelineRequest(command_id="x", name=PIPELINE, definition=definition()), "command_id"),
        (registering(definition(), name="projects/default/pipelines/A B"), "name"),
        (registering(definition(), name="projects/default/pipelines/' OR 1=1 --"), "name"),
        (registering(definition(entrypoint="")), "definition.entrypoint"),
        (registering(definition(entrypoint="os.system('x')")), "definition.entrypoint"),
        (registering(definition(source_path="x" * 2001)), "definition.source_path"),
        (registering(definition(source_digest="abc")), "definition.source_digest"),
        (registering(definition(description="x" * 10_001)), "definition.description"),
        (registering(definition(max_active_runs=-1)), "definition.max_active_runs"),
        (registering(definition(timeout_s=float("nan"))), "definition.steps[0].timeout_s"),
        (registering(definition(timeout_s=-1.0)), "definition.steps[0].timeout_s"),
        (registering(definition(timeout_s=604_801.0)), "definition.steps[0].timeout_s"),
        (with_steps(), "definition.steps"),
        (with_steps(*[resources.StepDefinition(id=f"s{n}", function="m:f") for n in range(1001)]), "definition.steps"),
        (with_steps(resources.StepDefinition(id="../x", function="m:f")), "definition.steps[0].id"),
        (with_steps(*[resources.StepDefinition(id="a", function="m:f")] * 2), "definition.steps[1].id"),
        (
            with_steps(resources.StepDefinition(id="a", function="m:f", after=["a"])),
            "definition.steps[0].inputs",
        ),
        (
            with_steps(
                resources.StepDefinition(
                    id="a", function="m:f", inputs=[resources.StepInput(argument="x", constant_json="NaN")]
                )
            ),
            "definition.steps[0].inputs",
        ),
        (
            with_steps(resources.StepDefinition(id="a", function="m:f", retry=resources.RetryPolicy(max_attempts=101))),
            "definition.steps[0].retry.max_attempts",
        ),
    ],
)
def test_a_definition_that_is_not_sound_is_refused_with_its_field(
    platform: Platform, request_: service.RegisterPipelineRequest, field: str
) -> None:
    error = refused(platform, "RegisterPipeline", request_)
    assert isinstance(error, InvalidArgument)
    assert error.field == field
    missing = refused(platform, "GetPipeline", service.GetPipelineRequest(name=PIPELINE))
    assert isinstance(missing, NotFound)


@pytest.mark.parametrize(
    ("method", "request_", "kind", "field"),
    [
        ("GetPipelineRun", service.GetPipelineRunRequest(name=RUN), NotFound, "name"),
        ("GetPipelineRun", service.GetPipelineRunRequest(name="x"), InvalidArgument, "name"),
        ("GetPipelineRun", service.GetPipelineRunRequest(name=f"{RUN}x"), InvalidArgument, "name"),
        ("WatchPipelineRun", service.WatchPipelineRunRequest(run=RUN), NotFound, "name"),
        ("ReadStepLogs", service.ReadStepLogsRequest(run=RUN, offset=-1), InvalidArgument, "offset"),
        ("GetStepOutput", service.GetStepOutputRequest(run=RUN, step="../../x"), NotFound, "run"),
        (
            "ListPipelines",
            service.ListPipelinesRequest(parent="projects/default", page_size=1001),
            InvalidArgument,
            "page_size",
        ),
        (
            "ListPipelineRuns",
            service.ListPipelineRunsRequest(parent="projects/default", page_token="x"),
            InvalidArgument,
            "page_token",
        ),
        (
            "StartPipelineRun",
            service.StartPipelineRunRequest(command_id=command(), pipeline=PIPELINE),
            NotFound,
            "pipeline",
        ),
        ("CancelPipelineRun", service.CancelPipelineRunRequest(command_id=command(), run=RUN), NotFound, "run"),
        (
            "CancelPipelineRun",
            service.CancelPipelineRunRequest(command_id=command(), run=RUN, reason="x" * 2001),
            InvalidArgument,
            "reason",
        ),
        ("ResumePipelineRun", service.ResumePipelineRunRequest(command_id=command(), run=RUN), NotFound, "run"),
        (
            "SetSchedule",
            service.SetScheduleRequest(
                command_id=command(), pipeline=PIPELINE, schedule=resources.Schedule(id="s", cron="* * * * *")
            ),
            NotFound,
            "pipeline",
        ),
        (
            "RemoveTrigger",
            service.RemoveTriggerRequest(command_id=command(), pipeline=PIPELINE, id="t"),
            NotFound,
            "pipeline",
        ),
    ],
)
def test_what_is_wrong_or_missing_is_named(
    platform: Platform, method: str, request_: Message, kind: type[HeadraceError], field: str
) -> None:
    error = refused(platform, method, request_)
    assert isinstance(error, kind)
    assert error.field == field


TEXTS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["", RUN, PIPELINE, "projects/default", "projects/p/pipelines/x\0", "'; DROP TABLE events; --", "é" * 600]
    ),
)
METHODS = [each.name for each in service.DESCRIPTOR.services_by_name["OrchestratorService"].methods]


@given(st.sampled_from(METHODS), st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_request_is_answered_by_an_internal_error(platform: Platform, method: str, data: st.DataObject) -> None:
    descriptor = service.DESCRIPTOR.services_by_name["OrchestratorService"].methods_by_name[method].input_type
    request: Message = getattr(service, descriptor.name)()
    for field in descriptor.fields:
        if field.is_repeated or field.message_type is not None:
            continue
        if field.type == field.TYPE_STRING:
            setattr(request, field.name, data.draw(TEXTS, label=field.name))
        else:
            setattr(request, field.name, data.draw(st.integers(-(1 << 31), (1 << 31) - 1), label=field.name))
    with platform.client() as client:
        code = grpc.StatusCode.OK
        try:
            answer = getattr(client.orchestrator, method)(request, timeout=20)
            if method == "WatchPipelineRun":
                next(iter(answer), None)
        except grpc.RpcError as error:
            code = error.code()
    known = (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    assert code in (*known, grpc.StatusCode.FAILED_PRECONDITION)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (service.WorkRequest(), "hello"),
        (service.WorkRequest(hello=service.WorkerHello(worker="x", capacity=1)), "hello.worker"),
        (service.WorkRequest(hello=service.WorkerHello(worker=command(), capacity=0)), "hello.capacity"),
        (service.WorkRequest(hello=service.WorkerHello(worker=command(), capacity=1001)), "hello.capacity"),
        (
            service.WorkRequest(
                hello=service.WorkerHello(worker=command(), capacity=1),
                logs=[service.LogChunk(run=RUN, step="../../etc", attempt=1, data=b"x")],
            ),
            "logs[0].step",
        ),
        (
            service.WorkRequest(
                hello=service.WorkerHello(worker=command(), capacity=1),
                results=[service.StepResult(token=-1, run=RUN, step="a")],
            ),
            "results[0].token",
        ),
    ],
)
def test_a_worker_that_does_not_keep_to_the_protocol_is_told_what_is_wrong(
    platform: Platform, message: service.WorkRequest, field: str
) -> None:
    with platform.client() as client, pytest.raises(grpc.RpcError) as raised:
        list(WorkerServiceStub(client.channel("orchestrator")).Work(iter([message]), timeout=20))
    error = from_rpc_error(raised.value)
    assert isinstance(error, InvalidArgument)
    assert error.field == field
