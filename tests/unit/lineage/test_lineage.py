"""The walk along lineage, answered by hand: alerts, pipeline runs and rollbacks, whose links are events."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.audit.v1 import service_pb2 as audit
from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.monitor.v1 import events_pb2 as monitor_events
from headrace.api.monitor.v1 import resources_pb2 as monitors
from headrace.api.monitor.v1 import service_pb2 as monitor
from headrace.api.orchestrator.v1 import resources_pb2 as pipelines
from headrace.api.orchestrator.v1 import service_pb2 as orchestrator
from headrace.api.registry.v1 import events_pb2 as registry_events
from headrace.api.registry.v1 import resources_pb2 as models
from headrace.api.registry.v1 import service_pb2 as registry
from headrace.api.serving.v1 import service_pb2 as serving
from headrace.api.tracking.v1 import resources_pb2 as runs
from headrace.api.tracking.v1 import service_pb2 as tracking
from headrace.errors import InvalidArgument
from headrace.lineage import Lineage, Question, kind_of, openlineage, trace
from tests.support.openlineages import require_run_event

P = "projects/default"
MODEL, ENDPOINT, MONITOR = f"{P}/models/delays", f"{P}/endpoints/delays", f"{P}/monitors/delays"
ALERT, PIPELINE_RUN = f"{P}/alerts/a1", f"{P}/pipelineRuns/11111111-1111-4111-8111-111111111111"
RUN = f"{P}/runs/22222222-2222-4222-8222-222222222222"


def at(minute: int) -> Timestamp:
    time = Timestamp()
    time.FromDatetime(datetime(2026, 3, 1, 12, minute, tzinfo=UTC))
    return time


def entry(event_id: str, stream: str, kind: str, event: Message) -> LogEntry:
    return LogEntry(event_id=event_id, stream_id=stream, type=kind, data=event.SerializeToString())


class World:
    """Answers as the services would: drift was found, a pipeline retrained, and what came of it was rolled back."""

    def __init__(self) -> None:
        self.asked: list[Question] = []
        rollback = models.Promotion(
            alias="production", version=1, previous_version=2, revision=3, rollback=True, time=at(9), event_id="e9"
        )
        moves = [
            models.Promotion(alias="production", version=1, revision=1, actor="persons/ada", time=at(1), event_id="e1"),
            models.Promotion(alias="production", version=2, revision=2, time=at(8), event_id="e8"),
            rollback,
        ]
        self.model = models.Model(
            name=MODEL,
            versions=[
                models.Version(name=f"{MODEL}/versions/1", number=1, create_time=at(0)),
                models.Version(name=f"{MODEL}/versions/2", number=2, run=RUN, create_time=at(7)),
            ],
            aliases=[models.Alias(alias="production", version=1, revision=3, history=moves)],
        )
        self.endpoint = serving.GetEndpointResponse()
        self.endpoint.endpoint.name, self.endpoint.endpoint.model = ENDPOINT, MODEL
        self.endpoint.endpoint.alias = "production"
        self.endpoint.endpoint.create_time.CopyFrom(at(2))
        self.alert = monitors.Alert(
            name=ALERT,
            monitor=MONITOR,
            endpoint="delays",
            kind=monitors.ALERT_KIND_CONCEPT_DRIFT,
            summary="errors rose",
            time=at(4),
            event_id="raised",
        )
        self.run = pipelines.PipelineRun(
            name=PIPELINE_RUN,
            pipeline=f"{P}/pipelines/retrain",
            status=pipelines.PIPELINE_RUN_STATUS_SUCCEEDED,
            causation_id="asked",
            create_time=at(5),
            end_time=at(8),
        )
        self.trained = runs.Run(
            name=RUN,
            pipeline_run=PIPELINE_RUN,
            experiment=f"{P}/experiments/e",
            status=runs.RUN_STATUS_FAILED,
            error="out of memory",
            start_time=at(6),
            end_time=at(7),
        )
        asked = monitor_events.RetrainRequested(alert=ALERT)
        self.asked_event = entry("asked", MONITOR, "headrace.monitor.v1.RetrainRequested", asked)
        rolled = registry_events.VersionRolledBack(promotion=rollback)
        self.rolled = entry("rolled", MODEL, "headrace.registry.v1.VersionRolledBack", rolled)

    def answer(self, question: Question) -> Message | None:  # noqa: PLR0911 - an answer a question
        self.asked.append(question)
        request: Any = question.request
        match question.service, question.method:
            case "registry", "GetModel" if request.name == MODEL:
                return registry.GetModelResponse(model=self.model)
            case "registry", "ListModels":
                return registry.ListModelsResponse(models=[self.model])
            case "serving", "GetEndpoint" if request.name == ENDPOINT:
                return self.endpoint
            case "serving", "ListEndpoints":
                return serving.ListEndpointsResponse(endpoints=[self.endpoint.endpoint])
            case "monitor", "GetCounts":
                return monitor.GetCountsResponse(predictions=9)
            case "monitor", "ListMonitors":
                return monitor.ListMonitorsResponse(monitors=[monitors.Monitor(name=MONITOR, endpoint="delays")])
            case "monitor", "GetMonitor":
                found = monitors.Monitor(name=MONITOR, endpoint="delays", create_time=at(3))
                return monitor.GetMonitorResponse(monitor=found)
            case "monitor", "ListAlerts":
                return monitor.ListAlertsResponse(alerts=[self.alert])
            case "monitor", "ListEffects" if question.log:
                return audit.ListEffectsResponse(entries=[self.asked_event] if "raised" in request.event_ids else [])
            case "monitor", "GetEvent" if question.log and request.event_id == "asked":
                return audit.GetEventResponse(entry=self.asked_event)
            case "orchestrator", "ListEffects":
                return audit.ListEffectsResponse(entries=[LogEntry(stream_id=PIPELINE_RUN)])
            case "registry", "ListEffects":
                return audit.ListEffectsResponse(entries=[self.rolled])
            case "orchestrator", "GetPipelineRun":
                return orchestrator.GetPipelineRunResponse(run=self.run)
            case "tracking", "SearchRuns":
                return tracking.SearchRunsResponse(runs=[self.trained, runs.Run(name=f"{P}/runs/other")])
            case "tracking", "GetRun" if request.name == RUN:
                return tracking.GetRunResponse(run=self.trained)
            case _:
                return None


def walk(world: World, entity: str, **limits: Any) -> Lineage:
    steps = trace(entity, **limits)
    try:
        question = next(steps)
        while True:
            question = steps.send(world.answer(question))
    except StopIteration as end:
        found: Lineage = end.value
        return found


def path(found: Lineage) -> set[tuple[str, str]]:
    kinds = {each.name: each.kind for each in found.nodes}
    return {(kinds[each.source], kinds[each.target]) for each in found.edges}


def test_what_drift_led_to_is_told_to_the_version_and_to_the_rollback() -> None:
    found = walk(World(), ENDPOINT, direction="downstream")

    assert {
        ("endpoint", "predictions"),
        ("predictions", "monitor"),
        ("monitor", "alert"),
        ("alert", "pipeline run"),
        ("pipeline run", "run"),
        ("run", "version"),
        ("version", "promotion"),
        ("promotion", "alias"),
        ("alert", "promotion"),
    } <= path(found)
    assert f"{MODEL}@production/moves/3" in {each.name for each in found.nodes}
    assert f"{P}/runs/other" not in {each.name for each in found.nodes}


def test_a_version_is_traced_back_to_the_alert_that_asked_for_it() -> None:
    found = walk(World(), f"{MODEL}/versions/2", direction="upstream", depth=20)

    distances = {each.kind: each.distance for each in reversed(found.nodes) if each.kind != "version"}
    assert (distances["run"], distances["pipeline run"], distances["alert"], distances["monitor"]) == (-1, -2, -3, -4)
    assert not found.cut, "the loop is closed, and the walk ends"


def test_each_question_is_asked_once() -> None:
    world = World()
    walk(world, ENDPOINT, depth=50)
    asked = [(each.service, each.method, each.request.SerializeToString()) for each in world.asked]
    assert len(asked) == len(set(asked))


def test_openlineage_has_a_start_and_an_end_of_each_run_and_its_parent() -> None:
    events: list[Any] = list(openlineage(walk(World(), f"{MODEL}/versions/2", direction="upstream", depth=3)))
    for event in events:
        require_run_event(event)
    trained = [each for each in events if each["run"]["runId"] == RUN.rpartition("/")[2]]
    assert [each["eventType"] for each in trained] == ["START", "FAIL"]
    assert [each["eventTime"] for each in trained] == ["2026-03-01T12:06:00.000Z", "2026-03-01T12:07:00.000Z"]
    end = trained[1]
    assert end["run"]["facets"]["errorMessage"]["message"] == "out of memory"
    parent = end["run"]["facets"]["parent"]
    assert parent["run"]["runId"] == PIPELINE_RUN.rpartition("/")[2]
    assert parent["job"]["name"] == "pipelines/retrain"
    [made] = end["outputs"]
    assert (made["namespace"], made["name"]) == ("headrace://default", "models/delays")
    assert made["facets"]["version"]["datasetVersion"] == "2"
    [retrained] = [each for each in events if each["job"]["name"] == "pipelines/retrain" and each["outputs"] == []][1:]
    assert [each["name"] for each in retrained["inputs"]] == ["alerts/a1"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("runs/r", "run"),
        ("models/a b", "model"),
        ("models/m@a", "alias"),
        ("models/m/versions/1", "version"),
        ("models/m/versions/1/approvals/2", "approval"),
        ("models/m@a/moves/2", "promotion"),
        ("datasets/s3://a/b@sha256:1", "dataset"),
        ("endpoints/e/predictions", "predictions"),
    ],
)
def test_names_have_kinds(name: str, kind: str) -> None:
    assert kind_of(f"{P}/{name}") == kind


@pytest.mark.parametrize(
    "name",
    [
        "",
        P,
        f"{P}/models",
        f"{P}/models/",
        f"{P}/things/x",
        f"{P}/runs/a/b",
        f"{P}/models/m/versions/x",
        f"{P}/models/m/versions/0x1",
        f"{P}/models/m@a/versions/1",
        f"{P}/models/m/moves/1",
        f"{P}/endpoints/e/predictions/x",
        f"{P}/datasets/x",
        "projects//runs/x",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match="ENTITY"):
        kind_of(name)


@pytest.mark.parametrize("limits", [{"direction": "sideways"}, {"depth": 0}, {"depth": 101}])
def test_limits_are_kept(limits: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        walk(World(), ENDPOINT, **limits)
