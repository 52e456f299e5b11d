"""A promotion although gates are unmet: who may, why, and the mark it leaves."""

from __future__ import annotations

import pytest

from headrace.api.registry.v1 import events_pb2 as events
from headrace.api.registry.v1 import service_pb2 as service
from headrace_kit.errors import FailedPrecondition, InvalidArgument, PermissionDenied
from headrace_registry import domain
from tests.support.registering import Registry, unmet


@pytest.fixture
def registry() -> Registry:
    return Registry()


def test_an_operator_overrides_unmet_gates_and_event_version_and_alias_say_so(registry: Registry) -> None:
    version = registry.register()
    registry.set_gates(actor="persons/grace", checks=("quality",), safe_format_required=True)

    [event] = registry.promote(version, override=True, reason="the flood is now")

    assert isinstance(event, events.VersionPromoted)
    mark = event.promotion.override
    assert (mark.actor, mark.reason, mark.alias) == ("persons/operator", "the flood is now", "production")
    assert list(mark.roles) == ["operator"]
    assert [each.gate for each in mark.unmet] == ["check:quality"]
    assert [each.gate for each in event.promotion.results if not each.passed] == ["check:quality"]
    assert mark.event_id == event.promotion.event_id
    assert list(registry.model.versions[0].overrides) == [mark]
    assert registry.model.aliases[0].history[-1].override == mark


def test_only_persons_with_the_role_override(registry: Registry) -> None:
    version = registry.register()

    for actor, roles in (("persons/b", ()), ("persons/b", ("reviewer",)), ("services/serving", ("operator",))):
        with pytest.raises(PermissionDenied):
            registry.promote(version, actor=actor, roles=roles, override=True)

    assert not registry.model.aliases


def test_an_override_needs_a_reason(registry: Registry) -> None:
    version = registry.register()

    with pytest.raises(InvalidArgument):
        registry.promote(version, override=True, reason=" ")


def test_nothing_is_overridden_when_every_gate_is_passed(registry: Registry) -> None:
    version = registry.register()
    registry.review(version, approve=True)

    [event] = registry.promote(version, override=True)

    assert isinstance(event, events.VersionPromoted)
    assert not event.promotion.HasField("override")
    assert not registry.model.versions[0].overrides


def test_an_archived_version_is_archived_for_operators_too(registry: Registry) -> None:
    version = registry.register()
    command = service.ArchiveVersionRequest(version=version)
    registry.apply(lambda state: domain.decide_archive(state, command))

    with pytest.raises(FailedPrecondition) as refusal:
        registry.promote(version, override=True)

    assert unmet(refusal.value) == {"archived", "approval"}


def test_a_rollback_to_a_version_that_came_by_override_bears_the_mark(registry: Registry) -> None:
    first = registry.register()
    registry.promote(first, override=True)
    registry.promoted()

    [event] = registry.roll_back(1)

    assert isinstance(event, events.VersionRolledBack)
    assert event.promotion.override == registry.model.versions[0].overrides[0]
    assert len(registry.model.versions[0].overrides) == 1


def test_the_mark_outlives_a_proper_promotion(registry: Registry) -> None:
    first = registry.register()
    registry.promote(first, override=True)
    registry.promoted()
    registry.review(first, approve=True)

    [event] = registry.promote(first)

    assert isinstance(event, events.VersionPromoted)
    assert not event.promotion.HasField("override")
    assert len(registry.model.versions[0].overrides) == 1
    history = registry.model.aliases[0].history
    assert [each.HasField("override") for each in history] == [True, False, False]
