"""Routes change while requests come: rollback, rollout, restart, and no request lost to any of it."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections import Counter
from typing import Self

import grpc
import pytest

from headrace.api.audit.v1 import service_pb2 as audit_service
from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.monitor.v1.events_pb2 import RollbackRequested
from headrace.api.registry.v1 import resources_pb2 as registry
from headrace.api.registry.v1 import service_pb2 as registry_service
from headrace.api.serving.v1 import events_pb2 as events
from headrace.api.serving.v1 import resources_pb2 as serving
from headrace.api.serving.v1 import service_pb2 as service
from headrace.errors import error_details
from headrace_kit.eventtypes import type_name
from tests.support.serving import Platform, command_id, infer_request, publish, values, wait_for

pytestmark = pytest.mark.timeout(180)  # real processes are killed and start again
ROWS = [[1.0, 1.0, 1.0]]


class Load:
    """Requests one after the other from several threads, until told to stop."""

    def __init__(self, platform: Platform, model: str, *, threads: int = 4) -> None:
        self._platform, self._model = platform, model
        self._stop = threading.Event()
        self.answers: Counter[float] = Counter()
        self.errors: list[str] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def __enter__(self) -> Self:
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for each in self._threads:
            each.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                response = self._platform.inference.ModelInfer(infer_request(self._model, ROWS), timeout=10)
                self.answers[values(response)[0]] += 1
            except grpc.RpcError as error:
                self.errors.append(str(error))


def _history(platform: Platform, name: str) -> list[LogEntry]:
    """The events of an endpoint."""
    request = audit_service.ReadStreamRequest(stream_id=f"projects/default/endpoints/{name}")
    return list(platform.audit.ReadStream(request).entries)


async def test_a_requested_rollback_stops_the_bad_version_at_once_and_drops_no_request(platform: Platform) -> None:
    name = await platform.serve(2.0)
    bad = await platform.register(name, 5.0)
    platform.promote(bad)
    wait_for(lambda: values(platform.infer(name, ROWS)) == [15.0])
    request = RollbackRequested(
        project="default",
        endpoint=name,
        model=f"projects/default/models/{name}",
        bad_version=bad,
        alias="production",
        alias_revision=2,
        reason="errors grew",
    )
    with Load(platform, name, threads=2) as load:
        event_id = await publish(platform, request, subject=f"projects/default/monitors/{name}")
        wait_for(lambda: values(platform.infer(name, ROWS)) == [6.0], within_s=2)
    assert load.errors == []
    wait_for(lambda: [each.version for each in platform.get(name).blocked] == [bad], within_s=5)
    entries = _history(platform, name)
    [blocked] = [each for each in entries if each.type == type_name(events.VersionBlocked)]
    assert blocked.meta.causation_id == event_id
    assert blocked.meta.actor == "services/serving"


async def test_promotions_under_load_drop_no_request(platform: Platform) -> None:
    name = await platform.serve(1.0)
    with Load(platform, name) as load:
        for weight in (2.0, 3.0, 4.0):
            platform.promote(await platform.register(name, weight))
            wait_for(lambda weight=weight: values(platform.infer(name, ROWS)) == [3 * weight])  # type: ignore[misc]
    assert load.errors == []
    assert set(load.answers) == {3.0, 6.0, 9.0, 12.0}


async def test_a_rollout_goes_step_by_step_and_moves_the_alias(platform: Platform) -> None:
    name = await platform.serve(1.0)
    candidate = await platform.register(name, 2.0)
    endpoint = f"projects/default/endpoints/{name}"
    request = service.StartRolloutRequest(
        command_id=command_id(), endpoint=endpoint, version=candidate, steps=[20, 60], step_rows=20
    )
    started = platform.serving.StartRollout(request).endpoint
    assert {each.version[-1]: each.weight for each in started.routes} == {"1": 80, "2": 20}
    with Load(platform, name) as load:
        wait_for(lambda: not platform.get(name).HasField("rollout"), within_s=30)
    assert load.errors == []
    done = platform.get(name)
    assert [(each.version, each.weight) for each in done.routes] == [(candidate, 100)]
    model = platform.registry.GetModel(registry_service.GetModelRequest(name=done.model)).model
    assert model.aliases[0].version == 2
    assert model.aliases[0].history[-1].actor == "services/serving"
    types = [each.type.rpartition(".")[2] for each in _history(platform, name)]
    assert types == [
        "EndpointCreated",
        "RolloutStarted",
        "RoutesChanged",
        "RolloutStepAdvanced",
        "RoutesChanged",
        "RolloutCompleted",
        "RoutesChanged",
    ]


async def test_a_rollout_of_a_version_whose_gates_are_unmet_is_refused_with_the_reasons(platform: Platform) -> None:
    name = await platform.serve(1.0)
    gates = registry.Gates(alias="production", required_checks=["quality"])
    platform.registry.SetGates(
        registry_service.SetGatesRequest(command_id=command_id(), model=f"projects/default/models/{name}", gates=gates)
    )
    candidate = await platform.register(name, 2.0)
    request = service.StartRolloutRequest(
        command_id=command_id(), endpoint=f"projects/default/endpoints/{name}", version=candidate
    )
    with pytest.raises(grpc.RpcError) as refused:
        platform.serving.StartRollout(request)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "quality" in str(refused.value.details())
    assert not platform.get(name).HasField("rollout")


async def test_requests_of_one_id_stay_on_one_version_and_shares_are_kept(platform: Platform) -> None:
    name = await platform.serve(1.0)
    other = await platform.register(name, 2.0)
    first = other[:-1] + "1"
    routes = [serving.Route(version=first, weight=70), serving.Route(version=other, weight=30)]
    platform.serving.SetRoutes(
        service.SetRoutesRequest(command_id=command_id(), name=f"projects/default/endpoints/{name}", routes=routes)
    )
    same = {values(platform.infer(name, ROWS, id="one-user"))[0] for _ in range(20)}
    counts = Counter(values(platform.infer(name, ROWS, id=uuid.uuid4().hex))[0] for _ in range(600))
    assert len(same) == 1
    assert 0.2 < counts[6.0] / 600 < 0.4


async def test_endpoints_answer_again_after_a_kill_while_the_registry_is_away(platform: Platform) -> None:
    name = await platform.serve(4.0)
    stopped = platform.stack.kill("serving")
    platform.stack.kill("registry")
    await asyncio.to_thread(platform.stack.wait_ready, "serving", other_than=stopped)
    wait_for(lambda: platform.inference.ServerReady is not None)
    assert values(platform.infer(name, ROWS)) == [12.0]
    await asyncio.to_thread(platform.stack.wait_ready, "registry")


async def test_a_rollout_goes_on_after_a_kill_and_takes_each_step_once(platform: Platform) -> None:
    name = await platform.serve(1.0)
    candidate = await platform.register(name, 2.0)
    request = service.StartRolloutRequest(
        command_id=command_id(),
        endpoint=f"projects/default/endpoints/{name}",
        version=candidate,
        steps=[30, 60],
        step_rows=15,
        step_s=0.5,
    )
    platform.serving.StartRollout(request)
    with Load(platform, name):
        wait_for(lambda: platform.get(name).rollout.step == 1)
    killed = platform.stack.kill("serving")
    await asyncio.to_thread(platform.stack.wait_ready, "serving", other_than=killed)
    with Load(platform, name):
        wait_for(lambda: not platform.get(name).HasField("rollout"), within_s=30)
    types = Counter(each.type.rpartition(".")[2] for each in _history(platform, name))
    assert (types["RolloutStarted"], types["RolloutStepAdvanced"], types["RolloutCompleted"]) == (1, 1, 1)
    assert [(each.version, each.weight) for each in platform.get(name).routes] == [(candidate, 100)]


async def test_a_refusal_of_the_registry_aborts_the_rollout_with_its_reasons(platform: Platform) -> None:
    name = await platform.serve(1.0)
    candidate = await platform.register(name, 2.0)
    request = service.StartRolloutRequest(
        command_id=command_id(),
        endpoint=f"projects/default/endpoints/{name}",
        version=candidate,
        steps=[50],
        step_rows=20,
    )
    platform.serving.StartRollout(request)
    gates = registry.Gates(alias="production", required_checks=["quality"])
    platform.registry.SetGates(
        registry_service.SetGatesRequest(command_id=command_id(), model=f"projects/default/models/{name}", gates=gates)
    )
    with Load(platform, name):
        wait_for(lambda: not platform.get(name).HasField("rollout"), within_s=30)
    assert [(each.version[-1], each.weight) for each in platform.get(name).routes] == [("1", 100)]
    [aborted] = [each for each in _history(platform, name) if each.type == type_name(events.RolloutAborted)]
    assert "quality" in events.RolloutAborted.FromString(aborted.data).reason


async def test_a_version_that_an_endpoint_answers_with_is_not_deleted(platform: Platform) -> None:
    name = await platform.serve(2.0)
    model, endpoint = f"projects/default/models/{name}", f"projects/default/endpoints/{name}"
    version = f"{model}/versions/1"

    def routed() -> list[str]:
        found = platform.registry.GetModel(registry_service.GetModelRequest(name=model)).model
        return [each.endpoint for each in found.routed if list(each.versions) == [1]]

    wait_for(lambda: routed() == [endpoint])
    platform.registry.RemoveAlias(
        registry_service.RemoveAliasRequest(
            command_id=command_id(), model=model, alias="production", expected_revision=-1
        )
    )

    with pytest.raises(grpc.RpcError) as refusal:
        platform.registry.DeleteVersion(registry_service.DeleteVersionRequest(command_id=command_id(), version=version))
    code, details = error_details(refusal.value)
    assert (code, details.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "REFERENCED")
    assert [(each.type, each.subject) for each in details.violations] == [("endpoint", endpoint)]
