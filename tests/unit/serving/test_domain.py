from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from google.protobuf.message import Message

from headrace.api.serving.v1 import events_pb2 as events
from headrace.api.serving.v1 import resources_pb2 as resources
from headrace.api.serving.v1 import service_pb2 as service
from headrace_kit.context import CommandContext
from headrace_kit.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from headrace_serving import domain

NAME = "projects/p/endpoints/e"
MODEL = "projects/p/models/m"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def v(number: int) -> str:
    return f"{MODEL}/versions/{number}"


def context(identity: UUID | None = None) -> CommandContext:
    return CommandContext(command_id=identity or uuid4(), actor="persons/operator", now=NOW)


def fold(state: resources.Endpoint | None, decided: Sequence[Message]) -> resources.Endpoint:
    for event in decided:
        state = domain.evolve(state, event)
    assert state is not None
    return state


def created(version: int = 1) -> resources.Endpoint:
    command = service.CreateEndpointRequest(name=NAME, model=MODEL)
    return fold(None, domain.decide_create(None, command, context(), version=v(version), alias_revision=1))


def follow(state: resources.Endpoint, version: int, revision: int) -> resources.Endpoint:
    decided = domain.decide_alias(state, version=v(version), revision=revision, model=MODEL, alias="production")
    return fold(state, decided)


def block(state: resources.Endpoint, version: int) -> resources.Endpoint:
    return fold(state, domain.decide_block(state, endpoint=NAME, version=v(version), reason="bad", context=context()))


def roll_out(state: resources.Endpoint, version: int, **fields: object) -> resources.Endpoint:
    command = service.StartRolloutRequest(endpoint=NAME, version=v(version), **fields)  # type: ignore[arg-type]
    return fold(state, domain.decide_rollout(state, command, context()))


def shares(state: resources.Endpoint) -> dict[int, int]:
    return {int(each.version.rpartition("/")[2]): each.weight for each in state.routes}


def test_a_new_endpoint_answers_with_its_alias() -> None:
    endpoint = created()
    assert shares(endpoint) == {1: 100}
    assert (endpoint.alias, endpoint.alias_revision, endpoint.revision) == ("production", 1, 1)
    assert endpoint.telemetry == resources.TELEMETRY_MODE_ASYNC


def test_a_name_is_given_once() -> None:
    command = service.CreateEndpointRequest(name=NAME, model=MODEL)
    with pytest.raises(AlreadyExists):
        domain.decide_create(created(), command, context(), version="", alias_revision=0)


def test_it_follows_the_alias_by_revision() -> None:
    endpoint = follow(created(), 2, 2)
    assert shares(endpoint) == {2: 100}
    assert follow(endpoint, 1, 2) == endpoint
    assert follow(endpoint, 1, 1) == endpoint


def test_another_alias_or_model_changes_nothing() -> None:
    assert domain.decide_alias(created(), version=v(2), revision=9, model=MODEL, alias="staging") == []
    assert (
        domain.decide_alias(created(), version=v(2), revision=9, model="projects/p/models/x", alias="production") == []
    )


def test_a_blocked_version_gives_way_to_the_last_good_one() -> None:
    endpoint = block(follow(follow(created(), 2, 2), 3, 3), 3)
    assert shares(endpoint) == {2: 100}
    assert shares(block(endpoint, 2)) == {1: 100}
    assert shares(block(block(endpoint, 2), 1)) == {}


def test_a_blocked_version_is_not_routed_to_when_the_alias_moves_to_it() -> None:
    endpoint = follow(block(follow(created(), 2, 2), 2), 2, 3)
    assert shares(endpoint) == {1: 100}
    assert endpoint.alias_revision == 3


def test_blocking_twice_is_blocking_once() -> None:
    endpoint = block(follow(created(), 2, 2), 2)
    assert block(endpoint, 2) == endpoint


def test_a_version_of_another_model_can_not_be_blocked() -> None:
    with pytest.raises(InvalidArgument):
        domain.decide_block(
            created(), endpoint=NAME, version="projects/p/models/x/versions/1", reason="r", context=context()
        )


def test_a_blocked_version_of_a_mixture_leaves_the_rest_in_proportion() -> None:
    routes = [resources.Route(version=v(n), weight=w) for n, w in ((1, 20), (2, 60), (3, 20))]
    endpoint = fold(created(), domain.decide_routes(created(), service.SetRoutesRequest(name=NAME, routes=routes)))
    assert shares(block(endpoint, 2)) == {1: 50, 3: 50}


def test_routes_of_a_blocked_version_are_refused() -> None:
    endpoint = block(follow(created(), 2, 2), 2)
    routes = [resources.Route(version=v(2), weight=100)]
    with pytest.raises(FailedPrecondition):
        domain.decide_routes(endpoint, service.SetRoutesRequest(name=NAME, routes=routes))


def test_a_rollout_goes_through_its_steps() -> None:
    endpoint = roll_out(created(), 2, steps=[10, 50])
    identity = endpoint.rollout.id
    assert shares(endpoint) == {1: 90, 2: 10}
    decided = domain.decide_advance(endpoint, rollout=identity, step=0, rows=9, failures=0, context=context())
    endpoint = fold(endpoint, decided)
    assert shares(endpoint) == {1: 50, 2: 50}
    assert domain.decide_advance(endpoint, rollout=identity, step=0, rows=9, failures=0, context=context()) == []
    assert domain.decide_advance(endpoint, rollout=identity, step=1, rows=9, failures=0, context=context()) == []
    endpoint = follow(endpoint, 2, 2)
    assert shares(endpoint) == {2: 100}
    assert not endpoint.HasField("rollout")
    assert shares(block(endpoint, 2)) == {1: 100}


def test_completion_is_told_once() -> None:
    endpoint = roll_out(created(), 2)
    decided = domain.decide_alias(endpoint, version=v(2), revision=2, model=MODEL, alias="production")
    assert [type(each) for each in decided] == [events.RolloutCompleted, events.RoutesChanged]
    after = fold(endpoint, decided)
    assert domain.decide_alias(after, version=v(2), revision=2, model=MODEL, alias="production") == []


def test_an_aborted_rollout_leaves_the_routes_as_before() -> None:
    endpoint = roll_out(created(), 2)
    decided = domain.decide_abort(endpoint, endpoint=NAME, reason="no")
    endpoint = fold(endpoint, decided)
    assert shares(endpoint) == {1: 100}
    assert not endpoint.HasField("rollout")
    assert not endpoint.previous
    with pytest.raises(FailedPrecondition):
        domain.decide_abort(endpoint, endpoint=NAME, reason="no")
    assert domain.decide_abort(endpoint, endpoint=NAME, reason="no", rollout="another") == []


def test_blocking_the_candidate_aborts_its_rollout() -> None:
    endpoint = block(roll_out(created(), 2), 2)
    assert shares(endpoint) == {1: 100}
    assert not endpoint.HasField("rollout")


def test_an_alias_that_moves_elsewhere_aborts_the_rollout() -> None:
    endpoint = follow(roll_out(created(), 2), 3, 2)
    assert shares(endpoint) == {3: 100}
    assert not endpoint.HasField("rollout")


def test_one_rollout_at_a_time() -> None:
    with pytest.raises(FailedPrecondition):
        roll_out(roll_out(created(), 2), 3)


def test_what_answers_already_is_not_rolled_out() -> None:
    with pytest.raises(FailedPrecondition):
        roll_out(created(), 1)


@pytest.mark.parametrize(
    "decide",
    [
        lambda: domain.decide_configure(None, service.ConfigureEndpointRequest(name=NAME)),
        lambda: domain.decide_routes(None, service.SetRoutesRequest(name=NAME)),
        lambda: domain.decide_rollout(None, service.StartRolloutRequest(endpoint=NAME), context()),
        lambda: domain.decide_abort(None, endpoint=NAME, reason="r"),
        lambda: domain.decide_block(None, endpoint=NAME, version=v(1), reason="r", context=context()),
        lambda: domain.decide_unblock(None, endpoint=NAME, version=v(1), reason="r"),
    ],
)
def test_an_endpoint_that_does_not_exist_is_not_found(decide: object) -> None:
    assert callable(decide)
    with pytest.raises(NotFound):
        decide()


def test_earlier_routes_are_kept_up_to_a_limit() -> None:
    endpoint = created()
    for number in range(2, 40):
        endpoint = follow(endpoint, number, number)
    assert len(endpoint.previous) == domain.PREVIOUS_KEPT
    assert endpoint.previous[-1].routes[0].version == v(38)


def test_the_revision_counts_events() -> None:
    endpoint = created()
    for count, number in zip(itertools.count(2), range(2, 6), strict=False):
        endpoint = follow(endpoint, number, number)
        assert endpoint.revision == count
