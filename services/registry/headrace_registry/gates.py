"""What a promotion lacks: pure questions to the state of a model.

A promotion stands on the word of a person who is not the author of the version: an approval of the version, a standing
approval, or gates that ask for no approval.

Open aliases are the exception, for scripts written for MLflow: the person who created the model let its MLflow packages
pass without. That ends for the model with its first gates or standing approval, for an alias with the first version
that passed by more; and the promotion says on whose word it was.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from headrace.api.common.v1 import resources_pb2 as common
from headrace.api.registry.v1.resources_pb2 import (
    MODEL_FORMAT_MLFLOW,
    VERSION_STATE_ARCHIVED,
    Alias,
    Approval,
    GateResult,
    Gates,
    Model,
    StandingApproval,
    UnmetGate,
    Validation,
    Version,
)
from headrace_registry import evidence, signing

ARCHIVED = "archived"
"""The gate that no alias sets and nobody overrides."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a promotion stands on, or lacks.

    Attributes:
        results: What every gate says, with its evidence.
        unmet: Every reason against it; empty when it may be made.
        approvals: Persons' approvals it stands on.
        standing_approval: The standing approval it cites when no person approved the version itself.
        validations: The newest result of each check, those that passed.
        gates: The gates that were asked, or None where none are set.
        opened_by: Who opened the aliases of the model, where nobody approved the version; else empty.
    """

    results: tuple[GateResult, ...]
    unmet: tuple[UnmetGate, ...]
    approvals: tuple[Approval, ...]
    standing_approval: StandingApproval | None
    validations: tuple[Validation, ...]
    gates: Gates | None
    opened_by: str


def find_alias(model: Model, alias: str) -> Alias | None:
    """The alias of that name, or None."""
    return next((each for each in model.aliases if each.alias == alias), None)


def last_pointer(model: Model, alias: str) -> Alias | None:
    """As ``find_alias``, and what an alias was when it was removed."""
    return find_alias(model, alias) or next((each for each in model.removed_aliases if each.alias == alias), None)


def same_word(one: Gates, other: Gates) -> bool:
    """Whether two gates ask for the same, set by the same person."""
    return _word(one) == _word(other)


def newest_validations(version: Version) -> dict[str, Validation]:
    """The newest result of each check, by its name."""
    return {each.check: each for each in version.validations}


def judge(
    model: Model, version: Version, *, alias: str, actor: str, now: datetime, asked: Gates | None = None
) -> Verdict:
    """Whether ``actor`` may move ``alias`` to ``version`` at ``now``, and on what grounds.

    ``asked`` are gates to ask instead of those that are set.
    """
    found = asked or next((each for each in model.gates if each.alias == alias), None)
    gates = found or Gates(alias=alias, approval_required=True)
    newest = newest_validations(version)
    reviews = standing_reviews(version)
    pointer = last_pointer(model, alias)
    champion = pointer.version if pointer else 0
    granted = tuple(each for each in reviews.values() if each.approved)
    spoken = bool(reviews) or _vouched_for(version, gates)
    standing = None if spoken else citable_approval(model, version, alias=alias, actor=actor, now=now)
    opened_by = "" if spoken or standing else opener(model, version, alias)
    results = [
        *_checks(newest, gates.required_checks),
        *_archived(version),
        *(_signature(model, version, champion) if gates.compatible_signature_required else ()),
        *([signing.gate(model, version)] * gates.signed_package_required),
        *evidence.results(gates, model, version, champion=champion, reviews=reviews.values(), now=now),
        _approval(version, gates, reviews, standing=standing, opened_by=opened_by),
    ]
    return Verdict(
        results=tuple(results),
        unmet=tuple(UnmetGate(gate=each.gate, reason=each.reason) for each in results if not each.passed),
        approvals=granted,
        standing_approval=standing,
        validations=tuple(each for each in newest.values() if each.passed),
        gates=found,
        opened_by=opened_by,
    )


def standing_reviews(version: Version) -> dict[str, Approval]:
    """The newest review of each person, by the person, in order of first review."""
    return {each.actor: each for each in version.approvals}


def opener(model: Model, version: Version, alias: str) -> str:
    """Who lets such a version pass without approval, by having opened the aliases of the model; empty for nobody."""
    if not model.open_aliases or version.format != MODEL_FORMAT_MLFLOW:
        return ""
    pointer = last_pointer(model, alias)
    was_approved = pointer is not None and any(not each.opened_by for each in pointer.history)
    return "" if was_approved else model.creator


def approved(version: Version) -> list[Approval]:
    """The approvals of a version that stand."""
    return [each for each in standing_reviews(version).values() if each.approved]


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
    """Whether another person than the author said that what passes these gates needs no approval."""
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


def _checks(newest: dict[str, Validation], required: Iterable[str]) -> Iterable[GateResult]:
    for check in required:
        gate, result = f"check:{check}", newest.get(check)
        if result is None:
            yield GateResult(gate=gate, reason=f"the check {check!r} has not been made: record its result")
            continue
        word = "passed" if result.passed else "failed"
        yield GateResult(
            gate=gate,
            passed=result.passed,
            reason=f"the check {check!r} {word}: {result.detail}",
            actors=[result.actor],
            event_ids=[result.event_id] if result.event_id else [],
            dataset_digest=result.dataset.digest,
        )


def _archived(version: Version) -> Iterable[GateResult]:
    if version.state == VERSION_STATE_ARCHIVED:
        yield GateResult(gate=ARCHIVED, reason="the version is archived; register it again to use it")


def _signature(model: Model, version: Version, champion: int) -> Iterable[GateResult]:
    if not champion:
        yield GateResult(gate="signature", passed=True, reason="there is no version yet to be compatible with")
        return
    current = model.versions[champion - 1]
    reasons = incompatibilities(current.signature, version.signature)
    for reason in reasons:
        told = f"not compatible with version {current.number}: {reason}"
        yield GateResult(gate="signature", champion=champion, reason=told)
    if not reasons:
        told = f"it takes what version {current.number} takes"
        yield GateResult(gate="signature", champion=champion, passed=True, reason=told)


def _approval(
    version: Version,
    gates: Gates,
    reviews: dict[str, Approval],
    *,
    standing: StandingApproval | None,
    opened_by: str,
) -> GateResult:
    """On whose word the version passes, or why on nobody's."""
    rejections = [each for each in reviews.values() if not each.approved]
    said: list[tuple[str, str]] = []
    if rejections:
        last = rejections[-1]
        passed, reason, said = False, f"{last.actor} rejected it: {last.reason}", [(last.actor, last.event_id)]
    elif reviews:
        said = [(each.actor, each.event_id) for each in reviews.values()]
        passed, reason = True, f"approved by {', '.join(reviews)}"
    elif _vouched_for(version, gates):
        passed, reason, said = True, f"{gates.actor} set gates that need none", [(gates.actor, gates.event_id)]
    elif standing is not None:
        reason = f"{standing.approver} approved beforehand, by the standing approval {standing.id}"
        passed, said = True, [(standing.approver, standing.event_id)]
    elif opened_by:
        passed, reason, said = True, f"{opened_by} opened the aliases to MLflow packages", [(opened_by, "")]
    else:
        passed, reason = False, _reason_for_approval(version, gates)
    actors, event_ids = [actor for actor, _ in said], [event for _, event in said if event]
    return GateResult(gate="approval", passed=passed, reason=reason, actors=actors, event_ids=event_ids)
