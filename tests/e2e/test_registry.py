"""The registry as people and services use it: over gRPC, with tokens."""

import hashlib
import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path
from uuid import uuid4

import grpc
import pytest

from headrace.api.common.v1 import resources_pb2 as common
from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace.api.registry.v1.service_pb2_grpc import RegistryServiceStub
from headrace.api.tracking.v1 import service_pb2 as tracking
from headrace.client import Client
from headrace.errors import error_details
from headrace.story import chain, read_logs
from tests.support.eventually import eventually
from tests.support.platform import Platform

pytestmark = pytest.mark.timeout(180)
PACKAGE = b"a model package"


def upload(client: Client, project: str, content: bytes = PACKAGE) -> common.ObjectRef:
    request = tracking.PresignUploadRequest(
        parent=f"projects/{project}", sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content)
    )
    presigned = client.tracking.PresignUpload(request)
    if presigned.url:
        put = urllib.request.Request(presigned.url, data=content, method="PUT")
        urllib.request.urlopen(put, timeout=10).close()
    return presigned.object


def headrace(platform: Platform, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HEADRACE_DATA": str(platform.folder), "COLUMNS": "200", "NO_COLOR": "1"}
    command = [str(Path(sys.executable).parent / "headrace"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def version_request(project: str, artifact: common.ObjectRef) -> service.CreateVersionRequest:
    tensor = common.TensorSpec(name="input", datatype=common.DATA_TYPE_FP32, shape=[-1, 2], columns=["a", "b"])
    return service.CreateVersionRequest(
        command_id=str(uuid4()),
        model=f"projects/{project}/models/delays",
        create_model=True,
        artifact=artifact,
        format=resources.MODEL_FORMAT_ONNX,
        signature=common.Signature(inputs=[tensor], outputs=[tensor]),
        datasets=[common.DatasetVersion(name="flights", digest="sha256:1")],
    )


def test_a_version_goes_from_registration_to_production_and_back(platform: Platform, project: str) -> None:
    with platform.client() as person, Client(platform.connection_of("orchestrator")) as pipeline:
        names: list[str] = []
        promotions: list[resources.Promotion] = []
        for _ in range(2):
            created = pipeline.registry.CreateVersion(version_request(project, upload(person, project))).version
            names.append(created.name)
            check = service.RecordValidationRequest(
                command_id=str(uuid4()), version=created.name, check="quality", passed=True, detail="rmse 20 < 30"
            )
            pipeline.registry.RecordValidation(check)
            review = service.ReviewVersionRequest(
                command_id=str(uuid4()), version=created.name, approve=True, reason="looked at it"
            )
            person.registry.ReviewVersion(review)
            promote = service.PromoteVersionRequest(
                command_id=str(uuid4()), version=created.name, alias="production", expected_revision=-1
            )
            promotion = person.registry.PromoteVersion(promote).promotion
            assert person.registry.PromoteVersion(promote).promotion == promotion
            promotions.append(promotion)
        rollback = service.RollBackAliasRequest(
            command_id=str(uuid4()),
            model=f"projects/{project}/models/delays",
            alias="production",
            expected_revision=2,
            reason="worse",
        )
        back = person.registry.RollBackAlias(rollback).promotion
        assert (back.version, back.previous_version, back.revision, back.rollback) == (1, 2, 3, True)
        alias = service.GetVersionRequest(name=f"projects/{project}/models/delays@production")
        assert person.registry.GetVersion(alias).version.name == names[0]
        entries = eventually(
            lambda: read_logs(person, prefix=f"projects/{project}/", services=["registry"]),
            lambda found: any(entry.event_id == back.event_id for entry in found),
        )
        kinds = [entry.type.rpartition(".")[2] for entry in entries]
        assert kinds[:2] == ["ModelCreated", "VersionCreated"]
        assert kinds[-1] == "VersionRolledBack"
        assert {entry.meta.actor for entry in entries} == {"persons/operator", "services/orchestrator"}
        assert [entry.version for entry in entries] == list(range(1, len(entries) + 1))
        assert chain(entries, promotions[1].event_id)[0].entry.event_id == promotions[1].event_id


def test_a_promotion_carries_what_every_gate_said_and_a_refusal_names_every_unmet_one(
    platform: Platform, project: str
) -> None:
    model = f"projects/{project}/models/delays"
    dataset = common.DatasetVersion(name="held out", digest="sha256:h")
    with platform.client() as person, Client(platform.connection_of("orchestrator")) as pipeline:
        names: list[str] = []
        for rmse in (20.0, 19.0):
            request = version_request(project, upload(person, project))
            request.format = resources.MODEL_FORMAT_PICKLE
            request.metrics.add(name="rmse", value=rmse)
            names.append(pipeline.registry.CreateVersion(request).version.name)
            check = service.RecordValidationRequest(
                command_id=str(uuid4()), version=names[-1], check="holdout", passed=True, dataset=dataset
            )
            check.metrics.add(name="rmse", value=rmse)
            pipeline.registry.RecordValidation(check)
        gates = resources.Gates(
            alias="production",
            metrics=[resources.MetricGate(metric="rmse", comparison=resources.COMPARISON_AT_MOST, threshold=25)],
            champion=[resources.ChampionGate(metric="rmse", margin=0.5)],
            max_age_s=3600,
            safe_format_required=True,
            approvals=[resources.ApprovalGate(count=1, role="operator")],
        )
        person.registry.SetGates(service.SetGatesRequest(command_id=str(uuid4()), model=model, gates=gates))

        def promote(version: str) -> resources.Promotion:
            command = service.PromoteVersionRequest(
                command_id=str(uuid4()), version=version, alias="production", expected_revision=-1
            )
            return person.registry.PromoteVersion(command).promotion

        with pytest.raises(grpc.RpcError) as refusal:
            promote(names[0])
        violations = {each.type for each in error_details(refusal.value)[1].violations}
        assert violations == {"format", "approvals:operator"}
        asked = service.CheckPromotionRequest(version=names[0], alias="production")
        assert {each.gate for each in person.registry.CheckPromotion(asked).unmet} == violations
        for name in names:
            person.registry.ConsentToFormat(
                service.ConsentToFormatRequest(command_id=str(uuid4()), version=name, given=True, reason="ours")
            )
            person.registry.ReviewVersion(
                service.ReviewVersionRequest(command_id=str(uuid4()), version=name, approve=True, reason="seen")
            )
        promote(names[0])
        results = {each.gate: each for each in promote(names[1]).results}

    assert all(each.passed for each in results.values())
    contest = results["champion:rmse"]
    assert (contest.value, contest.threshold, contest.champion, contest.dataset_digest) == (19, 20, 1, "sha256:h")
    assert list(results["approvals:operator"].actors) == ["persons/operator"]
    assert {"metric:rmse", "freshness", "format", "approval"} <= set(results)


def test_an_operators_override_is_kept_and_no_service_has_one(platform: Platform, project: str) -> None:
    with platform.client() as person, Client(platform.connection_of("orchestrator")) as pipeline:
        name = pipeline.registry.CreateVersion(version_request(project, upload(person, project))).version.name
        command = service.PromoteVersionRequest(
            command_id=str(uuid4()), version=name, alias="production", expected_revision=-1, override_gates=True
        )
        with pytest.raises(grpc.RpcError) as without_reason:
            person.registry.PromoteVersion(command)
        assert error_details(without_reason.value)[1].field == "reason"
        command.reason = "the flood is now"
        with pytest.raises(grpc.RpcError) as by_a_service:
            pipeline.registry.PromoteVersion(command)
        assert by_a_service.value.code() is grpc.StatusCode.PERMISSION_DENIED
        promotion = person.registry.PromoteVersion(command).promotion
        version = person.registry.GetVersion(service.GetVersionRequest(name=name)).version

    assert [each.gate for each in promotion.override.unmet] == ["approval"]
    assert list(version.overrides) == [promotion.override]


def test_an_alias_goes_back_to_the_version_of_a_moment_from_the_command_line(platform: Platform, project: str) -> None:
    model, alias = f"projects/{project}/models/delays", "production"
    with platform.client() as person, Client(platform.connection_of("orchestrator")) as pipeline:
        times: list[str] = []
        for _ in range(3):
            name = pipeline.registry.CreateVersion(version_request(project, upload(person, project))).version.name
            promote = service.PromoteVersionRequest(
                command_id=str(uuid4()),
                version=name,
                alias=alias,
                expected_revision=-1,
                override_gates=True,
                reason="at once",
            )
            times.append(person.registry.PromoteVersion(promote).promotion.time.ToJsonString())
        then = ("models", "rollback", f"{model}@{alias}", "--to", times[1])
        told = json.loads(headrace(platform, *then, "--check", "--json").stdout)
        assert (told["promotion"]["version"], [each["version"] for each in told["undone"]]) == ("2", ["3"])
        assert person.registry.GetModel(service.GetModelRequest(name=model)).model.aliases[0].version == 3

        moved = json.loads(headrace(platform, *then, "--json").stdout)
        before = headrace(platform, "models", "rollback", f"{model}@{alias}", "--to", "2020-01-01T00:00Z")

    assert (moved["version"], moved["rollback"], moved["reason"]) == ("2", True, f"to the state of {times[1]}")
    assert moved["override"]["unmet"][0]["gate"] == "approval"
    assert before.returncode != 0
    assert "pointed to no version" in before.stdout + before.stderr


def test_a_download_gives_the_bytes_of_the_digest(platform: Platform, project: str) -> None:
    with platform.client() as client:
        version = client.registry.CreateVersion(version_request(project, upload(client, project))).version
        presigned = client.registry.PresignArtifact(service.PresignArtifactRequest(version=version.name))
        with urllib.request.urlopen(presigned.url, timeout=10) as response:
            assert response.read() == PACKAGE


def test_a_version_of_bytes_that_are_not_there_is_refused_by_field(platform: Platform, project: str) -> None:
    sha256 = "0" * 64
    missing = common.ObjectRef(uri=f"{project}/sha256/00/{sha256}", sha256=sha256, size_bytes=3)
    with platform.client() as client:
        with pytest.raises(grpc.RpcError) as refusal:
            client.registry.CreateVersion(version_request(project, missing))
        code, details = error_details(refusal.value)
        assert (code, details.field) == (grpc.StatusCode.INVALID_ARGUMENT, "artifact")
        with pytest.raises(grpc.RpcError) as absent:
            client.registry.GetModel(service.GetModelRequest(name=f"projects/{project}/models/delays"))
        assert absent.value.code() is grpc.StatusCode.NOT_FOUND


def test_without_a_token_nothing_is_said(platform: Platform, project: str) -> None:
    with grpc.insecure_channel(platform.connection.address("registry")) as channel:
        stub = RegistryServiceStub(channel)
        for metadata in ((), (("authorization", "Bearer wrong"),), (("authorization", "Basic x"),)):
            with pytest.raises(grpc.RpcError) as refusal:
                stub.ListModels(service.ListModelsRequest(), metadata=metadata, timeout=10)
            assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED
