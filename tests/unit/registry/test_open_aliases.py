"""Open aliases: what scripts written for MLflow may do without approval, until headrace's gates begin."""

from typing import Final

import pytest

from headrace.api.monitor.v1.events_pb2 import RollbackRequested
from headrace.api.registry.v1 import events_pb2 as events
from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace_kit.errors import Aborted, FailedPrecondition, PermissionDenied
from headrace_registry import domain, rollbacks
from tests.support.registering import MODEL, Registry, by, unmet

ADA: Final = "persons/ada"
GRACE: Final = "persons/grace"
MLFLOW: Final = resources.MODEL_FORMAT_MLFLOW


@pytest.fixture
def opened() -> Registry:
    """Ada's model with open aliases."""
    registry = Registry()
    registry.create(actor=ADA)
    return registry


def package(registry: Registry) -> str:
    return registry.register(author=ADA, kind=MLFLOW)


def refused(registry: Registry, version: str, *, alias: str = "production", actor: str = ADA) -> bool:
    with pytest.raises(FailedPrecondition) as refusal:
        registry.promote(version, alias=alias, actor=actor)
    return unmet(refusal.value) == {"approval"}


@pytest.mark.parametrize("alias", ["champion", "production"])
def test_a_package_passes_on_the_word_of_who_opened_the_aliases_and_the_event_says_so(
    opened: Registry, alias: str
) -> None:
    [event] = opened.promote(package(opened), alias=alias, actor="services/trainer")

    assert isinstance(event, events.VersionPromoted)
    assert (event.promotion.opened_by, event.promotion.actor) == (ADA, "services/trainer")
    created = opened.decided[0]
    assert isinstance(created, events.ModelCreated)
    assert (created.open_aliases, created.creator) == (True, ADA)


def test_a_promotion_that_was_approved_is_not_on_the_word_of_who_opened(opened: Registry) -> None:
    version = package(opened)
    opened.review(version, approve=True, actor=GRACE)

    [event] = opened.promote(version, actor=ADA)

    assert isinstance(event, events.VersionPromoted)
    assert (event.promotion.opened_by, len(event.promotion.approvals)) == ("", 1)


def test_a_rejection_holds_with_open_aliases_too(opened: Registry) -> None:
    version = package(opened)
    opened.review(version, approve=False, actor=GRACE)
    assert refused(opened, version)


@pytest.mark.parametrize(
    "kind", [resources.MODEL_FORMAT_ONNX, resources.MODEL_FORMAT_SKOPS, resources.MODEL_FORMAT_PICKLE]
)
def test_what_endpoints_serve_needs_approval_with_open_aliases_too(
    opened: Registry, kind: resources.ModelFormat.ValueType
) -> None:
    assert refused(opened, opened.register(author=ADA, kind=kind), alias="champion")


def test_an_alias_under_which_a_version_was_approved_needs_approval_from_then_on(opened: Registry) -> None:
    served = opened.register(author=ADA)
    opened.review(served, approve=True, actor=GRACE)
    opened.promote(served, actor=ADA)
    version = package(opened)
    assert refused(opened, version)
    opened.remove_alias("production", actor=ADA)
    assert refused(opened, version)
    assert opened.promote(version, alias="champion", actor=ADA)


@pytest.mark.parametrize("alias", ["champion", "production"])
def test_gates_of_any_alias_end_it_for_all(opened: Registry, alias: str) -> None:
    opened.set_gates(actor=ADA, alias="staging")

    assert not opened.model.open_aliases
    assert refused(opened, package(opened), alias=alias)


def test_gates_of_the_author_are_no_way_around(opened: Registry) -> None:
    opened.set_gates(actor=ADA)
    assert refused(opened, package(opened))
    opened.set_gates(actor=GRACE)
    assert opened.promote(opened.model.versions[0].name, actor=ADA)


def test_a_standing_approval_ends_it_and_goes_on_ending_it_when_it_is_revoked(opened: Registry) -> None:
    version = package(opened)
    opened.grant(actor=GRACE, checks=())
    assert refused(opened, version)
    revoke = service.RevokeStandingApprovalRequest(model=MODEL, id=f"of {GRACE}", reason="no more")
    opened.apply(lambda state: domain.decide_revoke(state, revoke, by(GRACE)))
    assert refused(opened, version)


def test_a_service_opens_nothing() -> None:
    registry = Registry()
    registry.create(actor="services/trainer")
    assert not registry.model.open_aliases
    assert refused(registry, registry.register(author="services/trainer", kind=MLFLOW), actor="services/trainer")


def test_nobody_opens_a_model_by_deleting_and_creating_it_anew() -> None:
    registry = Registry()
    registry.register()  # a pipeline's model, which asks for approval
    registry.delete()
    registry.create(actor=ADA)
    assert refused(registry, package(registry))


def test_nobody_gets_rid_of_gates_by_deleting_and_creating_it_anew(opened: Registry) -> None:
    opened.set_gates(actor=GRACE, checks=("quality",))
    opened.delete()
    opened.create(actor=ADA)
    version = package(opened)
    with pytest.raises(FailedPrecondition) as refusal:
        opened.promote(version, actor=ADA)
    assert unmet(refusal.value) == {"check:quality"}
    assert refused(opened, version, alias="champion")


def test_what_was_open_all_along_may_be_open_again(opened: Registry) -> None:
    opened.delete()
    opened.create(actor=ADA)
    assert opened.promote(package(opened), actor=ADA)


def test_a_rollback_does_not_bring_back_what_passed_while_aliases_were_open(opened: Registry) -> None:
    first, second = package(opened), package(opened)
    for version in (first, second):
        opened.promote(version, actor=ADA)
    opened.roll_back(1)  # by the same word as the promotions
    opened.promote(second, actor=ADA)
    opened.set_gates(actor=GRACE, checks=("quality",))

    with pytest.raises(FailedPrecondition, match="with approval"):
        opened.roll_back(1)
    request = RollbackRequested(model=MODEL, alias="production", bad_version=second, alias_revision=-1, reason="worse")
    [answer] = rollbacks.decide_requested(opened.state, request, by("services/registry"))
    assert isinstance(answer, events.RollbackRefused)

    opened.review(first, approve=True, actor=GRACE)
    [event] = opened.roll_back(1)
    assert isinstance(event, events.VersionRolledBack)
    assert [each.actor for each in event.promotion.approvals] == [GRACE]


def test_a_rollback_with_open_aliases_says_on_whose_word_it_was(opened: Registry) -> None:
    for version in (package(opened), package(opened)):
        opened.promote(version, actor=ADA)

    [event] = opened.roll_back(1, actor="services/trainer")

    assert isinstance(event, events.VersionRolledBack)
    assert event.promotion.opened_by == ADA


def test_only_a_person_removes_an_alias_where_versions_need_approval(opened: Registry) -> None:
    opened.promote(package(opened), alias="champion", actor=ADA)
    opened.remove_alias("champion", actor="services/trainer")
    opened.promote(opened.model.versions[0].name, alias="champion", actor=ADA)
    opened.set_gates(actor=GRACE, alias="production")

    with pytest.raises(PermissionDenied, match="only persons remove an alias"):
        opened.remove_alias("champion", actor="services/trainer")
    opened.remove_alias("champion", actor=ADA)

    removed = opened.decided[-1]
    assert isinstance(removed, events.AliasRemoved)
    assert removed.actor == ADA


def test_an_alias_that_moved_meanwhile_is_not_removed(opened: Registry) -> None:
    for version in (package(opened), package(opened)):
        opened.promote(version, actor=ADA)
    with pytest.raises(Aborted):
        opened.remove_alias("production", actor=ADA, expected=1)
    opened.remove_alias("production", actor=ADA, expected=2)
    assert not opened.model.aliases


def test_removing_an_alias_does_not_spare_the_next_version_its_signature() -> None:
    registry = Registry()
    registry.promoted()
    gates = resources.Gates(alias="production", compatible_signature_required=True)
    command = service.SetGatesRequest(model=MODEL, gates=gates)
    registry.apply(lambda state: domain.decide_gates(state, command, by(GRACE)))
    registry.remove_alias("production", actor=ADA)
    other = registry.register(columns=("a", "c"))

    with pytest.raises(FailedPrecondition) as refusal:
        registry.promote(other)

    assert unmet(refusal.value) == {"signature"}
