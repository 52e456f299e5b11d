"""Whatever happens to an endpoint, in whatever order: its routes stay sound."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from google.protobuf.message import Message
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.api.serving.v1 import resources_pb2 as resources
from headrace.api.serving.v1 import service_pb2 as service
from headrace_kit.context import CommandContext
from headrace_kit.errors import KitError
from headrace_serving import domain

NAME = "projects/p/endpoints/e"
MODEL = "projects/p/models/m"
VERSIONS = [f"{MODEL}/versions/{number}" for number in range(1, 5)]
CONTEXT = CommandContext(command_id=UUID(int=7), actor="persons/operator", now=datetime(2026, 1, 1, tzinfo=UTC))

versions = st.sampled_from(VERSIONS)
steps = st.one_of(
    st.tuples(st.just("alias"), versions, st.integers(0, 12)),
    st.tuples(st.just("rollout"), versions, st.just(0)),
    st.tuples(st.just("advance"), versions, st.integers(0, 2)),
    st.tuples(st.just("abort"), versions, st.just(0)),
    st.tuples(st.just("block"), versions, st.just(0)),
    st.tuples(st.just("unblock"), versions, st.just(0)),
    st.tuples(st.just("routes"), versions, st.integers(1, 99)),
)


def decide(state: resources.Endpoint, what: str, version: str, number: int) -> list[Message]:
    match what:
        case "alias":
            return domain.decide_alias(state, version=version, revision=number, model=MODEL, alias="production")
        case "rollout":
            command = service.StartRolloutRequest(endpoint=NAME, version=version, steps=[5, 30, 70])
            return domain.decide_rollout(state, command, CONTEXT)
        case "advance":
            return domain.decide_advance(
                state, rollout=state.rollout.id, step=number, rows=1, failures=0, context=CONTEXT
            )
        case "abort":
            return domain.decide_abort(state, endpoint=NAME, reason="r")
        case "block":
            return domain.decide_block(state, endpoint=NAME, version=version, reason="r", context=CONTEXT)
        case "unblock":
            return domain.decide_unblock(state, endpoint=NAME, version=version, reason="r")
        case _:
            other = next(each for each in VERSIONS if each != version)
            routes = [
                resources.Route(version=version, weight=number),
                resources.Route(version=other, weight=100 - number),
            ]
            return domain.decide_routes(state, service.SetRoutesRequest(name=NAME, routes=routes))


@given(st.lists(steps, max_size=30))
@example([("rollout", VERSIONS[1], 0), ("block", VERSIONS[2], 0)])
def test_blocked_versions_never_answer_and_shares_are_whole(taken: list[tuple[str, str, int]]) -> None:
    command = service.CreateEndpointRequest(name=NAME, model=MODEL)
    [first] = domain.decide_create(None, command, CONTEXT, version=VERSIONS[0], alias_revision=1)
    state = domain.evolve(None, first)
    count = 1
    for what, version, number in taken:
        try:
            decided = decide(state, what, version, number)
        except KitError:
            continue
        before = state.SerializeToString(deterministic=True)
        for event in decided:
            following = domain.evolve(state, event)
            assert state.SerializeToString(deterministic=True) == before
            state, before = following, following.SerializeToString(deterministic=True)
            count += 1
        answering = [each.version for each in state.routes]
        blocked = domain.blocked_versions(state)
        assert not blocked.intersection(answering)
        assert len(set(answering)) == len(answering)
        assert all(each.weight >= 1 for each in state.routes)
        assert sum(each.weight for each in state.routes) == (100 if answering else 0)
        assert state.revision == count
        assert not state.HasField("rollout") or state.rollout.version in answering
