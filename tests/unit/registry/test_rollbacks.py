"""Back to the state of a moment, and what it would do."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from headrace.api.registry.v1 import events_pb2 as events
from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace_kit.errors import FailedPrecondition, InvalidArgument, NotFound
from headrace_registry import rollbacks
from tests.support.registering import MODEL, NOW, Registry, by

DAY = timedelta(days=1)


@pytest.fixture
def registry() -> Registry:
    """Versions 1, 2 and 3 came into production, a day after another; it is the fourth day."""
    registry = Registry()
    for day in range(3):
        registry.promoted(at=NOW + day * DAY)
    return registry


def preview(registry: Registry, to: datetime) -> service.CheckRollbackResponse:
    request = service.CheckRollbackRequest(model=MODEL, alias="production")
    request.to_time.FromDatetime(to)
    return rollbacks.preview(registry.model, request, by("persons/operator", NOW + 3 * DAY))


@pytest.mark.parametrize(
    ("moment", "version"),
    [(NOW, 1), (NOW + DAY / 2, 1), (NOW + DAY, 2), (NOW + 2 * DAY - timedelta(microseconds=1), 2)],
)
def test_an_alias_goes_back_to_the_version_it_had_then(registry: Registry, moment: datetime, version: int) -> None:
    [event] = registry.roll_back_to_time(moment, at=NOW + 3 * DAY)

    assert isinstance(event, events.VersionRolledBack)
    assert event.version == f"{MODEL}/versions/{version}"
    assert registry.model.aliases[0].version == version


def test_before_its_first_move_an_alias_was_nowhere(registry: Registry) -> None:
    with pytest.raises(FailedPrecondition) as refusal:
        registry.roll_back_to_time(NOW - DAY, at=NOW + 3 * DAY)

    assert refusal.value.reason == "NEVER_THERE"


def test_while_it_was_removed_an_alias_was_nowhere(registry: Registry) -> None:
    registry.remove_alias("production", actor="persons/operator", at=NOW + 3 * DAY)
    registry.promote(f"{MODEL}/versions/2", at=NOW + 5 * DAY)

    with pytest.raises(FailedPrecondition) as refusal:
        registry.roll_back_to_time(NOW + 4 * DAY, at=NOW + 6 * DAY)
    assert refusal.value.reason == "NEVER_THERE"
    assert registry.roll_back_to_time(NOW + 2 * DAY, at=NOW + 6 * DAY)


def test_the_moment_must_have_been_and_stands_instead_of_a_version(registry: Registry) -> None:
    with pytest.raises(InvalidArgument):
        registry.roll_back_to_time(NOW + 4 * DAY, at=NOW + 3 * DAY)
    command = service.RollBackAliasRequest(model=MODEL, alias="production", version=1, expected_revision=-1)
    command.to_time.FromDatetime(NOW)
    with pytest.raises(InvalidArgument):
        registry.apply(lambda state: rollbacks.decide(state, command, by("persons/operator", NOW + DAY)))


def test_the_version_of_now_is_nowhere_to_go_back_to(registry: Registry) -> None:
    with pytest.raises(FailedPrecondition, match=r"points to .* already"):
        registry.roll_back_to_time(NOW + 2 * DAY, at=NOW + 3 * DAY)


def test_what_is_older_than_the_moves_that_are_kept_is_not_guessed() -> None:
    pointer = resources.Alias(alias="production", version=7, revision=1007)
    pointer.history.add(version=7, previous_version=6, revision=1007).time.FromDatetime(NOW)

    with pytest.raises(FailedPrecondition) as refusal:
        rollbacks.version_at(pointer, NOW - DAY)

    assert refusal.value.reason == "TOO_LONG_AGO"


def test_a_preview_tells_what_would_be_undone_and_changes_nothing(registry: Registry) -> None:
    registry.set_gates(actor="persons/grace", checks=("quality",))
    before = registry.model.SerializeToString(deterministic=True)

    found = preview(registry, to=NOW)

    assert (found.promotion.version, found.promotion.previous_version, found.promotion.rollback) == (1, 3, True)
    assert found.promotion.event_id == ""
    assert [each.version for each in found.undone] == [2, 3]
    assert [each.gate for each in found.unmet] == ["check:quality"]
    assert list(found.incompatibilities) == []
    assert registry.model.SerializeToString(deterministic=True) == before


def test_a_preview_refuses_what_the_rollback_would(registry: Registry) -> None:
    with pytest.raises(FailedPrecondition) as refusal:
        preview(registry, to=NOW - DAY)
    assert refusal.value.reason == "NEVER_THERE"
    request = service.CheckRollbackRequest(model=MODEL, alias="nowhere")
    with pytest.raises(NotFound):
        rollbacks.preview(registry.model, request, by("persons/operator"))
