"""Decisions on signatures of packages and the keys that make them: pure, from state and command to events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from google.protobuf.message import Message

from headrace.api.registry.v1 import events_pb2 as events
from headrace.api.registry.v1 import service_pb2 as service
from headrace.api.registry.v1.resources_pb2 import (
    GateResult,
    KeyWithdrawal,
    Model,
    PackageSignature,
    PackageTrust,
    SigningKey,
    Version,
)
from headrace.packages.signatures import PublicKey
from headrace.packages.trust import standing
from headrace_kit.auth import OPERATOR
from headrace_kit.context import CommandContext
from headrace_kit.errors import FailedPrecondition, NotFound, PermissionDenied
from headrace_registry.upkeep import existing, is_person, stamp

MAX_KEYS: Final = 100
GATE: Final = "signed"


def decide_trust(
    state: Model | None,
    command: service.TrustKeyRequest,
    context: CommandContext,
    *,
    key: PublicKey,
    roles: Iterable[str],
) -> list[Message]:
    """The command's key counts from now on; nothing when it does already.

    Raises:
        PermissionDenied: It is no operator who asks.
        FailedPrecondition: It was withdrawn, or there are too many.
    """
    model = existing(state, command.model)
    _require_operator(context.actor, roles)
    known = find_key(model, key.id)
    if known is not None:
        if known.HasField("withdrawal"):
            message = f"the key {key.id[:12]} was withdrawn, and is not trusted again: sign with another"
            raise FailedPrecondition(message, field="public_key", reason="SIGNING_KEY_WITHDRAWN")
        return []
    if len(model.signing_keys) >= MAX_KEYS:
        message = f"{model.name} has had {MAX_KEYS} keys, which is the most a model can have"
        raise FailedPrecondition(message, field="public_key", reason="TOO_MANY_KEYS")
    trusted = SigningKey(
        id=key.id,
        public_key=key.pem,
        reason=command.reason,
        actor=context.actor,
        time=stamp(context.now),
        event_id=str(context.event_id(0)),
    )
    return [events.SigningKeyTrusted(model=model.name, key=trusted)]


def decide_withdraw(
    state: Model | None, command: service.WithdrawKeyRequest, context: CommandContext, *, roles: Iterable[str]
) -> list[Message]:
    """A key counts no more; nothing when it was withdrawn. Raises PermissionDenied, NotFound."""
    model = existing(state, command.model)
    _require_operator(context.actor, roles)
    if key_of(model, command.key_id).HasField("withdrawal"):
        return []
    withdrawal = KeyWithdrawal(
        reason=command.reason, actor=context.actor, time=stamp(context.now), event_id=str(context.event_id(0))
    )
    return [events.SigningKeyWithdrawn(model=model.name, key_id=command.key_id, withdrawal=withdrawal)]


def decide_signed(model: Model, version: Version, signed: PackageSignature, context: CommandContext) -> list[Message]:
    """A signature that was verified is kept; nothing when there is one by its key.

    Raises:
        FailedPrecondition: The key is not trusted, or was withdrawn.
    """
    require_trusted_key(model, signed.key_id)
    if any(each.key_id == signed.key_id for each in version.package_signatures):
        return []
    signature = PackageSignature()
    signature.CopyFrom(signed)
    signature.actor, signature.event_id = context.actor, str(context.event_id(0))
    signature.time.CopyFrom(stamp(context.now))
    return [events.PackageSigned(version=version.name, signature=signature)]


def require_trusted_key(model: Model, key: str) -> SigningKey:
    """A key of the model that counts. Raises FailedPrecondition."""
    found = find_key(model, key)
    if found is None:
        message = f"the key {key[:12]} is not trusted for {model.name}: an operator must trust it first"
        raise FailedPrecondition(message, field="bundle", reason="SIGNING_KEY_NOT_TRUSTED")
    if found.HasField("withdrawal"):
        message = f"the key {key[:12]} was withdrawn by {found.withdrawal.actor}: {found.withdrawal.reason}"
        raise FailedPrecondition(message, field="bundle", reason="SIGNING_KEY_WITHDRAWN")
    return found


def find_key(model: Model, key: str) -> SigningKey | None:
    """A key of the model, withdrawn or not, or None."""
    return next((each for each in model.signing_keys if each.id == key), None)


def key_of(model: Model, key: str) -> SigningKey:
    """As ``find_key``. Raises NotFound."""
    found = find_key(model, key)
    if found is None:
        raise NotFound("key", key, field="key_id")
    return found


def trust_of(model: Model, version: Version) -> PackageTrust:
    """What whoever loads a version has to verify."""
    required = any(each.signed_package_required for each in model.gates)
    return PackageTrust(required=required, keys=model.signing_keys, signatures=version.package_signatures)


def gate(model: Model, version: Version) -> GateResult:
    """Whether a key that counts signed the package."""
    trust = trust_of(model, version)
    found = standing(trust)
    result = GateResult(
        gate=GATE,
        passed=bool(found),
        key_ids=[key.id for key, _ in found],
        actors=list(dict.fromkeys(each.actor for _, each in found)),
        event_ids=[event for key, each in found for event in (each.event_id, key.event_id)],
    )
    if found:
        result.reason = f"{', '.join(key.id[:12] for key, _ in found)} signed exactly this package"
    elif trust.signatures:
        made = [find_key(model, each.key_id) for each in trust.signatures]
        told = [f"{each.id[:12]} ({each.withdrawal.reason})" for each in made if each is not None]
        result.reason = f"every key that signed it was withdrawn, {', '.join(told)}: sign it with another"
    else:
        result.reason = "a key that is trusted must have signed its package: sign it"
    return result


def evolve(model: Model, event: Message) -> bool:
    """Folds ``event`` into the model, in place; False when it is none of this module's."""
    match event:
        case events.SigningKeyTrusted():
            model.signing_keys.append(event.key)
        case events.SigningKeyWithdrawn():
            key_of(model, event.key_id).withdrawal.CopyFrom(event.withdrawal)
        case events.PackageSigned():
            number = int(event.version.rpartition("/")[2])
            model.versions[number - 1].package_signatures.append(event.signature)
        case _:
            return False
    return True


def _require_operator(actor: str, roles: Iterable[str]) -> None:
    if not is_person(actor) or OPERATOR not in roles:
        message = f"{actor} can not say which keys count: a person with the role {OPERATOR} must"
        raise PermissionDenied(message, reason="ROLE_MISSING")
