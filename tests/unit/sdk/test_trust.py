"""Which packages may be loaded, by what the registry says of keys and signatures."""

from __future__ import annotations

import pytest

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.registry.v1.resources_pb2 import KeyWithdrawal, PackageSignature, PackageTrust, SigningKey
from headrace.packages.files import SINGLE
from headrace.packages.trust import NotTrusted, pinned, require_trusted
from tests.support.signing import KeyPair

KEY, OTHER = KeyPair.make(), KeyPair.make()
FILES = {SINGLE: "a" * 64}


def trust(*keys: KeyPair, withdrawn: KeyPair | None = None, required: bool = False) -> PackageTrust:
    found = PackageTrust(required=required)
    for each in keys:
        key = SigningKey(id=each.verifier.id, public_key=each.verifier.pem)
        if each is withdrawn:
            key.withdrawal.CopyFrom(KeyWithdrawal(reason="it leaked"))
        found.keys.append(key)
    return found


def signed(told: PackageTrust, *keys: KeyPair, files: dict[str, str] | None = None) -> dict[str, bytes]:
    """Adds signatures; returns their bytes."""
    bundles: dict[str, bytes] = {}
    for each in keys:
        sha256 = each.verifier.id
        told.signatures.append(PackageSignature(key_id=each.verifier.id, bundle=ObjectRef(sha256=sha256)))
        bundles[sha256] = each.signer.sign(files or FILES, name="delays")
    return bundles


def refusal(told: PackageTrust, bundles: dict[str, bytes]) -> str:
    with pytest.raises(NotTrusted) as refused:
        require_trusted(told, "version 1", files=FILES, bundles=bundles)
    return refused.value.reason


def test_without_signatures_only_a_model_that_asks_for_none_is_loaded() -> None:
    assert require_trusted(trust(), "version 1", files=FILES, bundles={}) == []
    assert require_trusted(trust(KEY), "version 1", files=FILES, bundles={}) == []
    assert refusal(trust(KEY, required=True), {}) == "PACKAGE_NOT_SIGNED"


def test_every_signature_that_counts_is_verified() -> None:
    told = trust(KEY, OTHER)
    bundles = signed(told, KEY, OTHER)

    assert require_trusted(told, "v", files=FILES, bundles=bundles) == [KEY.verifier.id, OTHER.verifier.id]
    bundles[OTHER.verifier.id] = OTHER.signer.sign({SINGLE: "b" * 64}, name="delays")
    assert refusal(told, bundles) == "PACKAGE_SIGNATURE_INVALID"
    bundles[OTHER.verifier.id] = bundles[KEY.verifier.id]
    assert refusal(told, bundles) == "PACKAGE_SIGNATURE_INVALID"
    bundles[OTHER.verifier.id] = b"{}"
    assert refusal(told, bundles) == "PACKAGE_SIGNATURE_INVALID"


def test_a_signed_version_is_not_loaded_once_its_keys_are_withdrawn_even_where_none_is_asked_for() -> None:
    told = trust(KEY, OTHER, withdrawn=KEY)
    bundles = signed(told, KEY)
    assert refusal(told, bundles) == "SIGNING_KEY_WITHDRAWN"

    bundles |= signed(told, OTHER)
    assert require_trusted(told, "v", files=FILES, bundles=bundles) == [OTHER.verifier.id]


def test_a_key_of_ones_own_counts_whatever_the_registry_trusts() -> None:
    told = trust(KEY)
    bundles = signed(told, KEY)

    assert require_trusted(pinned(told, [KEY.verifier]), "v", files=FILES, bundles=bundles) == [KEY.verifier.id]
    assert refusal(pinned(told, [OTHER.verifier]), bundles) == "SIGNING_KEY_NOT_TRUSTED"
    assert refusal(pinned(trust(), [KEY.verifier]), {}) == "PACKAGE_NOT_SIGNED"
