"""Serving loads what a key that counts signed, as long as it counts, and nothing that was tampered with."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import grpc
import httpx2
import pytest

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.registry.v1 import resources_pb2 as registry
from headrace.api.registry.v1 import service_pb2 as registry_service
from headrace.api.registry.v1.service_pb2_grpc import SigningServiceStub
from headrace.api.serving.v1 import resources_pb2 as resources
from headrace.api.serving.v1 import service_pb2 as service
from headrace.errors import error_details
from headrace.packages.files import SINGLE
from headrace_local import accounts, psql
from tests.support.serving import Platform, command_id, package, values, wait_for
from tests.support.signing import KeyPair

ROWS = [[1.0, 2.0, 3.0]]
KEY, OTHER = KeyPair.make(), KeyPair.make()


class Signing:
    """A model of its own with two trusted keys, and an endpoint on it."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.id = f"m{uuid4().hex[:10]}"
        self.model = f"projects/default/models/{self.id}"
        self.endpoint = f"projects/default/endpoints/{self.id}"
        self.stub: Any = SigningServiceStub(platform.channels[0])  # the operator's, as that of the registry

    async def register(self, weight: float, *, by: KeyPair | None = None) -> str:
        """A version, signed when it says by whom."""
        version = await self.platform.register(self.id, weight)
        if by is not None:
            self.trust(by)
            self.sign(version, by)
        return version

    def trust(self, key: KeyPair) -> None:
        self.stub.TrustKey(
            registry_service.TrustKeyRequest(
                command_id=command_id(), model=self.model, public_key=key.public.decode(), reason="ours"
            )
        )

    def withdraw(self, key: KeyPair) -> None:
        self.stub.WithdrawKey(
            registry_service.WithdrawKeyRequest(
                command_id=command_id(), model=self.model, key_id=key.verifier.id, reason="it leaked"
            )
        )

    def sign(self, version: str, key: KeyPair, *, sha256: str = "") -> registry.PackageSignature:
        files = {SINGLE: sha256 or self.version(version).artifact.sha256}
        request = registry_service.SignVersionRequest(
            command_id=command_id(), version=version, bundle=key.signer.sign(files, name=self.id)
        )
        made: registry.PackageSignature = self.stub.SignVersion(request).signature
        return made

    def gate(self, *, signed: bool) -> None:
        """Promotions need nothing else."""
        gates = registry.Gates(alias="production", signed_package_required=signed)
        self.platform.registry.SetGates(
            registry_service.SetGatesRequest(command_id=command_id(), model=self.model, gates=gates)
        )

    def serve(self, version: str) -> None:
        """``production`` is the version, and the endpoint is there."""
        self.platform.promote(version)
        self.platform.endpoint(self.id, self.id)

    def route(self, version: str) -> None:
        """The endpoint answers with the version, when it can be loaded."""
        routes = [resources.Route(version=version, weight=100)]
        self.platform.serving.SetRoutes(
            service.SetRoutesRequest(command_id=command_id(), name=self.endpoint, routes=routes)
        )

    def version(self, name: str) -> registry.Version:
        found: registry.Version = self.platform.registry.GetVersion(
            registry_service.GetVersionRequest(name=name)
        ).version
        return found

    def answers(self) -> list[float]:
        return values(self.platform.infer(self.id, ROWS))

    def refusal(self, version: str) -> str:
        """Why the version can not be routed to."""
        with pytest.raises(grpc.RpcError) as refused:
            self.route(version)
        code, details = error_details(refused.value)
        assert code is grpc.StatusCode.FAILED_PRECONDITION, details
        return details.reason

    def change_state(self, change: Any) -> None:
        """What somebody who has the registry's database alone could do: its state says something else."""
        stack, program = self.platform.stack, accounts.binaries(user=None) / "psql"
        where = stack.addresses.postgres_dsn.rpartition("/")[0] + "/headrace_registry"
        query = f"SELECT encode(state, 'hex') FROM streams WHERE stream_id = '{self.model}';"
        model = registry.Model.FromString(bytes.fromhex(stack.call(psql.execute(program, where, query))))
        change(model)
        state = model.SerializeToString().hex()
        write = f"UPDATE streams SET state = decode('{state}', 'hex') WHERE stream_id = '{self.model}';"
        stack.call(psql.execute(program, where, write))


@pytest.fixture
def signing(platform: Platform) -> Signing:
    return Signing(platform)


def put_other_bytes(platform: Platform, reference: ObjectRef, content: bytes) -> None:
    """Other bytes in the place of an object, in the store and where serving keeps it."""
    httpx2.put(platform.objects.presign_put(reference), content=content).raise_for_status()
    for kept in platform.stack.stack.folder.path.rglob(f"packages/{reference.sha256}"):
        kept.write_bytes(content)


async def test_a_signed_version_answers_where_signatures_are_asked_for(signing: Signing) -> None:
    first = await signing.register(2.0, by=KEY)
    signing.gate(signed=True)
    signing.serve(first)

    assert signing.answers() == [12.0]


async def test_an_unsigned_version_is_neither_promoted_nor_loaded_where_signatures_are_asked_for(
    signing: Signing,
) -> None:
    first, second = await signing.register(2.0, by=KEY), await signing.register(3.0)
    signing.gate(signed=True)
    signing.serve(first)

    with pytest.raises(grpc.RpcError) as refused:
        signing.platform.promote(second)
    assert [each.type for each in error_details(refused.value)[1].violations] == ["signed"]
    assert signing.refusal(second) == "PACKAGE_NOT_SIGNED"
    assert signing.answers() == [12.0]

    signing.sign(second, KEY)
    signing.platform.promote(second)
    wait_for(lambda: signing.answers() == [18.0])


async def test_an_unsigned_version_is_loaded_where_nobody_asks(signing: Signing) -> None:
    first = await signing.register(2.0)
    signing.gate(signed=False)
    signing.serve(first)

    assert signing.answers() == [12.0]


async def test_a_version_whose_key_was_withdrawn_is_loaded_no_more_until_another_signs_it(signing: Signing) -> None:
    first, second = await signing.register(2.0, by=OTHER), await signing.register(3.0, by=KEY)
    signing.gate(signed=False)  # also where nobody asks for signatures
    signing.serve(first)
    signing.route(second)  # it is loaded, and remembered
    signing.route(first)
    signing.withdraw(KEY)
    killed = signing.platform.stack.kill("serving")
    await asyncio.to_thread(signing.platform.stack.wait_ready, "serving", other_than=killed)

    assert signing.refusal(second) == "SIGNING_KEY_WITHDRAWN"
    assert signing.answers() == [12.0]
    with pytest.raises(grpc.RpcError) as refused:
        signing.sign(await signing.register(4.0), KEY)
    assert error_details(refused.value)[1].reason == "SIGNING_KEY_WITHDRAWN"

    signing.sign(second, OTHER)
    signing.route(second)
    wait_for(lambda: signing.answers() == [18.0])


async def test_the_registry_takes_no_signature_of_another_package_or_an_unknown_key(signing: Signing) -> None:
    first, second = await signing.register(2.0, by=KEY), await signing.register(3.0)

    for key, sha256, code, reason in [
        (KEY, signing.version(first).artifact.sha256, grpc.StatusCode.INVALID_ARGUMENT, "PACKAGE_SIGNATURE_INVALID"),
        (OTHER, "", grpc.StatusCode.FAILED_PRECONDITION, "SIGNING_KEY_NOT_TRUSTED"),
    ]:
        with pytest.raises(grpc.RpcError) as refused:
            signing.sign(second, key, sha256=sha256)
        found, details = error_details(refused.value)
        assert (found, details.reason, details.field) == (code, reason, "bundle")
    assert not signing.version(second).package_signatures


async def test_a_package_that_was_swapped_in_the_registrys_database_is_not_loaded(signing: Signing) -> None:
    """Digests alone would not tell: what the state names is what lies there."""
    first, second = await signing.register(2.0, by=KEY), await signing.register(3.0, by=KEY)
    other = await signing.register(5.0)
    signing.gate(signed=True)
    signing.serve(first)
    bad = signing.version(other).artifact

    signing.change_state(lambda model: model.versions[1].artifact.CopyFrom(bad))
    assert signing.refusal(second) == "PACKAGE_SIGNATURE_INVALID"

    of_first = signing.version(first).package_signatures[0]
    signing.change_state(lambda model: model.versions[1].package_signatures[0].CopyFrom(of_first))
    assert signing.refusal(second) == "PACKAGE_SIGNATURE_INVALID"
    assert signing.answers() == [12.0]


async def test_other_bytes_of_package_or_signature_are_not_loaded(signing: Signing) -> None:
    first, second = await signing.register(2.0, by=KEY), await signing.register(3.0, by=KEY)
    signing.gate(signed=True)
    signing.serve(first)
    version = signing.version(second)
    signature = version.package_signatures[0].bundle
    whole = await signing.platform.objects.get(signature)

    put_other_bytes(signing.platform, signature, KEY.signer.sign({SINGLE: "0" * 64}, name="other"))
    with pytest.raises(grpc.RpcError) as refused:
        signing.route(second)
    assert error_details(refused.value)[1].reason == "OBJECT_CORRUPT"
    put_other_bytes(signing.platform, signature, whole)

    put_other_bytes(signing.platform, version.artifact, package(7.0))
    with pytest.raises(grpc.RpcError) as refused_too:
        signing.route(second)
    assert error_details(refused_too.value)[1].reason == "OBJECT_CORRUPT"
    put_other_bytes(signing.platform, version.artifact, package(3.0))
    signing.route(second)
    wait_for(lambda: signing.answers() == [18.0])


async def test_signed_versions_answer_again_after_a_kill_while_registry_and_objects_can_not_be_asked(
    signing: Signing,
) -> None:
    first = await signing.register(2.0, by=KEY)
    signing.gate(signed=True)
    signing.serve(first)
    assert signing.answers() == [12.0]

    stopped = signing.platform.stack.kill("serving")
    signing.platform.stack.kill("registry")
    await asyncio.to_thread(signing.platform.stack.wait_ready, "serving", other_than=stopped)
    assert signing.answers() == [12.0]
    await asyncio.to_thread(signing.platform.stack.wait_ready, "registry")
