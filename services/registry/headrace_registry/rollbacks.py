"""Decisions on moving an alias back: to the version before, to one by number, to the one of a moment; all pure.

A version that the alias never pointed to has not passed its gates: to that one it can only be promoted. Nor has one
that was there while the aliases were open, when they no longer are.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypeAlias

from google.protobuf.message import Message

from headrace.api.monitor.v1.events_pb2 import RollbackRequested
from headrace.api.registry.v1 import events_pb2 as events
from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace_kit.context import CommandContext
from headrace_kit.errors import FailedPrecondition, InvalidArgument, NotFound
from headrace_registry import gates, moves, upkeep

Asked: TypeAlias = service.RollBackAliasRequest | service.CheckRollbackRequest


def decide(
    state: resources.Model | None, command: service.RollBackAliasRequest, context: CommandContext
) -> list[Message]:
    """An alias moves back.

    Raises:
        FailedPrecondition: There is nothing to go back to, or the version can not be gone back to.
        NotFound: There is no such alias.
        Aborted: The alias moved on since the caller looked.
    """
    model = upkeep.existing(state, command.model)
    pointer = _pointer(model, command.alias)
    moves.require_revision(pointer, command.alias, command.expected_revision)
    target = target_of(model, pointer, command, context.now)
    return [_rolled_back(model, pointer, target, reason=command.reason, context=context)]


def preview(
    model: resources.Model, asked: service.CheckRollbackRequest, context: CommandContext
) -> service.CheckRollbackResponse:
    """What a rollback would do now. Raises as ``decide`` does."""
    pointer = _pointer(model, asked.alias)
    target = target_of(model, pointer, asked, context.now)
    moved = _rolled_back(model, pointer, target, reason="", context=context).promotion
    moved.ClearField("event_id")
    last = max(index for index, each in enumerate(pointer.history) if each.version == target.number)
    verdict = gates.judge(model, target, alias=asked.alias, actor=context.actor, now=context.now)
    current = model.versions[pointer.version - 1]
    return service.CheckRollbackResponse(
        promotion=moved,
        undone=pointer.history[last + 1 :],
        unmet=verdict.unmet,
        incompatibilities=gates.incompatibilities(current.signature, target.signature),
    )


def decide_requested(
    state: resources.Model | None, request: RollbackRequested, context: CommandContext
) -> list[Message]:
    """Answers the monitor: moves the alias back, or records why not."""
    model = upkeep.existing(state, request.model)
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


def target_of(model: resources.Model, pointer: resources.Alias, asked: Asked, now: datetime) -> resources.Version:
    """The version that an alias would go back to. Raises FailedPrecondition, InvalidArgument and NotFound."""
    if asked.HasField("to_time"):
        if asked.version:
            raise InvalidArgument("give a version or a time, not both", field="to_time")
        moment = asked.to_time.ToDatetime(tzinfo=UTC)
        if moment > now:
            raise InvalidArgument("the time to go back to is yet to come", field="to_time")
        number = version_at(pointer, moment)
        if number == 0:
            raise FailedPrecondition(
                f"{pointer.alias} pointed to no version at {moment.isoformat()}", field="to_time", reason="NEVER_THERE"
            )
    else:
        number = asked.version or previous_good_version(model, pointer)
    if number == 0:
        raise FailedPrecondition(
            f"{pointer.alias} never pointed to another version that can serve",
            field="alias",
            reason="NOTHING_TO_ROLL_BACK_TO",
        )
    if number > len(model.versions) or model.versions[number - 1].HasField("delete_time"):
        raise NotFound("version", f"{model.name}/versions/{number}", field="version")
    target = model.versions[number - 1]
    if target.state == resources.VERSION_STATE_ARCHIVED:
        raise FailedPrecondition(f"{target.name} is archived", field="version")
    if target.number == pointer.version:
        raise FailedPrecondition(f"{pointer.alias} points to {target.name} already", field="version")
    if not _was_there(model, pointer, target.number):
        raise FailedPrecondition(
            f"{pointer.alias} never pointed to {target.name} with approval: promote it instead",
            field="version",
            reason="NEVER_THERE",
        )
    return target


def version_at(pointer: resources.Alias, moment: datetime) -> int:
    """Number of the version that an alias pointed to at a moment; 0 for none. A move counts from its time on.

    Raises:
        FailedPrecondition: It lies before the moves that are kept.
    """
    before = [each for each in pointer.history if each.time.ToDatetime(tzinfo=UTC) <= moment]
    if not before:
        if pointer.history and pointer.history[0].revision > 1:
            raise FailedPrecondition(
                f"of {pointer.alias} the last {len(pointer.history)} moves are kept, and the moment lies before them: "
                "name the version",
                field="to_time",
                reason="TOO_LONG_AGO",
            )
        return 0
    since = [each for each in pointer.removals if each.time.ToDatetime(tzinfo=UTC) <= moment]
    gone = any(each.revision > before[-1].revision for each in since)
    return 0 if gone else before[-1].version


def previous_good_version(model: resources.Model, pointer: resources.Alias) -> int:
    """The newest version the alias pointed to before, never rolled back from and not archived; 0 for none."""
    bad = {each.previous_version for each in pointer.history if each.rollback} | {pointer.version}
    for each in reversed(pointer.history):
        number = each.previous_version
        if number in bad or not _was_there(model, pointer, number):
            continue
        if _can_serve(model.versions[number - 1]):
            return number
    return 0


def _pointer(model: resources.Model, alias: str) -> resources.Alias:
    pointer = gates.find_alias(model, alias)
    if pointer is None:
        raise NotFound("alias", alias, field="alias")
    return pointer


def _was_there(model: resources.Model, pointer: resources.Alias, number: int) -> bool:
    """Whether the alias pointed to a version for a reason that is still good.

    That the aliases were open is none when they no longer are, unless a person approved the version since.
    """
    came = _moves_to(pointer, number)
    if not came:
        return False
    version = model.versions[number - 1]
    if any(not each.opened_by for each in came) or gates.approved(version):
        return True
    return bool(gates.opener(model, version, pointer.alias))


def _moves_to(pointer: resources.Alias, number: int) -> Sequence[resources.Promotion]:
    return [each for each in pointer.history if each.version == number]


def _can_serve(version: resources.Version) -> bool:
    return version.state != resources.VERSION_STATE_ARCHIVED and not version.HasField("delete_time")


def _rolled_back(
    model: resources.Model, pointer: resources.Alias, target: resources.Version, *, reason: str, context: CommandContext
) -> events.VersionRolledBack:
    promotion = moves.record(target, pointer, alias=pointer.alias, reason=reason, context=context, rollback=True)
    promotion.validations.extend(gates.newest_validations(target).values())
    promotion.approvals.extend(gates.approved(target))
    came = _moves_to(pointer, target.number)[-1]
    if came.HasField("override"):
        promotion.override.CopyFrom(came.override)
    if not promotion.approvals:
        promotion.opened_by = gates.opener(model, target, pointer.alias)
    bad = model.versions[pointer.version - 1].name
    return events.VersionRolledBack(bad_version=bad, version=target.name, promotion=promotion)
