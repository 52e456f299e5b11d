"""The record that a move of an alias leaves, and what every move has in common."""

from headrace.api.registry.v1 import resources_pb2 as resources
from headrace_kit.context import CommandContext
from headrace_kit.errors import Aborted
from headrace_registry.upkeep import stamp


def require_revision(pointer: resources.Alias | None, alias: str, expected: int) -> None:
    """The alias is at the revision the caller saw, where they say which. Raises Aborted."""
    revision = pointer.revision if pointer else 0
    if expected not in (-1, revision):
        raise Aborted(
            f"{alias} is at revision {revision}, not {expected}: look again",
            field="expected_revision",
            reason="ALIAS_MOVED",
        )


def record(
    version: resources.Version,
    pointer: resources.Alias | None,
    *,
    alias: str,
    reason: str,
    context: CommandContext,
    rollback: bool = False,
) -> resources.Promotion:
    """The record of a move of an alias to a version, without what it stands on."""
    return resources.Promotion(
        alias=alias,
        version=version.number,
        previous_version=pointer.version if pointer else 0,
        revision=(pointer.revision if pointer else 0) + 1,
        actor=context.actor,
        reason=reason,
        time=stamp(context.now),
        datasets=version.datasets,
        event_id=str(context.event_id(0)),
        rollback=rollback,
    )
