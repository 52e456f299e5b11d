"""A candidate answers again what the champion answered, from the log of the real stack, and the gate stands on it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from uuid import uuid4

import grpc
import httpx2
import numpy as np
import pytest

from headrace.api.common.v1 import resources_pb2 as common
from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace.api.serving.v1 import resources_pb2 as endpoints
from headrace.api.serving.v1 import service_pb2 as serving
from headrace.api.tracking.v1 import service_pb2 as tracking
from headrace.client import Client
from headrace.inference import grpc_service_pb2 as oip
from tests.e2e.test_registry import headrace
from tests.support.eventually import eventually
from tests.support.platform import Platform
from tests.support.serving import infer_request, package, signature

pytestmark = pytest.mark.timeout(300)  # commands are processes, and there are several
REQUESTS = 40


@pytest.fixture
def client(platform: Platform) -> Iterator[Client]:
    with platform.client() as operator:
        yield operator


def upload(client: Client, project: str, content: bytes) -> common.ObjectRef:
    request = tracking.PresignUploadRequest(
        parent=f"projects/{project}", sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content)
    )
    presigned = client.tracking.PresignUpload(request)
    if presigned.url:
        httpx2.put(presigned.url, content=content).raise_for_status()
    return presigned.object


def register(platform: Platform, client: Client, project: str, weight: float) -> str:
    """A version that answers ``weight`` times the sum of its inputs."""
    with Client(platform.connection_of("orchestrator")) as author:
        request = service.CreateVersionRequest(
            command_id=str(uuid4()),
            model=f"projects/{project}/models/delays",
            create_model=True,
            artifact=upload(client, project, package(weight)),
            format=resources.MODEL_FORMAT_ONNX,
            signature=signature(),
        )
        return author.registry.CreateVersion(request).version.name


def promote(client: Client, version: str) -> None:
    request = service.PromoteVersionRequest(
        command_id=str(uuid4()), version=version, alias="production", expected_revision=-1
    )
    client.registry.PromoteVersion(request)


def set_gates(client: Client, project: str, gates: resources.Gates) -> None:
    model = f"projects/{project}/models/delays"
    client.registry.SetGates(service.SetGatesRequest(command_id=str(uuid4()), model=model, gates=gates))


def serve(client: Client, project: str) -> None:
    """An endpoint on the model whose answers are in Kafka before they are given."""
    name = f"{project}/delays"
    client.serving.CreateEndpoint(
        serving.CreateEndpointRequest(
            command_id=str(uuid4()),
            name=f"projects/{project}/endpoints/delays",
            model=f"projects/{project}/models/delays",
            telemetry=endpoints.TELEMETRY_MODE_DURABLE,
        )
    )
    eventually(lambda: client.inference.ModelReady(oip.ModelReadyRequest(name=name)).ready)


def ask(client: Client, project: str, *, seed: int) -> None:
    """Requests of one to three rows; the greatest sum of a row is 30."""
    numbers = np.random.default_rng(seed)
    for each in range(REQUESTS):
        rows = numbers.uniform(0, 9, (1 + each % 3, 3))
        rows[0] = 10.0
        client.inference.ModelInfer(infer_request(f"{project}/delays", rows.tolist()), timeout=60)


def replay(platform: Platform, project: str, version: str, *more: str) -> tuple[int, dict[str, object], str]:
    """Status, what was recorded, and errors of ``headrace models replay``."""
    number = version.rpartition("/")[2]
    arguments = ("delays", number, "--endpoint", "delays", "--project", project, "--json", *more)
    done = headrace(platform, "models", "replay", *arguments)
    return done.returncode, json.loads(done.stdout or "{}").get("replay", {}), done.stderr


def test_a_candidate_is_promoted_once_it_answered_what_was_answered(
    platform: Platform, client: Client, project: str
) -> None:
    first = register(platform, client, project, 1.0)
    set_gates(client, project, resources.Gates(alias="production"))
    promote(client, first)
    serve(client, project)
    ask(client, project, seed=1)
    ask(client, project, seed=2)
    near, far = (register(platform, client, project, weight) for weight in (1.01, 2.0))
    gate = resources.ReplayGate(
        requests=REQUESTS, measure=resources.REPLAY_MEASURE_MAX_DIFFERENCE, most=0.5, max_age_s=3600
    )
    set_gates(client, project, resources.Gates(alias="production", replay=gate))
    assert unmet(client, near) == ["replayed"]

    status, told, errors = replay(platform, project, near, "--last", str(REQUESTS))
    assert status == 0, errors
    assert (told["requests"], told["champion"]) == (str(REQUESTS), "1")
    assert 0.29 < float(str(told["max_difference"])) < 0.31
    assert unmet(client, near) == []

    assert replay(platform, project, far)[0] == 0  # it failed on none: how far it is off is the gate's to judge
    with pytest.raises(grpc.RpcError, match=r"max_difference must be <= 0\.5: it is 30"):
        promote(client, far)
    promote(client, near)
    version = client.registry.GetVersion(service.GetVersionRequest(name=far)).version
    [recorded] = version.validations
    assert recorded.replay.requests == 2 * REQUESTS  # all there are of the 1000 it asked for
    assert sum(each.requests for each in recorded.replay.ranges) == 2 * REQUESTS

    eventually(lambda: client.serving.GetEndpoint(endpoint(project)).endpoint.routes[0].version == near)
    assert unmet(client, far) == ["replayed"]  # another is champion now, and it answered nothing yet
    status, _, errors = replay(platform, project, far)
    assert status == 1
    assert "NOTHING_TO_REPLAY" in errors


def endpoint(project: str) -> serving.GetEndpointRequest:
    return serving.GetEndpointRequest(name=f"projects/{project}/endpoints/delays")


def unmet(client: Client, version: str) -> list[str]:
    request = service.CheckPromotionRequest(version=version, alias="production")
    return [each.gate for each in client.registry.CheckPromotion(request).unmet]


def test_a_replay_of_what_is_not_there_is_refused_with_its_reason(
    platform: Platform, client: Client, project: str
) -> None:
    first = register(platform, client, project, 1.0)
    set_gates(client, project, resources.Gates(alias="production"))
    promote(client, first)
    serve(client, project)
    second = register(platform, client, project, 2.0)

    for version, why in [(first, "the candidate itself"), (second, "no request that")]:
        status, told, errors = replay(platform, project, version)
        assert (status, told) == (1, {})
        assert "NOTHING_TO_REPLAY" in errors
        assert why in errors
    assert not client.registry.GetVersion(service.GetVersionRequest(name=second)).version.validations
