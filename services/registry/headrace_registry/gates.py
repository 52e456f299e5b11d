"""What a promotion lacks: pure questions to the state of a model.

A promotion stands on the word of a person who is not the author of the version: an approval of the version, a standing
approval, or gates that ask for no approval.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from headrace.api.common.v1 import resources_pb2 as common
from headrace.api.registry.v1.resources_pb2 import (
    VERSION_STATE_ARCHIVED,
    Alias,
    Approval,
    Gates,
    Model,
    StandingApproval,
    UnmetGate,
    Validation,
    Version,
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a promotion stands on, or lacks.

    Attributes:
        unmet: Every reason against it; empty when it may be made.
        approvals: Persons' approvals it stands on.
        standing_approval: The standing approval it cites when no person approved the version itself.
        validations: The newest result of each check, those that passed.
        gates: The gates that were set for the alias, or None.
    """

    unmet: tuple[UnmetGate, ...]
    approvals: tuple[Approval, ...]
    standing_approval: StandingApproval | None
    validations: tuple[Validation, ...]
    gates: Gates | None


def find_alias(model: Model, alias: str) -> Alias | None:
    """The alias of that name, or None."""
    return next((each for each in model.aliases if each.alias == alias), None)


def same_word(one: Gates, other: Gates) -> bool:
    """Whether two gates ask for the same, set by the same person."""
    return _word(one) == _word(other)


def newest_validations(version: Version) -> dict[str, Validation]:
    """The newest result of each check, by its name."""
    return {each.check: each for each in version.validations}


def judge(model: Model, version: Version, *, alias: str, actor: str, now: datetime) -> Verdict:
    """Whether ``actor`` may move ``alias`` to ``version`` at ``now``, and on what grounds."""
    found = next((each for each in model.gates if each.alias == alias), None)
    gates = found or Gates(alias=alias, approval_required=True)
    newest = newest_validations(version)
    unmet = list(_unmet_checks(newest, gates.required_checks))
    if version.state == VERSION_STATE_ARCHIVED:
        unmet.append(UnmetGate(gate="archived", reason="the version is archived; register it again to use it"))
    if gates.compatible_signature_required:
        unmet.extend(_unmet_signature(model, version, alias))
    approvals = standing_reviews(version)
    rejections = [each for each in approvals.values() if not each.approved]
    granted = [each for each in approvals.values() if each.approved]
    standing: StandingApproval | None = None
    if rejections:
        last = rejections[-1]
        unmet.append(UnmetGate(gate="approval", reason=f"{last.actor} rejected it: {last.reason}"))
    elif not granted and not _vouched_for(version, gates):
        standing = citable_approval(model, version, alias=alias, actor=actor, now=now)
        if standing is None:
            unmet.append(UnmetGate(gate="approval", reason=_reason_for_approval(version, gates)))
    return Verdict(
        unmet=tuple(unmet),
        approvals=tuple(granted),
        standing_approval=standing,
        validations=tuple(each for each in newest.values() if each.passed),
        gates=found,
    )


def standing_reviews(version: Version) -> dict[str, Approval]:
    """The newest review of each person, by the person, in order of first review."""
    return {each.actor: each for each in version.approvals}


def citable_approval(
    model: Model, version: Version, *, alias: str, actor: str, now: datetime
) -> StandingApproval | None:
    """The newest standing approval, not of its author, that lets ``actor`` promote ``version`` now, or None."""
    passed = {name for name, each in newest_validations(version).items() if each.passed}
    for each in reversed(model.standing_approvals):
        in_time = not each.revoked and now < each.expire_time.ToDatetime(tzinfo=now.tzinfo)
        meant = each.alias == alias and actor in each.grantees and each.approver != version.author
        if in_time and meant and passed.issuperset(each.required_checks):
            return each
    return None


def _word(gates: Gates) -> Gates:
    word = Gates()
    word.CopyFrom(gates)
    word.ClearField("time")
    word.ClearField("event_id")
    return word


def _vouched_for(version: Version, gates: Gates) -> bool:
    """Whether a person other than the author said that what passes these gates needs no approval."""
    return not gates.approval_required and gates.actor not in ("", version.author)


def _reason_for_approval(version: Version, gates: Gates) -> str:
    ask = f"a person other than {version.author}, its author, must approve it or grant a standing approval"
    if gates.approval_required:
        return ask
    return f"{ask}: it is {gates.actor or 'nobody known'} who set gates that need none"


def incompatibilities(current: common.Signature, candidate: common.Signature) -> list[str]:
    """Why requests for ``current`` would not be answered by ``candidate`` as before; empty when they would."""
    reasons = [*_differences("input", current.inputs, candidate.inputs, exact=True)]
    reasons.extend(_differences("output", current.outputs, candidate.outputs, exact=False))
    return reasons


def _differences(
    kind: str, current: Iterable[common.TensorSpec], candidate: Iterable[common.TensorSpec], *, exact: bool
) -> Iterable[str]:
    given = {each.name: each for each in candidate}
    for spec in current:
        other = given.pop(spec.name, None)
        if other is None:
            yield f"{kind} {spec.name!r} is missing"
        elif other.datatype != spec.datatype:
            yield f"{kind} {spec.name!r} is {_type(other)} instead of {_type(spec)}"
        elif list(other.shape) != list(spec.shape) or list(other.columns) != list(spec.columns):
            yield f"{kind} {spec.name!r} has another shape or other columns"
    if exact:
        for name in given:
            yield f"{kind} {name!r} is new: requests do not carry it"


def _type(spec: common.TensorSpec) -> str:
    return common.DataType.Name(spec.datatype).removeprefix("DATA_TYPE_")


def _unmet_checks(newest: dict[str, Validation], required: Iterable[str]) -> Iterable[UnmetGate]:
    for check in required:
        result = newest.get(check)
        if result is None:
            yield UnmetGate(gate=f"check:{check}", reason=f"the check {check!r} has not been made: record its result")
        elif not result.passed:
            yield UnmetGate(gate=f"check:{check}", reason=f"the check {check!r} failed: {result.detail}")


def _unmet_signature(model: Model, version: Version, alias: str) -> Iterable[UnmetGate]:
    pointer = find_alias(model, alias)
    if pointer is None:
        return
    current = model.versions[pointer.version - 1]
    for reason in incompatibilities(current.signature, version.signature):
        yield UnmetGate(gate="signature", reason=f"not compatible with version {current.number}: {reason}")
