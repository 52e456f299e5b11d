"""Pipelines as a user sees them: on the real platform, by the SDK."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from pipelines import hello

from headrace.api.audit.v1 import service_pb2 as audit
from headrace.api.orchestrator.v1 import events_pb2 as events
from headrace.api.orchestrator.v1 import resources_pb2 as resources
from headrace.api.orchestrator.v1 import service_pb2 as service
from headrace.api.registry.v1.service_pb2 import CreateModelRequest
from headrace.errors import FailedPrecondition, InvalidArgument, NotFound
from headrace.pipelines import Pipeline, PipelineRunFailed, StartedRun
from tests.support import stepping
from tests.support.eventually import eventually
from tests.support.platform import Platform
from tests.support.stepping import allow, marks

pytestmark = pytest.mark.timeout(120)


def begin(platform: Platform, started: Pipeline[...], folder: Path) -> StartedRun:
    return started.start_with({"folder": str(folder)}, client=platform.client())


def test_the_example_runs(platform: Platform) -> None:
    run = hello.hello.start_with({"count": 10}, client=platform.client())
    ended = run.wait(timeout_s=60)
    assert run.output("report", str) == hello.report([hello.summarize(hello.draw(10, seed)) for seed in (7, 11)])
    assert [step.attempt for step in ended.steps] == [1] * 5
    assert "drawing 10 numbers" in run.logs("draw")


def test_a_run_started_twice_under_one_id_is_one_run(platform: Platform) -> None:
    client, command = platform.client(), uuid4()
    first = hello.hello.start_with({"count": 10}, client=client, command_id=command)
    second = hello.hello.start_with({"count": 10}, client=client, command_id=command)
    assert first.name == second.name
    assert first.name.endswith(str(command))
    first.wait(timeout_s=60)


def test_a_failed_run_goes_on_from_the_failed_step(platform: Platform, tmp_path: Path) -> None:
    run = begin(platform, stepping.failing, tmp_path)
    with pytest.raises(PipelineRunFailed, match="ValueError: not yet"):
        run.wait(timeout_s=60)
    allow(tmp_path, "fails")
    run.resume()
    ended = run.wait(timeout_s=60)
    assert len(marks(tmp_path, "first")) == 1
    assert len(marks(tmp_path, "fails")) == 2
    assert ended.steps[1].attempt == 2
    with pytest.raises(FailedPrecondition):
        run.resume()


def test_an_attempt_over_its_time_is_ended_and_tried_again(platform: Platform, tmp_path: Path) -> None:
    run = begin(platform, stepping.slow, tmp_path)
    run.wait(timeout_s=60)
    assert [line.split()[1] for line in marks(tmp_path, "slow")] == ["1", "2"]


def test_large_outputs_travel_and_too_large_ones_are_refused(platform: Platform) -> None:
    client = platform.client()
    run = stepping.large_outputs.start_with({"count": 1_000_000}, client=client)
    ended = run.wait(timeout_s=60)
    assert ended.steps[0].output.HasField("object")
    assert run.output("length") == 1_000_000
    assert run.output("large") == "x" * 1_000_000

    run = stepping.large_outputs.start_with({"count": 9_000_000}, client=client)
    with pytest.raises(PipelineRunFailed, match="OUTPUT_TOO_LARGE"):
        run.wait(timeout_s=60)


def test_an_event_starts_a_run_once_with_its_fields_as_parameters(platform: Platform, project: str) -> None:
    client = platform.client()
    triggered = Pipeline(stepping.on_model.function, name="on-model", project=project, max_active_runs=0)
    wanted = f"projects/{project}/models/delays"
    created = "headrace.registry.v1.ModelCreated"
    triggered.on_event("models", created, match={"model": wanted}, parameters={"model": "model"}, client=client)
    triggered.on_event("broken", created, match={"model": wanted}, client=client)

    for model in ("other", "delays"):
        name = f"projects/{project}/models/{model}"
        client.registry.CreateModel(CreateModelRequest(command_id=str(uuid4()), name=name))

    def runs() -> list[resources.PipelineRun]:
        request = service.ListPipelineRunsRequest(parent=f"projects/{project}", pipeline=triggered.name)
        return list(client.orchestrator.ListPipelineRuns(request).runs)

    (started,) = eventually(runs)
    run = StartedRun(started.name, client)
    assert run.wait(timeout_s=60).cause == "trigger:models"
    assert run.output("note_model") == wanted
    stream = client.log("registry").ReadStream(audit.ReadStreamRequest(stream_id=wanted, page_size=10))
    assert started.causation_id == stream.entries[0].event_id

    def suppressed() -> list[events.TriggerSuppressed]:
        request = audit.ReadStreamRequest(stream_id=triggered.name, page_size=100)
        entries = client.log("orchestrator").ReadStream(request).entries
        kind = "headrace.orchestrator.v1.TriggerSuppressed"
        return [events.TriggerSuppressed.FromString(each.data) for each in entries if each.type == kind]

    (refused,) = eventually(suppressed)
    assert refused.trigger == "broken"
    assert "model" in refused.reason
    assert len(runs()) == 1


def test_what_a_step_does_is_caused_by_its_lease(platform: Platform, project: str) -> None:
    client, name = platform.client(), f"projects/{project}/models/made"
    run = stepping.calling.start_with({"name": name}, client=client)
    ended = run.wait(timeout_s=60)

    (created,) = client.log("registry").ReadStream(audit.ReadStreamRequest(stream_id=name, page_size=10)).entries
    started, leased = (
        client.log("orchestrator").ReadStream(audit.ReadStreamRequest(stream_id=run.name, page_size=2)).entries
    )
    assert created.meta.causation_id == leased.event_id == ended.steps[0].event_id
    assert leased.meta.causation_id == started.event_id == ended.event_id
    assert created.meta.correlation_id == leased.meta.correlation_id == started.meta.correlation_id
    assert created.meta.actor == "services/orchestrator"
    assert created.meta.on_behalf_of == ended.actor == "persons/operator"


def test_what_is_wrong_is_named(platform: Platform, tmp_path: Path) -> None:
    client = platform.client()
    with pytest.raises(InvalidArgument, match="count"):
        hello.hello.start_with({"count": "many"}, client=client)
    with pytest.raises(InvalidArgument, match="nonsense"):
        hello.hello.start_with({"nonsense": 1}, client=client)
    with pytest.raises(InvalidArgument, match=r"schedule\.cron"):
        hello.hello.schedule("nightly", "every night", client=client)
    missing = StartedRun(f"projects/default/pipelineRuns/{uuid4()}", client)
    with pytest.raises(NotFound):
        missing.state()
