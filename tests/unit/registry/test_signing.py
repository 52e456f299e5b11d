"""Keys are trusted and withdrawn by operators, signatures count while their key does, and the gate says which."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message

from headrace.api.common.v1 import resources_pb2 as common
from headrace.api.registry.v1 import events_pb2 as events
from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace_kit.errors import FailedPrecondition, NotFound, PermissionDenied
from headrace_registry import domain, signing
from tests.support.registering import MODEL, Registry, by, unmet
from tests.support.signing import KeyPair

KEY, OTHER = KeyPair.make(), KeyPair.make()
OPERATOR = ("operator",)


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.register()
    return registry


def trust(
    registry: Registry, key: KeyPair = KEY, *, actor: str = "persons/ada", roles: tuple[str, ...] = OPERATOR
) -> list[Message]:
    command = service.TrustKeyRequest(model=MODEL, public_key=key.public.decode(), reason="ours")
    return registry.apply(lambda state: signing.decide_trust(state, command, by(actor), key=key.verifier, roles=roles))


def withdraw(
    registry: Registry, key: KeyPair = KEY, *, actor: str = "persons/ada", roles: tuple[str, ...] = OPERATOR
) -> list[Message]:
    command = service.WithdrawKeyRequest(model=MODEL, key_id=key.verifier.id, reason="it leaked")
    return registry.apply(lambda state: signing.decide_withdraw(state, command, by(actor), roles=roles))


def sign(registry: Registry, version: str, key: KeyPair = KEY) -> list[Message]:
    signed = resources.PackageSignature(key_id=key.verifier.id, bundle=common.ObjectRef(sha256="b" * 64))

    def decide(state: resources.Model | None) -> list[Message]:
        assert state is not None
        return signing.decide_signed(state, domain.version_of(state, version), signed, by("services/orchestrator"))

    return registry.apply(decide)


def result(registry: Registry, version: int = 1) -> resources.GateResult:
    return signing.gate(registry.model, registry.model.versions[version - 1])


def test_a_trusted_key_is_kept_with_who_and_why(registry: Registry) -> None:
    [event] = trust(registry)

    assert isinstance(event, events.SigningKeyTrusted)
    [key] = registry.model.signing_keys
    assert (key.id, key.public_key) == (KEY.verifier.id, KEY.public.decode())
    assert (key.actor, key.reason) == ("persons/ada", "ours")
    assert key.event_id
    assert trust(registry) == []


@pytest.mark.parametrize(
    ("actor", "roles"), [("persons/ada", ("reviewer",)), ("persons/ada", ()), ("services/orchestrator", OPERATOR)]
)
def test_operators_alone_say_which_keys_count(registry: Registry, actor: str, roles: tuple[str, ...]) -> None:
    with pytest.raises(PermissionDenied):
        trust(registry, actor=actor, roles=roles)
    trust(registry)
    with pytest.raises(PermissionDenied):
        withdraw(registry, actor=actor, roles=roles)
    assert not registry.model.signing_keys[0].HasField("withdrawal")


def test_a_withdrawn_key_is_not_trusted_again(registry: Registry) -> None:
    trust(registry)
    [event] = withdraw(registry)

    assert isinstance(event, events.SigningKeyWithdrawn)
    assert registry.model.signing_keys[0].withdrawal == event.withdrawal
    assert (event.withdrawal.reason, event.withdrawal.actor) == ("it leaked", "persons/ada")
    assert withdraw(registry) == []
    with pytest.raises(FailedPrecondition) as refusal:
        trust(registry)
    assert refusal.value.reason == "SIGNING_KEY_WITHDRAWN"
    with pytest.raises(NotFound):
        withdraw(registry, OTHER)


def test_a_model_has_no_more_keys_than_it_may(registry: Registry) -> None:
    registry.model.signing_keys.extend(resources.SigningKey(id=f"{each:064x}") for each in range(signing.MAX_KEYS))

    with pytest.raises(FailedPrecondition) as refusal:
        trust(registry)
    assert refusal.value.reason == "TOO_MANY_KEYS"


def test_signatures_of_trusted_keys_alone_are_recorded_once_a_key(registry: Registry) -> None:
    version = f"{MODEL}/versions/1"
    with pytest.raises(FailedPrecondition) as refusal:
        sign(registry, version)
    assert refusal.value.reason == "SIGNING_KEY_NOT_TRUSTED"

    trust(registry)
    trust(registry, OTHER)
    [event] = sign(registry, version)
    assert isinstance(event, events.PackageSigned)
    assert sign(registry, version) == []
    sign(registry, version, OTHER)
    kept = registry.model.versions[0].package_signatures
    assert [each.key_id for each in kept] == [KEY.verifier.id, OTHER.verifier.id]
    assert kept[0] == event.signature

    withdraw(registry)
    registry.register()
    with pytest.raises(FailedPrecondition) as withdrawn:
        sign(registry, f"{MODEL}/versions/2")
    assert withdrawn.value.reason == "SIGNING_KEY_WITHDRAWN"
    assert "it leaked" in withdrawn.value.message


def test_the_gate_says_who_signed_and_stands_on_both_events(registry: Registry) -> None:
    assert not result(registry).passed
    assert "must have signed" in result(registry).reason

    [trusted], [signed] = trust(registry), sign(registry, f"{MODEL}/versions/1")
    assert isinstance(trusted, events.SigningKeyTrusted)
    assert isinstance(signed, events.PackageSigned)
    passed = result(registry)
    assert passed.passed
    assert list(passed.key_ids) == [KEY.verifier.id]
    assert list(passed.event_ids) == [signed.signature.event_id, trusted.key.event_id]
    assert list(passed.actors) == ["services/orchestrator"]

    withdraw(registry)
    assert not result(registry).passed
    assert "it leaked" in result(registry).reason

    trust(registry, OTHER)
    sign(registry, f"{MODEL}/versions/1", OTHER)
    assert list(result(registry).key_ids) == [OTHER.verifier.id]


def test_a_promotion_needs_the_signature_where_gates_ask_for_it(registry: Registry) -> None:
    registry.set_gates(actor="persons/operator", signed_package_required=True)
    version = f"{MODEL}/versions/1"
    with pytest.raises(FailedPrecondition) as refusal:
        registry.promote(version)
    assert unmet(refusal.value) == {"signed"}

    trust(registry)
    sign(registry, version)
    [event] = registry.promote(version)
    assert isinstance(event, events.VersionPromoted)
    [kept] = [each for each in event.promotion.results if each.gate == "signed"]
    assert list(kept.key_ids) == [KEY.verifier.id]


def test_what_is_to_be_verified_is_told_with_the_version(registry: Registry) -> None:
    trust(registry)
    withdraw(registry)
    told = signing.trust_of(registry.model, registry.model.versions[0])
    assert not told.required
    assert [each.HasField("withdrawal") for each in told.keys] == [True]

    registry.set_gates(actor="persons/operator", alias="staging", signed_package_required=True)
    assert signing.trust_of(registry.model, registry.model.versions[0]).required
