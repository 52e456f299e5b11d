"""What the registry decides: gates, approvals, promotions, rollbacks."""

from datetime import timedelta
from uuid import UUID

import pytest

from headrace.api.monitor.v1.events_pb2 import RollbackRequested
from headrace.api.registry.v1 import events_pb2 as events
from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace_kit.errors import Aborted, FailedPrecondition, NotFound, PermissionDenied
from headrace_registry import domain, rollbacks
from tests.support.registering import MODEL, NOW, OPERATOR, Registry, by, unmet


@pytest.fixture
def registry() -> Registry:
    return Registry()


def test_a_version_without_approval_is_refused_with_the_reason(registry: Registry) -> None:
    version = registry.register()
    with pytest.raises(FailedPrecondition) as refusal:
        registry.promote(version)
    assert unmet(refusal.value) == {"approval"}
    assert not registry.model.aliases


def test_every_unmet_gate_is_named_at_once(registry: Registry) -> None:
    version = registry.register()
    gates = resources.Gates(alias="production", required_checks=["quality", "beats_champion"], approval_required=True)
    registry.apply(
        lambda state: domain.decide_gates(state, service.SetGatesRequest(model=MODEL, gates=gates), OPERATOR)
    )
    registry.validate(version, "quality", passed=False)
    with pytest.raises(FailedPrecondition) as refusal:
        registry.promote(version)
    assert unmet(refusal.value) == {"check:quality", "check:beats_champion", "approval"}


def test_only_the_newest_result_of_a_check_counts(registry: Registry) -> None:
    version = registry.register()
    gates = resources.Gates(alias="production", required_checks=["quality"])
    registry.apply(
        lambda state: domain.decide_gates(state, service.SetGatesRequest(model=MODEL, gates=gates), OPERATOR)
    )
    registry.validate(version, "quality", passed=True)
    registry.validate(version, "quality", passed=False)
    with pytest.raises(FailedPrecondition) as refusal:
        registry.promote(version)
    assert unmet(refusal.value) == {"check:quality"}


def test_the_author_can_not_approve_their_own_version(registry: Registry) -> None:
    version = registry.register(author="persons/ada")
    with pytest.raises(PermissionDenied):
        registry.review(version, approve=True, actor="persons/ada")
    registry.review(version, approve=True, actor="persons/grace")
    assert registry.promote(version, actor="persons/ada")


def test_a_service_can_not_approve(registry: Registry) -> None:
    version = registry.register()
    with pytest.raises(PermissionDenied):
        registry.review(version, approve=True, actor="services/orchestrator")


def test_a_rejection_outweighs_an_approval_until_it_is_withdrawn(registry: Registry) -> None:
    version = registry.register()
    registry.review(version, approve=True, actor="persons/a")
    registry.review(version, approve=False, actor="persons/b")
    with pytest.raises(FailedPrecondition):
        registry.promote(version)
    registry.review(version, approve=True, actor="persons/b")
    assert registry.promote(version)


def test_a_promotion_records_who_approved_which_checks_passed_and_which_data(registry: Registry) -> None:
    version = registry.register()
    registry.validate(version, "quality", passed=True)
    registry.review(version, approve=True)
    [event] = registry.promote(version)
    assert isinstance(event, events.VersionPromoted)
    promotion = event.promotion
    assert [each.actor for each in promotion.approvals] == ["persons/operator"]
    assert [each.check for each in promotion.validations] == ["quality"]
    assert [each.digest for each in promotion.datasets] == ["sha256:1"]
    assert (promotion.version, promotion.previous_version, promotion.revision) == (1, 0, 1)
    assert registry.model.versions[0].state == resources.VERSION_STATE_PRODUCTION


def test_a_promotion_by_a_service_cites_the_standing_approval(registry: Registry) -> None:
    version = registry.register()
    registry.grant()
    with pytest.raises(FailedPrecondition):
        registry.promote(version, actor="services/serving")
    registry.validate(version, "quality", passed=True)
    [event] = registry.promote(version, actor="services/serving")
    assert isinstance(event, events.VersionPromoted)
    assert event.promotion.standing_approval.approver == "persons/operator"


def test_a_standing_approval_serves_only_its_grantees_and_its_time(registry: Registry) -> None:
    version = registry.register()
    registry.grant(checks=(), lasts=timedelta(days=1))
    with pytest.raises(FailedPrecondition):
        registry.promote(version, actor="services/monitor")
    with pytest.raises(FailedPrecondition):
        registry.promote(version, actor="services/serving", at=NOW + timedelta(days=1))
    assert registry.promote(version, actor="services/serving", at=NOW + timedelta(hours=23))


def test_a_revoked_standing_approval_serves_nobody(registry: Registry) -> None:
    version = registry.register()
    registry.grant(checks=())
    command = service.RevokeStandingApprovalRequest(model=MODEL, id="of persons/operator", reason="no more")
    registry.apply(lambda state: domain.decide_revoke(state, command, by("persons/operator")))
    with pytest.raises(FailedPrecondition):
        registry.promote(version, actor="services/serving")


def test_a_promotion_that_saw_an_older_alias_is_aborted(registry: Registry) -> None:
    registry.promoted()
    second = registry.register()
    registry.review(second, approve=True)
    with pytest.raises(Aborted):
        registry.promote(second, expected=0)
    assert registry.promote(second, expected=1)


def test_an_incompatible_signature_is_refused_where_the_gate_asks(registry: Registry) -> None:
    registry.promoted()
    gates = resources.Gates(alias="production", compatible_signature_required=True)
    registry.apply(
        lambda state: domain.decide_gates(state, service.SetGatesRequest(model=MODEL, gates=gates), OPERATOR)
    )
    other = registry.register(columns=("a", "c"))
    with pytest.raises(FailedPrecondition) as refusal:
        registry.promote(other)
    assert unmet(refusal.value) == {"signature"}
    same = registry.register()
    assert registry.promote(same)


def test_a_rollback_returns_to_the_version_before_and_never_to_a_bad_one(registry: Registry) -> None:
    first, second, third = registry.promoted(), registry.promoted(), registry.promoted()
    request = RollbackRequested(model=MODEL, alias="production", bad_version=third, alias_revision=3, reason="worse")
    [event] = registry.apply(lambda state: rollbacks.decide_requested(state, request, by("services/registry")))
    assert isinstance(event, events.VersionRolledBack)
    assert event.version == second
    command = service.RollBackAliasRequest(model=MODEL, alias="production", expected_revision=-1, reason="again")
    [event] = registry.apply(lambda state: rollbacks.decide(state, command, by("persons/operator")))
    assert isinstance(event, events.VersionRolledBack)
    assert event.version == first
    states = [each.state for each in registry.model.versions]
    assert states == [resources.VERSION_STATE_PRODUCTION, resources.VERSION_STATE_DRAFT, resources.VERSION_STATE_DRAFT]


def test_a_rollback_of_what_moved_on_is_refused_on_the_record(registry: Registry) -> None:
    first, _second = registry.promoted(), registry.promoted()
    request = RollbackRequested(model=MODEL, alias="production", bad_version=first, alias_revision=1, reason="late")
    [event] = registry.apply(lambda state: rollbacks.decide_requested(state, request, by("services/registry")))
    assert isinstance(event, events.RollbackRefused)
    assert event.revision == 2


def test_a_version_under_an_alias_can_not_be_archived(registry: Registry) -> None:
    version = registry.promoted()
    command = service.ArchiveVersionRequest(version=version, reason="old")
    with pytest.raises(FailedPrecondition):
        registry.apply(lambda state: domain.decide_archive(state, command))
    registry.promoted()
    registry.apply(lambda state: domain.decide_archive(state, command))
    with pytest.raises(FailedPrecondition):
        registry.promote(version)


def test_unknown_names_are_not_found(registry: Registry) -> None:
    with pytest.raises(NotFound):
        registry.promote(f"{MODEL}/versions/1")
    registry.register()
    for bad in ("0", "2", "x", "-1", "١"):
        with pytest.raises(NotFound):
            registry.promote(f"{MODEL}/versions/{bad}")


def test_evolve_leaves_the_given_state_as_it_was(registry: Registry) -> None:
    version = registry.register()
    before = registry.model.SerializeToString(deterministic=True)
    held = registry.model
    registry.review(version, approve=True)
    assert held.SerializeToString(deterministic=True) == before


def test_a_service_can_not_set_gates(registry: Registry) -> None:
    registry.register()
    command = service.SetGatesRequest(model=MODEL, gates=resources.Gates(alias="production"))

    with pytest.raises(PermissionDenied, match="only persons set gates"):
        registry.apply(lambda state: domain.decide_gates(state, command, by("services/orchestrator")))

    assert not registry.model.gates


def test_gates_that_are_so_already_are_not_set_again(registry: Registry) -> None:
    registry.register()
    command = service.SetGatesRequest(model=MODEL, gates=resources.Gates(alias="production", required_checks=["q"]))

    decided = [registry.apply(lambda state: domain.decide_gates(state, command, OPERATOR)) for _ in range(2)]

    assert [len(each) for each in decided] == [1, 0]


def test_a_promotion_cites_the_gates_it_passed_and_who_set_them(registry: Registry) -> None:
    version = registry.register()
    [set_by] = registry.set_gates(actor="persons/grace", checks=("quality",))
    registry.validate(version, "quality", passed=True)

    [event] = registry.promote(version, actor="services/serving")

    assert isinstance(event, events.VersionPromoted)
    assert isinstance(set_by, events.GatesSet)
    cited = event.promotion.gates
    assert cited == set_by.gates
    assert cited.actor == "persons/grace"
    assert UUID(cited.event_id).version == 7
    assert not event.promotion.approvals
    assert not event.promotion.HasField("standing_approval")


def test_an_author_can_not_let_their_own_version_pass(registry: Registry) -> None:
    version = registry.register(author="persons/ada")
    registry.set_gates(actor="persons/ada")
    registry.grant(checks=(), grantee="persons/ada", actor="persons/ada")

    with pytest.raises(FailedPrecondition, match="a person other than persons/ada") as refusal:
        registry.promote(version, actor="persons/ada")

    assert unmet(refusal.value) == {"approval"}
    assert not registry.model.aliases


def test_what_another_person_said_beforehand_lets_a_version_of_the_author_pass(registry: Registry) -> None:
    version = registry.register(author="persons/ada")
    registry.set_gates(actor="persons/grace", alias="staging")
    registry.grant(checks=(), grantee="persons/ada", actor="persons/grace")

    assert registry.promote(version, alias="staging", actor="persons/ada")
    assert registry.promote(version, alias="production", actor="persons/ada")


def test_gates_that_another_person_confirms_are_that_persons_word(registry: Registry) -> None:
    version = registry.register(author="persons/ada")
    registry.set_gates(actor="persons/ada")
    with pytest.raises(FailedPrecondition):
        registry.promote(version, actor="persons/ada")

    assert registry.set_gates(actor="persons/grace")

    assert registry.promote(version, actor="persons/ada")


def test_gates_of_which_nobody_is_known_who_set_them_vouch_for_nothing(registry: Registry) -> None:
    version = registry.register()
    old = events.GatesSet(model=MODEL, gates=resources.Gates(alias="production"))
    registry.apply(lambda _: [old])

    with pytest.raises(FailedPrecondition) as refusal:
        registry.promote(version)

    assert unmet(refusal.value) == {"approval"}


def test_an_alias_can_not_be_rolled_back_to_where_it_never_was(registry: Registry) -> None:
    first, second = registry.promoted(), registry.promoted()
    never = registry.register(author="persons/ada")
    command = service.RollBackAliasRequest(
        model=MODEL, alias="production", version=3, expected_revision=-1, reason="sneaked in"
    )

    with pytest.raises(FailedPrecondition, match="never pointed to"):
        registry.apply(lambda state: rollbacks.decide(state, command, by("persons/ada")))

    assert never.endswith("/3")
    command.version = 1
    [event] = registry.apply(lambda state: rollbacks.decide(state, command, by("persons/ada")))
    assert isinstance(event, events.VersionRolledBack)
    assert (event.bad_version, event.version) == (second, first)
