"""What leads to a version keeps it from being archived or deleted, and is named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from google.protobuf.message import Message

from headrace.api.registry.v1 import events_pb2 as events
from headrace.api.registry.v1 import resources_pb2 as resources
from headrace_kit.errors import FailedPrecondition, NotFound
from headrace_registry import references
from tests.support.registering import MODEL, Registry

ENDPOINT = "projects/default/endpoints/delays"
ENDS = {"archive": Registry.archive, "delete": Registry.delete_version}


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture(params=ENDS)
def end(request: pytest.FixtureRequest) -> Callable[[Registry, str], list[Message]]:
    return ENDS[request.param]


def holders(refusal: pytest.ExceptionInfo[FailedPrecondition]) -> set[tuple[str, str]]:
    return {(each.type, each.subject) for each in refusal.value.violations}


def test_aliases_and_routes_that_lead_to_a_version_are_all_named(
    registry: Registry, end: Callable[[Registry, str], list[Message]]
) -> None:
    version = registry.promoted()
    registry.promote(version, alias="staging")
    registry.routes(ENDPOINT, 1)

    with pytest.raises(FailedPrecondition, match=f"the endpoint {ENDPOINT} routes to it") as refusal:
        end(registry, version)

    assert refusal.value.reason == "UNDER_ALIAS"
    assert holders(refusal) == {("alias", "production"), ("alias", "staging"), ("endpoint", ENDPOINT)}


def test_a_route_alone_holds_a_version_until_it_leads_elsewhere(
    registry: Registry, end: Callable[[Registry, str], list[Message]]
) -> None:
    first, _second = registry.promoted(), registry.promoted()
    registry.routes(ENDPOINT, 1, 2)
    with pytest.raises(FailedPrecondition) as refusal:
        end(registry, first)
    assert (refusal.value.reason, holders(refusal)) == ("REFERENCED", {("endpoint", ENDPOINT)})

    registry.routes(ENDPOINT, 2)

    assert end(registry, first)


def test_the_last_champion_of_gates_that_compare_is_held(
    registry: Registry, end: Callable[[Registry, str], list[Message]]
) -> None:
    version = registry.promoted()
    registry.set_gates(actor="persons/grace", champion=[resources.ChampionGate(metric="rmse")])
    registry.remove_alias("production", actor="persons/operator")

    with pytest.raises(FailedPrecondition) as refusal:
        end(registry, version)
    assert holders(refusal) == {("champion", "production")}

    registry.set_gates(actor="persons/grace")
    assert end(registry, version)


def test_a_version_that_nothing_leads_to_goes(
    registry: Registry, end: Callable[[Registry, str], list[Message]]
) -> None:
    assert end(registry, registry.register())


def test_a_model_that_an_endpoint_routes_to_is_not_deleted(registry: Registry) -> None:
    registry.register()
    registry.routes(ENDPOINT, 1)

    with pytest.raises(FailedPrecondition) as refusal:
        registry.delete()
    assert holders(refusal) == {("endpoint", ENDPOINT)}

    registry.routes(ENDPOINT)
    registry.delete()
    assert registry.model.HasField("delete_time")


def test_routes_are_noted_once(registry: Registry) -> None:
    registry.register()
    registry.register()

    [noted] = registry.routes(ENDPOINT, 2, 1, 2)

    assert isinstance(noted, events.RoutesNoted)
    assert list(noted.routed.versions) == [1, 2]
    assert registry.routes(ENDPOINT, 1, 2) == []
    assert [each.endpoint for each in registry.model.routed] == [ENDPOINT]
    with pytest.raises(NotFound):
        references.decide_noted(None, MODEL, endpoint=ENDPOINT, versions=[1])
