"""Routes come into force by one swap, whatever loads, fails or ends in between."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from headrace.api.registry.v1.resources_pb2 import Version
from headrace.api.serving.v1.resources_pb2 import BlockedVersion, Endpoint, Route, RouteSet
from headrace_kit.errors import NotFound, Unavailable
from headrace_serving.contract import Contract
from headrace_serving.router import Router, endpoint_name, model_name
from headrace_serving.runtime import ModelNotLoadable
from headrace_serving.tensors import Array
from headrace_serving.versions import LoadedVersion
from tests.support.serving import signature

NAME = "projects/default/endpoints/e"
MODEL = "projects/default/models/m"


class FakeRuntime:
    platform = "fake"

    def __init__(self) -> None:
        self.closed = False

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        assert not self.closed
        return {name: np.zeros((len(inputs["X"]), 1), dtype="<f4") for name in outputs}

    def close(self) -> None:
        self.closed = True


class FakeLoader:
    """Loads at once, unless a gate holds a version back or it is broken."""

    def __init__(self) -> None:
        self.gates: dict[str, asyncio.Event] = {}
        self.broken: set[str] = set()
        self.runtimes: dict[str, FakeRuntime] = {}
        self.loads: list[str] = []

    async def load(self, name: str, *, allow_pickle: bool) -> LoadedVersion:
        self.loads.append(name)
        if name in self.gates:
            await self.gates[name].wait()
        if name in self.broken:
            raise ModelNotLoadable(f"{name} is broken")
        runtime = self.runtimes[name] = FakeRuntime()
        number = int(name.rpartition("/")[2])
        return LoadedVersion(
            Version(name=name, number=number), runtime, Contract(signature()), threads=ThreadPoolExecutor(1)
        )


def v(number: int) -> str:
    return f"{MODEL}/versions/{number}"


def endpoint(revision: int, shares: dict[int, int], *, blocked: Sequence[int] = (), previous: int = 0) -> Endpoint:
    return Endpoint(
        name=NAME,
        model=MODEL,
        revision=revision,
        routes=[Route(version=v(number), weight=weight) for number, weight in shares.items()],
        blocked=[BlockedVersion(version=v(number)) for number in blocked],
        previous=[RouteSet(routes=[Route(version=v(previous), weight=100)])] if previous else [],
    )


def answering(router: Router) -> set[str]:
    return {each.version.number for each in router.plan("e").shares}


@pytest.fixture
def loader() -> FakeLoader:
    return FakeLoader()


@pytest.fixture
def router(loader: FakeLoader) -> Router:
    return Router(loader)


async def test_the_old_version_answers_until_the_new_one_is_loaded(router: Router, loader: FakeLoader) -> None:
    await router.apply(endpoint(1, {1: 100}))
    loader.gates[v(2)] = asyncio.Event()
    applying = asyncio.create_task(router.apply(endpoint(2, {2: 100})))
    await asyncio.sleep(0)
    assert answering(router) == {"1"}
    loader.gates[v(2)].set()
    await applying
    assert answering(router) == {"2"}


async def test_a_lower_revision_changes_nothing(router: Router) -> None:
    await router.apply(endpoint(2, {2: 100}))
    await router.apply(endpoint(1, {1: 100}))
    assert answering(router) == {"2"}


async def test_a_load_that_ends_late_does_not_undo_a_newer_change(router: Router, loader: FakeLoader) -> None:
    await router.apply(endpoint(1, {1: 100}))
    loader.gates[v(2)] = asyncio.Event()
    late = asyncio.create_task(router.apply(endpoint(2, {2: 100})))
    await asyncio.sleep(0)
    await router.apply(endpoint(3, {1: 100}))
    loader.gates[v(2)].set()
    await late
    assert answering(router) == {"1"}


async def test_a_blocked_version_stops_while_its_successor_still_loads(router: Router, loader: FakeLoader) -> None:
    await router.apply(endpoint(1, {2: 100}))
    loader.gates[v(1)] = asyncio.Event()
    applying = asyncio.create_task(router.apply(endpoint(2, {1: 100}, blocked=[2])))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        router.choose("e", "", "key")
    loader.gates[v(1)].set()
    await applying
    assert answering(router) == {"1"}


async def test_a_version_that_loads_does_not_answer_when_the_one_beside_it_is_blocked(
    router: Router, loader: FakeLoader
) -> None:
    await router.apply(endpoint(1, {1: 100}))
    loader.gates[v(3)] = asyncio.Event()
    changes = [
        asyncio.create_task(router.apply(endpoint(2, {2: 50, 3: 50}, blocked=[1]))),
        asyncio.create_task(router.apply(endpoint(3, {3: 100}, blocked=[1, 2]))),
    ]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        router.choose("e", "", "key")
    loader.gates[v(3)].set()
    await asyncio.gather(*changes)
    assert answering(router) == {"3"}


async def test_a_revision_counts_once_all_of_it_is_in_force(router: Router, loader: FakeLoader) -> None:
    await router.apply(endpoint(1, {1: 100}))
    loader.gates[v(2)] = asyncio.Event()
    first = asyncio.create_task(router.apply(endpoint(2, {2: 100}, blocked=[1])))
    again = asyncio.create_task(router.apply(endpoint(2, {2: 100}, blocked=[1])))
    await asyncio.sleep(0)
    assert router.revision(NAME) == 0
    loader.gates[v(2)].set()
    await asyncio.gather(first, again)
    assert router.revision(NAME) == 2
    assert loader.loads == [v(1), v(2)]


async def test_a_rollback_finds_the_version_before_in_memory(router: Router, loader: FakeLoader) -> None:
    await router.apply(endpoint(1, {2: 100}, previous=1))
    while v(1) not in loader.runtimes:
        await asyncio.sleep(0)
    loads = list(loader.loads)
    await router.apply(endpoint(2, {1: 100}, blocked=[2], previous=1))
    assert answering(router) == {"1"}
    assert loader.loads == loads


async def test_a_version_that_can_not_be_loaded_leaves_the_routes_and_is_tried_again(
    router: Router, loader: FakeLoader
) -> None:
    await router.apply(endpoint(1, {1: 100}))
    loader.broken.add(v(2))
    await router.apply(endpoint(2, {2: 100}))
    assert answering(router) == {"1"}
    assert [fault for _, _, fault in router.states()] == [f"{v(2)} is broken"]
    loader.broken.clear()
    await router.retry()
    assert answering(router) == {"2"}
    assert [fault for _, _, fault in router.states()] == [""]


async def test_a_model_is_freed_after_its_last_request(router: Router, loader: FakeLoader) -> None:
    await router.apply(endpoint(1, {1: 100}))
    _, share = router.choose("e", "", "key")
    with share.version.in_use():
        await router.apply(endpoint(2, {2: 100}))
        assert not loader.runtimes[v(1)].closed
    assert loader.runtimes[v(1)].closed
    assert not loader.runtimes[v(2)].closed


async def test_several_that_want_a_version_wait_for_one_load(router: Router, loader: FakeLoader) -> None:
    await asyncio.gather(*(router.load(v(1), allow_pickle=False) for _ in range(5)))
    assert loader.loads == [v(1)]


async def test_shares_are_kept_and_a_key_stays_on_its_version(router: Router) -> None:
    await router.apply(endpoint(1, {1: 75, 2: 25}))
    keys = [f"key-{number}" for number in range(4000)]
    chosen = [router.choose("e", "", key)[1].version.number for key in keys]
    assert 0.22 < chosen.count("2") / len(keys) < 0.28
    assert chosen == [router.choose("e", "", key)[1].version.number for key in keys]
    largest = router.plan("e").largest
    assert largest is not None
    assert largest.version.number == "1"


async def test_a_version_by_its_number_answers_only_while_it_has_a_share(router: Router) -> None:
    await router.apply(endpoint(1, {1: 90, 2: 10}))
    assert router.choose("e", "2", "key")[1].version.number == "2"
    await router.apply(endpoint(2, {1: 100}, blocked=[2]))
    with pytest.raises(NotFound):
        router.choose("e", "2", "key")


async def test_what_is_not_known_is_not_found(router: Router) -> None:
    for model in ("", "nobody", "p/nobody", "/", "projects/default/endpoints/nobody", "\x00"):
        with pytest.raises(NotFound):
            router.choose(model, "", "key")


@pytest.mark.parametrize(
    ("model", "resource"), [("e", "projects/default/endpoints/e"), ("p/e", "projects/p/endpoints/e")]
)
def test_names_of_models_are_names_of_endpoints(model: str, resource: str) -> None:
    assert endpoint_name(model) == resource
    assert model_name(resource) == model
