"""Decisions on a model: pure functions from its state and a command to events.

The state of a stream is the :class:`Model` message. Times and ids come from the :class:`CommandContext`.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime

from google.protobuf.message import Message

from headrace.api.registry.v1 import events_pb2 as events
from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace_kit.context import CommandContext
from headrace_kit.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
)
from headrace_registry import cards, gates, moves, names, overrides, references, signing, upkeep
from headrace_registry.upkeep import is_person, stamp

PRODUCTION = "production"
ALIAS_HISTORY = 1000
MAX_VERSIONS = 10000
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


def decide_create(
    state: resources.Model | None,
    command: service.CreateModelRequest,
    context: CommandContext,
    *,
    guarded: bool = False,
) -> list[Message]:
    """A new model. Raises AlreadyExists when there is one of the resource name.

    Who asks for open aliases gets them as a person, unless one of that name needed approvals before it was deleted, or
    another one that has or had the name for people needs them (``guarded``).
    """
    if state is not None and not state.HasField("delete_time"):
        raise AlreadyExists(f"{command.name} exists", field="name")
    created = names.created(command.name, command.description, context)
    created.display_name = command.display_name
    created.tags.update(command.tags)
    may_open = is_person(context.actor) and not guarded and (state is None or state.open_aliases)
    created.open_aliases = command.open_aliases and may_open
    return [created]


def decide_version(
    state: resources.Model | None, command: service.CreateVersionRequest, context: CommandContext
) -> list[Message]:
    """A new version, in a new model where the command says so."""
    there = state is not None and not state.HasField("delete_time")
    if not (there or command.create_model):
        raise NotFound("model", command.model, field="model")
    decided: list[Message] = [] if there else [names.created(command.model, "", context)]
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
        create_time=stamp(context.now),
        state=resources.VERSION_STATE_DRAFT,
        description=command.description,
        metrics=command.metrics,
        event_id=str(context.event_id(len(decided))),
        tags=command.tags,
        update_time=stamp(context.now),
        source=command.source,
        logged_model=command.logged_model,
    )
    if command.HasField("run_time"):
        version.run_time.CopyFrom(command.run_time)
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
        time=stamp(context.now),
        event_id=str(context.event_id(0)),
    )
    if command.HasField("dataset"):
        validation.dataset.CopyFrom(command.dataset)
    if command.HasField("replay"):
        validation.replay.CopyFrom(command.replay)
    return [events.VersionValidated(version=version.name, validation=validation)]


def decide_review(
    state: resources.Model | None,
    command: service.ReviewVersionRequest,
    context: CommandContext,
    *,
    roles: Iterable[str] = (),
) -> list[Message]:
    """The word of a person who has ``roles`` on a version.

    Raises:
        PermissionDenied: It is its author who approves, or no person.
    """
    version = version_of(state, command.version)
    _require_person(context.actor)
    if command.approve:
        _require_another(version, context.actor, to="approve it")
    approval = resources.Approval(
        approved=command.approve,
        actor=context.actor,
        reason=command.reason,
        time=stamp(context.now),
        event_id=str(context.event_id(0)),
        roles=sorted(roles),
    )
    kind = events.VersionApproved if command.approve else events.VersionRejected
    return [kind(version=version.name, approval=approval)]


def decide_consent(
    state: resources.Model | None, command: service.ConsentToFormatRequest, context: CommandContext
) -> list[Message]:
    """A person's word on the format of a version. Raises PermissionDenied as ``decide_review`` does."""
    version = version_of(state, command.version)
    _require_person(context.actor, to="consent to a format")
    if command.given:
        _require_another(version, context.actor, to="consent to its format")
    consent = resources.FormatConsent(
        given=command.given,
        actor=context.actor,
        reason=command.reason,
        time=stamp(context.now),
        event_id=str(context.event_id(0)),
    )
    return [events.FormatConsentRecorded(version=version.name, consent=consent)]


def decide_gates(
    state: resources.Model | None, command: service.SetGatesRequest, context: CommandContext
) -> list[Message]:
    """The gates of an alias as a person wants them, unless they are so already on this person's word."""
    model = _model(state, command.model)
    _require_person(context.actor, to="set gates")
    wanted = resources.Gates()
    wanted.CopyFrom(command.gates)
    wanted.actor, wanted.event_id = context.actor, str(context.event_id(0))
    wanted.time.CopyFrom(stamp(context.now))
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
    granted.create_time.CopyFrom(stamp(context.now))
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
    state: resources.Model | None,
    command: service.PromoteVersionRequest,
    context: CommandContext,
    *,
    roles: Iterable[str] = (),
) -> list[Message]:
    """An alias moves to a version whose gates are passed, or that an operator's word overrides.

    Raises:
        FailedPrecondition: With every unmet gate.
        PermissionDenied: Gates are to be overridden by somebody who may not.
        Aborted: The alias moved on since the caller looked.
    """
    version = version_of(state, command.version)
    model = _model(state, command.version)
    pointer = gates.find_alias(model, command.alias)
    moves.require_revision(pointer, command.alias, command.expected_revision)
    verdict = gates.judge(model, version, alias=command.alias, actor=context.actor, now=context.now)
    override = overrides.decide(verdict, version, command, context, roles=roles)
    if pointer is not None and pointer.version == version.number:
        return []
    promotion = moves.record(version, pointer, alias=command.alias, reason=command.reason, context=context)
    before = gates.last_pointer(model, command.alias)
    if before is not None:  # also when it was removed meanwhile
        promotion.revision = before.revision + 1
    promotion.results.extend(verdict.results)
    promotion.approvals.extend(verdict.approvals)
    promotion.validations.extend(verdict.validations)
    if verdict.standing_approval is not None:
        promotion.standing_approval.CopyFrom(verdict.standing_approval)
    if verdict.gates is not None:
        promotion.gates.CopyFrom(verdict.gates)
    promotion.opened_by = verdict.opened_by
    if override is not None:
        promotion.override.CopyFrom(override)
    return [events.VersionPromoted(version=version.name, promotion=promotion, artifact=version.artifact)]


def decide_archive(state: resources.Model | None, command: service.ArchiveVersionRequest) -> list[Message]:
    """A version goes out of use. Raises FailedPrecondition with everything that leads to it."""
    version = version_of(state, command.version)
    references.require_none_of_version(_model(state, command.version), version)
    if version.state == resources.VERSION_STATE_ARCHIVED:
        return []
    return [events.VersionArchived(version=version.name, reason=command.reason)]


def decide_delete_model(state: resources.Model | None, name: str, now: datetime) -> list[Message]:
    """A model is deleted. Raises FailedPrecondition while it has an alias or an endpoint routes to it."""
    model = _model(state, name)
    references.require_none_of_model(model)
    return [events.ModelDeleted(model=model.name, time=stamp(now))]


def decide_delete_version(state: resources.Model | None, name: str, now: datetime) -> list[Message]:
    """A version is deleted. Raises FailedPrecondition with everything that leads to it."""
    model, version = _model(state, name), version_of(state, name)
    references.require_none_of_version(model, version)
    return [events.VersionDeleted(version=version.name, time=stamp(now))]


def decide_card(
    state: resources.Model | None, command: service.WriteCardRequest, context: CommandContext
) -> list[Message]:
    """The card of a model or a version is written; see ``cards.decide``. Raises NotFound as well."""
    return cards.decide(carded(_model(state, command.name), command.name), command, context)


def carded(model: resources.Model, name: str) -> resources.Model | resources.Version:
    """The model, or the version of it, of that name. Raises NotFound."""
    return version_of(model, name) if "/versions/" in name else model


def decide_remove_alias(
    state: resources.Model | None, command: service.RemoveAliasRequest, context: CommandContext
) -> list[Message]:
    """An alias is taken off its version.

    Raises:
        NotFound: There is none.
        PermissionDenied: Versions need approval, and it is no person who asks.
        Aborted: The alias moved on since the caller looked.
    """
    model = _model(state, command.model)
    pointer = gates.find_alias(model, command.alias)
    if pointer is None:
        raise NotFound("alias", command.alias, field="alias")
    if not model.open_aliases:
        _require_person(context.actor, to="remove an alias where versions need approval")
    moves.require_revision(pointer, command.alias, command.expected_revision)
    removed = events.AliasRemoved(
        model=model.name,
        alias=pointer.alias,
        version=pointer.version,
        revision=pointer.revision + 1,
        actor=context.actor,
        time=stamp(context.now),
    )
    return [removed]


def evolve(state: resources.Model | None, event: Message) -> resources.Model:
    """The state after ``event``; the given state is left as it was."""
    model = resources.Model()
    if state is not None:
        model.CopyFrom(state)
    match event:
        case events.VersionCreated():
            model.versions.append(event.version)
        case events.VersionValidated():
            _version_named(model, event.version).validations.append(event.validation)
        case events.VersionApproved() | events.VersionRejected():
            _version_named(model, event.version).approvals.append(event.approval)
        case events.FormatConsentRecorded():
            _version_named(model, event.version).format_consent.CopyFrom(event.consent)
        case events.GatesSet():
            kept = [each for each in model.gates if each.alias != event.gates.alias]
            model.ClearField("gates")
            model.gates.extend([*kept, event.gates])
            model.open_aliases = False
        case events.StandingApprovalGranted():
            model.standing_approvals.append(event.standing_approval)
            model.open_aliases = False
        case events.StandingApprovalRevoked():
            standing_approval_of(model, event.id).revoked = True
        case events.VersionPromoted() | events.VersionRolledBack():
            _move_alias(model, event.promotion)
        case events.VersionArchived():
            _version_named(model, event.version).state = resources.VERSION_STATE_ARCHIVED
        case events.RoutesNoted():
            references.note(model, event.routed)
        case events.AliasRemoved():
            _remove_alias(model, event)
        case _ if names.evolve(model, event) or upkeep.evolve(model, event) or signing.evolve(model, event):
            pass
        case _:
            pass
    model.revision += 1
    return model


def version_of(state: resources.Model | None, name: str) -> resources.Version:
    """The version of that resource name. Raises NotFound."""
    version = _found_version(state, name)
    if version is None or version.HasField("delete_time"):
        raise NotFound("version", name, field="version")
    return version


def standing_approval_of(model: resources.Model, identity: str) -> resources.StandingApproval:
    """The standing approval of that id. Raises NotFound."""
    found = next((each for each in model.standing_approvals if each.id == identity), None)
    if found is None:
        raise NotFound("standing approval", identity, field="id")
    return found


def _found_version(state: resources.Model | None, name: str) -> resources.Version | None:
    if state is None:
        return None
    number = name.removeprefix(f"{state.name}/versions/")
    found = _NUMBER.fullmatch(number) and int(number) <= len(state.versions)
    return state.versions[int(number) - 1] if found else None


def _model(state: resources.Model | None, name: str) -> resources.Model:
    return upkeep.existing(state, name)


def _version_named(model: resources.Model, name: str) -> resources.Version:
    found = _found_version(model, name)
    if found is None:
        raise NotFound("version", name, field="version")
    return found


def _remove_alias(model: resources.Model, event: events.AliasRemoved) -> None:
    pointer = gates.find_alias(model, event.alias)
    if pointer is None:
        return
    gone = model.removed_aliases.add()
    gone.CopyFrom(pointer)
    gone.revision = event.revision
    gone.removals.add(revision=event.revision, time=event.time)
    del gone.removals[:-ALIAS_HISTORY]
    model.aliases.remove(pointer)
    _refresh_states(model, {event.version})


def _require_person(actor: str, *, to: str = "approve") -> None:
    if not is_person(actor):
        raise PermissionDenied(f"{actor} is not a person: only persons {to}", reason="NOT_A_PERSON")


def _require_another(version: resources.Version, actor: str, *, to: str) -> None:
    if actor == version.author:
        message = f"{actor} registered {version.name} and can not {to}: another person must"
        raise PermissionDenied(message, field="version", reason="OWN_VERSION")


def _move_alias(model: resources.Model, promotion: resources.Promotion) -> None:
    pointer = gates.find_alias(model, promotion.alias)
    if pointer is None:
        before = next((each for each in model.removed_aliases if each.alias == promotion.alias), None)
        pointer = model.aliases.add(alias=promotion.alias)
        if before is not None:  # its history goes on
            pointer.CopyFrom(before)
            model.removed_aliases.remove(before)
    pointer.version, pointer.revision = promotion.version, promotion.revision
    pointer.history.append(promotion)
    if len(pointer.history) > ALIAS_HISTORY:
        del pointer.history[:-ALIAS_HISTORY]
    if promotion.HasField("override") and not promotion.rollback:
        model.versions[promotion.version - 1].overrides.append(promotion.override)
    _refresh_states(model, {promotion.version, promotion.previous_version} - {0})


def _refresh_states(model: resources.Model, numbers: Iterable[int]) -> None:
    for number in numbers:
        version = model.versions[number - 1]
        if version.state != resources.VERSION_STATE_ARCHIVED:
            version.state = _state_of(model, number)


def _state_of(model: resources.Model, number: int) -> resources.VersionState.ValueType:
    held = [each.alias for each in model.aliases if each.version == number]
    if PRODUCTION in held:
        return resources.VERSION_STATE_PRODUCTION
    return resources.VERSION_STATE_STAGING if held else resources.VERSION_STATE_DRAFT
