"""Limits of requests: tried at the limit and one beyond."""

from __future__ import annotations

import pytest

from headrace.api.serving.v1 import resources_pb2 as resources
from headrace.api.serving.v1 import service_pb2 as service
from headrace_kit.errors import InvalidArgument
from headrace_serving import requests

ENDPOINT = "projects/p/endpoints/e"
MODEL = "projects/p/models/m"


def version(number: int) -> str:
    return f"{MODEL}/versions/{number}"


def rollout(**fields: object) -> service.StartRolloutRequest:
    given = {"endpoint": ENDPOINT, "version": version(1), **fields}
    return service.StartRolloutRequest(**given)  # type: ignore[arg-type]


def routes(*shares: int) -> service.SetRoutesRequest:
    found = [resources.Route(version=version(number), weight=share) for number, share in enumerate(shares, 1)]
    return service.SetRoutesRequest(name=ENDPOINT, routes=found)


def test_what_lies_within_the_limits_passes() -> None:
    requests.check_create(service.CreateEndpointRequest(name=f"projects/p/endpoints/{'e' * 100}", model=MODEL))
    requests.check_rollout(rollout(steps=range(1, 21), step_s=1e7, maximum_error_rate=1))
    requests.check_rollout(rollout(steps=[1, 99]))
    requests.check_routes(routes(*[10] * 10))
    requests.check_change(ENDPOINT, version(999_999_999), "r" * 2000)


def check(request: service.CreateEndpointRequest | service.StartRolloutRequest | service.SetRoutesRequest) -> None:
    match request:
        case service.CreateEndpointRequest():
            requests.check_create(request)
        case service.StartRolloutRequest():
            requests.check_rollout(request)
        case _:
            requests.check_routes(request)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (service.CreateEndpointRequest(name=f"projects/p/endpoints/{'e' * 101}", model=MODEL), "name"),
        (service.CreateEndpointRequest(name="e", model=MODEL), "name"),
        (service.CreateEndpointRequest(name=ENDPOINT, model="projects/q/models/m"), "model"),
        (service.CreateEndpointRequest(name=ENDPOINT, model=MODEL, alias="A B"), "alias"),
        (rollout(steps=range(1, 22)), "steps"),
        (rollout(steps=[0]), "steps[0]"),
        (rollout(steps=[100]), "steps[0]"),
        (rollout(steps=[10, 10]), "steps[1]"),
        (rollout(maximum_error_rate=1.01), "maximum_error_rate"),
        (rollout(maximum_error_rate=float("nan")), "maximum_error_rate"),
        (rollout(step_s=float("inf")), "step_s"),
        (rollout(step_rows=-1), "step_rows"),
        (rollout(version=f"{MODEL}/versions/0"), "version"),
        (rollout(version=f"{MODEL}/versions/1000000000"), "version"),
        (rollout(version=f"{MODEL}/versions/٣"), "version"),
        (routes(), "routes"),
        (routes(*[10] * 11), "routes"),
        (routes(50, 51), "routes"),
        (routes(101), "routes[0].weight"),
        (routes(150, -50), "routes[0].weight"),
    ],
)
def test_what_lies_beyond_is_refused_and_named(
    request_: service.CreateEndpointRequest | service.StartRolloutRequest | service.SetRoutesRequest, field: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        check(request_)
    assert refused.value.field == field


def test_a_reason_must_be_given_and_ends_somewhere() -> None:
    for reason in ("", "r" * 2001):
        with pytest.raises(InvalidArgument):
            requests.check_reason(reason)


def test_the_same_version_twice_is_refused() -> None:
    request = routes(50)
    request.routes.add(version=version(1), weight=50)
    with pytest.raises(InvalidArgument):
        requests.check_routes(request)
