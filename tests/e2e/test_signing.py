"""Packages are signed, verified and downloaded by command line and SDK; MLflow's clients get what may be loaded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import uuid4

import grpc
import httpx2
import orjson
import pytest

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace.client import Client
from headrace.errors import FailedPrecondition, HeadraceError, InvalidArgument
from headrace.packages import remote
from headrace.packages.files import MANIFEST, SINGLE
from headrace_kit.objects import S3ObjectStore
from tests.e2e.test_registry import headrace, upload, version_request
from tests.support.eventually import eventually
from tests.support.platform import Platform
from tests.support.signing import KeyPair, openssf_signs, openssf_verifies

pytestmark = pytest.mark.timeout(300)  # commands are processes, and there are many
FILES = {"MLmodel": b"flavors: {}\n", "data/model.bin": bytes(range(256)) * 64}
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(platform: Platform, project: str) -> Run:
    """``headrace models`` in the project: status, and what it said."""

    def models(*arguments: object) -> tuple[int, str]:
        done = headrace(platform, "models", *map(str, arguments), "--project", project)
        return done.returncode, done.stdout + done.stderr

    return models


def register(client: Client, project: str, files: Mapping[str, bytes] = FILES) -> resources.Version:
    """A version whose package is a folder; a single file where that is all there is."""
    objects = {path: upload(client, project, content) for path, content in files.items()}
    request = version_request(project, objects.get(SINGLE, ObjectRef()))
    if SINGLE not in objects:
        listed = [
            {"path": path, "sha256": each.sha256, "size_bytes": each.size_bytes} for path, each in objects.items()
        ]
        request.artifact.CopyFrom(upload(client, project, orjson.dumps({"files": listed})))
        request.artifact.media_type, request.format = MANIFEST, resources.MODEL_FORMAT_MLFLOW
    return client.registry.CreateVersion(request).version


def written(folder: Path, files: Mapping[str, bytes] = FILES) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def read(folder: Path) -> dict[str, bytes]:
    return {each.relative_to(folder).as_posix(): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def trust(client: Client, project: str, key: KeyPair) -> None:
    model = f"projects/{project}/models/delays"
    request = service.TrustKeyRequest(
        command_id=str(uuid4()), model=model, public_key=key.public.decode(), reason="ours"
    )
    client.signing.TrustKey(request)


def bundle_of(client: Client, version: resources.Version, key: int = 0) -> bytes:
    """The signature as the platform keeps it."""
    kept = client.registry.GetVersion(service.GetVersionRequest(name=version.name)).version.package_signatures[key]
    asked = service.PresignArtifactRequest(version=version.name, sha256=kept.bundle.sha256)
    return httpx2.get(client.registry.PresignArtifact(asked).url).raise_for_status().content


def test_a_package_is_signed_verified_and_downloaded_by_commands(
    platform: Platform, project: str, run: Run, tmp_path: Path
) -> None:
    private, public = KeyPair.make().write(tmp_path)
    _, other = KeyPair.make().write(tmp_path, "other")
    with platform.client() as client:
        register(client, project)

    assert run("sign", "delays", 1, "--key", private)[0] == 1  # nobody trusts it yet
    assert run("trust-key", "delays", public, "-m", "the release team's")[0] == 0
    assert run("sign", "delays", 1, "--key", private, "--path", written(tmp_path / "mine"))[0] == 0
    status, told = run("verify", "delays", 1, "--json")
    key = json.loads(run("keys", "delays", "--json")[1])[0]["id"]
    assert (status, json.loads(told)["signed_by"]) == (0, [key])

    assert run("download", "delays", 1, "-o", tmp_path / "theirs")[0] == 0
    assert read(tmp_path / "theirs") == FILES
    assert run("download", "delays", 1, "-o", tmp_path / "theirs")[0] == 1  # it is there already
    assert run("verify", "delays", 1, "--key", public)[0] == 0
    status, told = run("verify", "delays", 1, "--key", other)
    assert status == 1
    assert "no key that is trusted" in told

    assert run("withdraw-key", "delays", key[:12], "-m", "it leaked")[0] == 0
    status, told = run("download", "delays", 1, "-o", tmp_path / "later")
    assert status == 1
    assert "it leaked" in told
    assert not (tmp_path / "later").exists()
    assert "it leaked" in run("keys", "delays")[1]


def test_a_signer_who_has_other_bytes_signs_nothing(platform: Platform, project: str, run: Run, tmp_path: Path) -> None:
    private, public = KeyPair.make().write(tmp_path)
    with platform.client() as client:
        version = register(client, project)
        assert run("trust-key", "delays", public, "-m", "ours")[0] == 0
        mine = written(tmp_path / "mine", {**FILES, "MLmodel": b"other"})
        status, told = run("sign", "delays", 1, "--key", private, "--path", mine)

        assert status == 1
        assert "MLmodel: they are not what was signed" in told.replace("\n", " ").replace("  ", " ")
        found = client.registry.GetVersion(service.GetVersionRequest(name=version.name)).version
        assert not found.package_signatures


@pytest.mark.modelsigning
def test_openssfs_program_verifies_what_was_downloaded_and_signs_what_is_recorded(
    platform: Platform, project: str, run: Run, tmp_path: Path
) -> None:
    ours, theirs = KeyPair.make(), KeyPair.make()
    private, _ = theirs.write(tmp_path)
    _, our_public = ours.write(tmp_path, "ours")
    with platform.client() as client:
        version = register(client, project)
        trust(client, project, ours)
        trust(client, project, theirs)
        remote.sign(client, version.name, ours.signer)
        remote.download(client, version.name, tmp_path / "model")
        (tmp_path / "ours.sig").write_bytes(bundle_of(client, version))
        assert openssf_verifies(tmp_path / "model", tmp_path / "ours.sig", key=our_public)

        openssf_signs(tmp_path / "model", tmp_path / "theirs.sig", key=private)
        assert run("sign", "delays", 1, "--signature", tmp_path / "theirs.sig")[0] == 0
        assert remote.verify(client, version.name).key_ids == (ours.verifier.id, theirs.verifier.id)
        assert bundle_of(client, version, 1) == (tmp_path / "theirs.sig").read_bytes()

        (tmp_path / "model" / "MLmodel").write_bytes(b"other")
        openssf_signs(tmp_path / "model", tmp_path / "other.sig", key=private)
        assert run("sign", "delays", 1, "--signature", tmp_path / "other.sig")[0] == 1


def test_bytes_that_were_tampered_with_are_neither_verified_nor_downloaded(
    platform: Platform, project: str, tmp_path: Path
) -> None:
    key = KeyPair.make()
    with platform.client() as client:
        version = register(client, project, {SINGLE: b"an onnx model"})
        trust(client, project, key)
        remote.sign(client, version.name, key.signer)
        remote.download(client, version.name, tmp_path / "model.onnx")
        assert (tmp_path / "model.onnx").read_bytes() == b"an onnx model"

        put_other(platform, version.artifact, b"an onxn model")
        with pytest.raises(HeadraceError) as unverified:
            remote.verify(client, version.name)
        with pytest.raises(HeadraceError) as refused:
            remote.download(client, version.name, tmp_path / "again.onnx")
        assert (unverified.value.reason, refused.value.reason) == ("OBJECT_CORRUPT", "OBJECT_CORRUPT")
        assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]
        put_other(platform, version.artifact, b"an onnx model")


def put_other(platform: Platform, reference: ObjectRef, content: bytes) -> None:
    """Other bytes in the place of an object, as whoever has the store could put them."""
    store = platform.addresses.s3
    assert store is not None
    objects = S3ObjectStore(
        store.endpoint, access_key=store.access_key, secret_key=store.secret_key, bucket=store.bucket
    )
    try:
        httpx2.put(objects.presign_put(reference), content=content).raise_for_status()
    finally:
        asyncio.run(objects.close())


def test_a_signature_is_recorded_once_whenever_the_registry_is_killed(platform: Platform, project: str) -> None:
    key = KeyPair.make()
    with platform.client() as client:
        version = register(client, project)
        trust(client, project, key)
        files = {path: each.sha256 for path, each in remote.inspect(client, version.name).files.items()}
        request = service.SignVersionRequest(
            command_id=str(uuid4()), version=version.name, bundle=key.signer.sign(files, name="delays")
        )
        killed = platform.kill("registry")

        def signed() -> service.SignVersionResponse | None:
            try:
                return client.signing.SignVersion(request, timeout=10)
            except grpc.RpcError:
                return None

        first = eventually(signed, bool, within_s=60)
        assert first is not None
        killed = platform.kill("registry")
        platform.wait_ready("registry", other_than=killed)
        assert eventually(signed, bool, within_s=60) == first

        found = client.registry.GetVersion(service.GetVersionRequest(name=version.name)).version
        assert [each.key_id for each in found.package_signatures] == [key.verifier.id]
        told = client.registry.GetModel(service.GetModelRequest(name=f"projects/{project}/models/delays")).model
        assert told.revision == 4  # created, registered, trusted, signed


def test_a_folder_is_not_written_where_there_is_something(platform: Platform, project: str, tmp_path: Path) -> None:
    with platform.client() as client:
        folder, single = register(client, project), register(client, project, {SINGLE: b"a model"})
        (tmp_path / "there").mkdir()
        with pytest.raises(HeadraceError, match="there already"):
            remote.download(client, folder.name, tmp_path / "there")
        with pytest.raises(InvalidArgument, match="is a folder"):
            remote.download(client, single.name, tmp_path / "there")
        assert read(tmp_path) == {}


def test_a_manifest_that_leads_out_of_its_package_is_not_downloaded(
    platform: Platform, project: str, tmp_path: Path
) -> None:
    with platform.client() as client:
        version = register(client, project, {"../out": b"x", "in": b"y"})
        with pytest.raises(FailedPrecondition) as refused:
            remote.download(client, version.name, tmp_path / "model")
        assert refused.value.reason == "MANIFEST_INVALID"
        assert list(tmp_path.iterdir()) == []
