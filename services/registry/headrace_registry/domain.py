"""Decisions on a model: pure functions from its state and a command to events.

The state of a stream is the :class:`Model` message. Times and ids come from the :class:`CommandContext`.
"""

import re
from datetime import UTC, datetime

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.monitor.v1.events_pb2 import RollbackRequested
from headrace.api.registry.v1 import events_pb2 as events
from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace_kit.context import CommandContext
from headrace_kit.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Violation,
)
from headrace_registry import gates

PRODUCTION = "production"
ALIAS_HISTORY = 1000
MAX_VERSIONS = 10000
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


def decide_create(
    state: resources.Model | None, command: service.CreateModelRequest, context: CommandContext
) -> list[Message]:
    """A new model. Raises AlreadyExists when there is one of the name."""
    if state is not None:
        raise AlreadyExists(f"{command.name} exists", field="name")
    return [_model_created(command.name, command.description, context)]


def decide_version(
    state: resources.Model | None, command: service.CreateVersionRequest, context: CommandContext
) -> list[Message]:
    """A new version, in a new model where the command says so."""
    if state is None and not command.create_model:
        raise NotFound("model", command.model, field="model")
    decided: list[Message] = [] if state else [_model_created(command.model, "", context)]
    number = len(state.versions) + 1 if state else 1
    if number > MAX_VERSIONS:
        raise FailedPrecondition(f"{command.model} has {MAX_VERSIONS} versions, which is the most a model can have")
    version = resources.Version(
        name=f"{command.model}/versions/{number}",
        number=number,
        run=command.run,
        artifact=command.artifact,
        format=command.format,
        signature=command.signature,
        datasets=command.datasets,
        author=context.actor,
        create_time=_timestamp(context.now),
        state=resources.VERSION_STATE_DRAFT,
        description=command.description,
        metrics=command.metrics,
        event_id=str(context.event_id(len(decided))),
    )
    if command.HasField("reference_profile"):
        version.reference_profile.CopyFrom(command.reference_profile)
    decided.append(events.VersionCreated(model=command.model, version=version))
    return decided


def decide_validation(
    state: resources.Model | None, command: service.RecordValidationRequest, context: CommandContext
) -> list[Message]:
    """A result of a check."""
    version = version_of(state, command.version)
    validation = resources.Validation(
        check=command.check,
        passed=command.passed,
        detail=command.detail,
        metrics=command.metrics,
        actor=context.actor,
        time=_timestamp(context.now),
        event_id=str(context.event_id(0)),
    )
    if command.HasField("dataset"):
        validation.dataset.CopyFrom(command.dataset)
    return [events.VersionValidated(version=version.name, validation=validation)]


def decide_review(
    state: resources.Model | None, command: service.ReviewVersionRequest, context: CommandContext
) -> list[Message]:
    """A person's word on a version. Raises PermissionDenied for its author and for anything but a person."""
    version = version_of(state, command.version)
    _require_person(context.actor)
    if context.actor == version.author and command.approve:
        raise PermissionDenied(
            f"{context.actor} registered {version.name} and can not approve it: another person must",
            field="version",
            reason="OWN_VERSION",
        )
    approval = resources.Approval(
        approved=command.approve,
        actor=context.actor,
        reason=command.reason,
        time=_timestamp(context.now),
        event_id=str(context.event_id(0)),
    )
    kind = events.VersionApproved if command.approve else events.VersionRejected
    return [kind(version=version.name, approval=approval)]


def decide_gates(
    state: resources.Model | None, command: service.SetGatesRequest, context: CommandContext
) -> list[Message]:
    """The gates of an alias as a person wants them, unless they are so already on this person's word."""
    model = _model(state, command.model)
    _require_person(context.actor, to="set gates")
    wanted = resources.Gates(
        alias=command.gates.alias,
        required_checks=command.gates.required_checks,
        approval_required=command.gates.approval_required,
        compatible_signature_required=command.gates.compatible_signature_required,
        actor=context.actor,
        time=_timestamp(context.now),
        event_id=str(context.event_id(0)),
    )
    if any(gates.same_word(each, wanted) for each in model.gates):
        return []
    return [events.GatesSet(model=model.name, gates=wanted)]


def decide_grant(
    state: resources.Model | None, command: service.GrantStandingApprovalRequest, context: CommandContext
) -> list[Message]:
    """A standing approval by a person."""
    model = _model(state, command.model)
    _require_person(context.actor)
    asked = command.standing_approval
    if any(each.id == asked.id for each in model.standing_approvals):
        raise AlreadyExists(f"{model.name} has a standing approval {asked.id!r}", field="standing_approval.id")
    if asked.expire_time.ToDatetime(tzinfo=UTC) <= context.now:
        raise InvalidArgument("it must end in the future", field="standing_approval.expire_time")
    granted = resources.StandingApproval()
    granted.CopyFrom(asked)
    granted.approver = context.actor
    granted.create_time.CopyFrom(_timestamp(context.now))
    granted.revoked = False
    granted.event_id = str(context.event_id(0))
    return [events.StandingApprovalGranted(model=model.name, standing_approval=granted)]


def decide_revoke(
    state: resources.Model | None, command: service.RevokeStandingApprovalRequest, context: CommandContext
) -> list[Message]:
    """A standing approval is taken back; nothing when it was already."""
    model = _model(state, command.model)
    _require_person(context.actor)
    found = standing_approval_of(model, command.id)
    if found.revoked:
        return []
    return [events.StandingApprovalRevoked(model=model.name, id=command.id, reason=command.reason)]


def decide_promotion(
    state: resources.Model | None, command: service.PromoteVersionRequest, context: CommandContext
) -> list[Message]:
    """An alias moves to a version whose gates are passed.

    Raises:
        FailedPrecondition: With every unmet gate.
        Aborted: The alias moved on since the caller looked.
    """
    version = version_of(state, command.version)
    model = _model(state, command.version)
    pointer = gates.find_alias(model, command.alias)
    _require_revision(pointer, command.alias, command.expected_revision)
    verdict = gates.judge(model, version, alias=command.alias, actor=context.actor, now=context.now)
    if verdict.unmet:
        violations = [
            Violation(type=each.gate, subject=version.name, description=each.reason) for each in verdict.unmet
        ]
        reasons = "; ".join(each.reason for each in verdict.unmet)
        raise FailedPrecondition(
            f"{version.name} can not be {command.alias}: {reasons}", violations, field="version", reason="GATES_UNMET"
        )
    if pointer is not None and pointer.version == version.number:
        return []
    promotion = _promotion(version, pointer, alias=command.alias, reason=command.reason, context=context)
    promotion.approvals.extend(verdict.approvals)
    promotion.validations.extend(verdict.validations)
    if verdict.standing_approval is not None:
        promotion.standing_approval.CopyFrom(verdict.standing_approval)
    if verdict.gates is not None:
        promotion.gates.CopyFrom(verdict.gates)
    return [events.VersionPromoted(version=version.name, promotion=promotion, artifact=version.artifact)]


def decide_rollback(
    state: resources.Model | None, command: service.RollBackAliasRequest, context: CommandContext
) -> list[Message]:
    """An alias moves back. Raises FailedPrecondition when there is nothing to go back to.

    A version that the alias never pointed to has not passed its gates: to that one it can only be promoted.
    """
    model = _model(state, command.model)
    pointer = gates.find_alias(model, command.alias)
    if pointer is None:
        raise NotFound("alias", command.alias, field="alias")
    _require_revision(pointer, command.alias, command.expected_revision)
    number = command.version or previous_good_version(model, pointer)
    if number == 0:
        raise FailedPrecondition(
            f"{command.alias} never pointed to another version that can serve",
            field="alias",
            reason="NOTHING_TO_ROLL_BACK_TO",
        )
    target = version_of(state, f"{model.name}/versions/{number}")
    if target.state == resources.VERSION_STATE_ARCHIVED:
        raise FailedPrecondition(f"{target.name} is archived", field="version")
    if target.number == pointer.version:
        raise FailedPrecondition(f"{command.alias} points to {target.name} already", field="version")
    if all(each.version != target.number for each in pointer.history):
        raise FailedPrecondition(
            f"{command.alias} never pointed to {target.name}: promote it instead", field="version", reason="NEVER_THERE"
        )
    return [_rolled_back(model, pointer, target, reason=command.reason, context=context)]


def decide_requested_rollback(
    state: resources.Model | None, request: RollbackRequested, context: CommandContext
) -> list[Message]:
    """Answers the monitor: moves the alias back, or records why not."""
    model = _model(state, request.model)
    pointer = gates.find_alias(model, request.alias)
    reason = ""
    if pointer is None:
        reason = f"there is no alias {request.alias!r}"
    elif model.versions[pointer.version - 1].name != request.bad_version:
        reason = f"{request.alias} points to version {pointer.version} by now"
    elif request.alias_revision not in (-1, pointer.revision):
        reason = f"the alias is at revision {pointer.revision}, not {request.alias_revision}"
    elif not (number := previous_good_version(model, pointer)):
        reason = "there is no version to go back to"
    else:
        target = model.versions[number - 1]
        return [_rolled_back(model, pointer, target, reason=request.reason, context=context)]
    revision = pointer.revision if pointer else 0
    refused = events.RollbackRefused(
        model=model.name, alias=request.alias, bad_version=request.bad_version, reason=reason, revision=revision
    )
    return [refused]


def decide_archive(state: resources.Model | None, command: service.ArchiveVersionRequest) -> list[Message]:
    """A version goes out of use. Raises FailedPrecondition while an alias points to it."""
    version = version_of(state, command.version)
    model = _model(state, command.version)
    held = [each.alias for each in model.aliases if each.version == version.number]
    if held:
        raise FailedPrecondition(f"{version.name} is {', '.join(held)}: move that first", field="version")
    if version.state == resources.VERSION_STATE_ARCHIVED:
        return []
    return [events.VersionArchived(version=version.name, reason=command.reason)]


def evolve(state: resources.Model | None, event: Message) -> resources.Model:
    """The state after ``event``; the given state is left as it was."""
    model = resources.Model()
    if state is not None:
        model.CopyFrom(state)
    match event:
        case events.ModelCreated():
            model.name, model.description, model.creator = event.model, event.description, event.creator
            model.create_time.CopyFrom(event.time)
        case events.VersionCreated():
            model.versions.append(event.version)
        case events.VersionValidated():
            _version_named(model, event.version).validations.append(event.validation)
        case events.VersionApproved() | events.VersionRejected():
            _version_named(model, event.version).approvals.append(event.approval)
        case events.GatesSet():
            kept = [each for each in model.gates if each.alias != event.gates.alias]
            model.ClearField("gates")
            model.gates.extend([*kept, event.gates])
        case events.StandingApprovalGranted():
            model.standing_approvals.append(event.standing_approval)
        case events.StandingApprovalRevoked():
            standing_approval_of(model, event.id).revoked = True
        case events.VersionPromoted() | events.VersionRolledBack():
            _move_alias(model, event.promotion)
        case events.VersionArchived():
            _version_named(model, event.version).state = resources.VERSION_STATE_ARCHIVED
        case _:
            pass
    model.revision += 1
    return model


def version_of(state: resources.Model | None, name: str) -> resources.Version:
    """The version of that resource name. Raises NotFound."""
    if state is not None:
        number = name.removeprefix(f"{state.name}/versions/")
        if _NUMBER.fullmatch(number) and int(number) <= len(state.versions):
            return state.versions[int(number) - 1]
    raise NotFound("version", name, field="version")


def standing_approval_of(model: resources.Model, identity: str) -> resources.StandingApproval:
    """The standing approval of that id. Raises NotFound."""
    found = next((each for each in model.standing_approvals if each.id == identity), None)
    if found is None:
        raise NotFound("standing approval", identity, field="id")
    return found


def previous_good_version(model: resources.Model, pointer: resources.Alias) -> int:
    """The newest version the alias pointed to before, never rolled back from and not archived; 0 for none."""
    bad = {each.previous_version for each in pointer.history if each.rollback} | {pointer.version}
    for each in reversed(pointer.history):
        number = each.previous_version
        if number and number not in bad and model.versions[number - 1].state != resources.VERSION_STATE_ARCHIVED:
            return number
    return 0


def _model(state: resources.Model | None, name: str) -> resources.Model:
    if state is None:
        raise NotFound("model", name.partition("/versions/")[0], field="model")
    return state


def _version_named(model: resources.Model, name: str) -> resources.Version:
    return version_of(model, name)


def _model_created(name: str, description: str, context: CommandContext) -> events.ModelCreated:
    time = _timestamp(context.now)
    return events.ModelCreated(model=name, description=description, creator=context.actor, time=time)


def _require_person(actor: str, *, to: str = "approve") -> None:
    if not actor.startswith("persons/"):
        raise PermissionDenied(f"{actor} is not a person: only persons {to}", reason="NOT_A_PERSON")


def _require_revision(pointer: resources.Alias | None, alias: str, expected: int) -> None:
    revision = pointer.revision if pointer else 0
    if expected not in (-1, revision):
        raise Aborted(
            f"{alias} is at revision {revision}, not {expected}: look again",
            field="expected_revision",
            reason="ALIAS_MOVED",
        )


def _promotion(
    version: resources.Version,
    pointer: resources.Alias | None,
    *,
    alias: str,
    reason: str,
    context: CommandContext,
    rollback: bool = False,
) -> resources.Promotion:
    return resources.Promotion(
        alias=alias,
        version=version.number,
        previous_version=pointer.version if pointer else 0,
        revision=(pointer.revision if pointer else 0) + 1,
        actor=context.actor,
        reason=reason,
        time=_timestamp(context.now),
        datasets=version.datasets,
        event_id=str(context.event_id(0)),
        rollback=rollback,
    )


def _rolled_back(
    model: resources.Model, pointer: resources.Alias, target: resources.Version, *, reason: str, context: CommandContext
) -> events.VersionRolledBack:
    promotion = _promotion(target, pointer, alias=pointer.alias, reason=reason, context=context, rollback=True)
    promotion.validations.extend(gates.newest_validations(target).values())
    promotion.approvals.extend(each for each in gates.standing_reviews(target).values() if each.approved)
    bad = model.versions[pointer.version - 1].name
    return events.VersionRolledBack(bad_version=bad, version=target.name, promotion=promotion)


def _move_alias(model: resources.Model, promotion: resources.Promotion) -> None:
    pointer = gates.find_alias(model, promotion.alias) or model.aliases.add(alias=promotion.alias)
    pointer.version, pointer.revision = promotion.version, promotion.revision
    pointer.history.append(promotion)
    if len(pointer.history) > ALIAS_HISTORY:
        del pointer.history[:-ALIAS_HISTORY]
    for number in {promotion.version, promotion.previous_version} - {0}:
        version = model.versions[number - 1]
        if version.state != resources.VERSION_STATE_ARCHIVED:
            version.state = _state_of(model, number)


def _state_of(model: resources.Model, number: int) -> resources.VersionState.ValueType:
    held = [each.alias for each in model.aliases if each.version == number]
    if PRODUCTION in held:
        return resources.VERSION_STATE_PRODUCTION
    return resources.VERSION_STATE_STAGING if held else resources.VERSION_STATE_DRAFT


def _timestamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
