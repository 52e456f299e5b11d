"""Promotions although gates are unmet: who may, and what is kept of it."""

from collections.abc import Iterable
from typing import Final

from headrace.api.registry.v1 import service_pb2 as service
from headrace.api.registry.v1.resources_pb2 import Override, Version
from headrace_kit.auth import OPERATOR
from headrace_kit.context import CommandContext
from headrace_kit.errors import FailedPrecondition, InvalidArgument, PermissionDenied, Violation
from headrace_registry.gates import ARCHIVED, Verdict
from headrace_registry.upkeep import is_person, stamp

ROLE: Final = OPERATOR
"""The role of persons who may override gates."""


def decide(
    verdict: Verdict,
    version: Version,
    command: service.PromoteVersionRequest,
    context: CommandContext,
    *,
    roles: Iterable[str],
) -> Override | None:
    """The mark that a promotion bears for ever when gates are unmet; None when none is.

    Raises:
        FailedPrecondition: With every unmet gate, when nobody overrides them or nobody can.
        PermissionDenied: The actor is no person, or has not the role.
        InvalidArgument: No reason is given.
    """
    if not verdict.unmet:
        return None
    if not command.override_gates or any(each.gate == ARCHIVED for each in verdict.unmet):
        raise _refusal(verdict, version, command.alias)
    had = sorted(roles)
    if not is_person(context.actor) or ROLE not in had:
        message = f"{context.actor} can not override gates: a person with the role {ROLE} must"
        raise PermissionDenied(message, field="override_gates", reason="ROLE_MISSING")
    if not command.reason.strip():
        raise InvalidArgument("say why the gates are overridden", field="reason")
    return Override(
        alias=command.alias,
        actor=context.actor,
        roles=had,
        reason=command.reason,
        time=stamp(context.now),
        unmet=verdict.unmet,
        event_id=str(context.event_id(0)),
    )


def _refusal(verdict: Verdict, version: Version, alias: str) -> FailedPrecondition:
    violations = [Violation(type=each.gate, subject=version.name, description=each.reason) for each in verdict.unmet]
    reasons = "; ".join(each.reason for each in verdict.unmet)
    message = f"{version.name} can not be {alias}: {reasons}"
    return FailedPrecondition(message, violations, field="version", reason="GATES_UNMET")
