"""No two models of a project have one name for people, whoever asks at the same time: on a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any
from uuid import uuid4

import pytest

from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace_kit.auth import Principal, set_principal
from headrace_kit.errors import AlreadyExists, FailedPrecondition, NotFound
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.eventtypes import EventTypes
from headrace_kit.objects import MemoryObjectStore
from headrace_kit.postgres import Database, create_pool, migrate
from headrace_local.testing import FreshDatabase
from headrace_registry.events import EVENT_TYPES
from headrace_registry.rpc import RegistryServicer
from headrace_registry.store import ModelStore

PARENT = "projects/default"
CONTEXT: Any = None  # no method here looks at it


class World:
    """Two processes of the registry on one database."""

    def __init__(self, *pools: Database) -> None:
        self.objects = MemoryObjectStore()
        self.one, self.other = (
            RegistryServicer(
                PostgresEventStore(pool, "headrace/registry", EventTypes(*EVENT_TYPES)), ModelStore(pool), self.objects
            )
            for pool in pools
        )

    async def create(self, name: str, *, at: RegistryServicer | None = None, **fields: Any) -> resources.Model:
        request = service.CreateModelRequest(command_id=str(uuid4()), name=f"{PARENT}/models/{name}", **fields)
        return (await (at or self.one).CreateModel(request, CONTEXT)).model

    async def rename(self, model: str, name: str, *, at: RegistryServicer | None = None) -> resources.Model:
        command = str(uuid4())
        request = service.RenameModelRequest(command_id=command, model=f"{PARENT}/models/{model}", display_name=name)
        return (await (at or self.one).RenameModel(request, CONTEXT)).model

    async def delete(self, model: str) -> None:
        request = service.DeleteModelRequest(command_id=str(uuid4()), model=f"{PARENT}/models/{model}")
        await self.one.DeleteModel(request, CONTEXT)

    async def named(self, name: str, parent: str = PARENT) -> str:
        request = service.GetModelRequest(parent=parent, display_name=name)
        request.read_mask.paths.append("name")
        found = (await self.other.GetModel(request, CONTEXT)).model
        assert not found.display_name  # nobody asked
        return found.name.rpartition("/")[2]

    async def listed(self) -> dict[str, str]:
        found = await self.other.ListModels(service.ListModelsRequest(parent=PARENT), CONTEXT)
        return {each.name.rpartition("/")[2]: each.display_name for each in found.models}


@pytest.fixture
async def world(database: FreshDatabase) -> AsyncIterator[World]:
    await migrate(database.migration_dsn, ["headrace_registry"], service_dsn=database.service_dsn)
    pools = [await create_pool(database.service_dsn) for _ in range(2)]
    set_principal(Principal("persons/operator", frozenset({"operator"})))
    yield World(*pools)
    for pool in pools:
        await pool.close()


async def outcomes(*attempts: Awaitable[resources.Model]) -> list[resources.Model]:
    """Those that won; every other one was told that the name is taken."""
    found = await asyncio.gather(*attempts, return_exceptions=True)
    won = [each for each in found if isinstance(each, resources.Model)]
    lost = [each for each in found if not isinstance(each, resources.Model)]
    assert all(isinstance(each, AlreadyExists) and each.reason == "NAME_TAKEN" for each in lost), lost
    return won


async def test_of_many_renames_to_one_name_one_wins(world: World) -> None:
    models = [f"m{number}" for number in range(12)]
    for each in models:
        await world.create(each)

    [won] = await outcomes(
        *(world.rename(each, "best", at=world.other if at % 2 else world.one) for at, each in enumerate(models))
    )

    assert f"{PARENT}/models/{await world.named('best')}" == won.name
    listed = await world.listed()
    assert sorted(listed.values()) == sorted({*models, "best"} - {won.name.rpartition("/")[2]})


async def test_of_creations_and_renames_to_one_name_one_wins(world: World) -> None:
    await world.create("a")
    await world.create("b")

    won = await outcomes(
        world.rename("a", "best"),
        world.create("best", at=world.other),
        world.rename("b", "best", at=world.other),
        world.create("another", display_name="best"),
    )

    assert [each.display_name for each in won] == ["best"]
    assert list((await world.listed()).values()).count("best") == 1
    with pytest.raises(AlreadyExists):
        await world.create("yet-another", display_name="best")


async def test_a_name_that_was_left_is_free_and_the_id_stays(world: World) -> None:
    await world.create("a")
    await world.rename("a", "b")

    assert await world.named("b") == "a"
    with pytest.raises(NotFound):
        await world.named("a")
    with pytest.raises(NotFound):
        await world.named("b", "projects/another")
    by_id = await world.one.GetModel(service.GetModelRequest(name=f"{PARENT}/models/a"), CONTEXT)
    assert (by_id.model.display_name, list(by_id.model.former_names)) == ("b", ["a"])
    with pytest.raises(AlreadyExists) as taken:
        await world.create("b")
    assert taken.value.field == "display_name"
    await world.create("a-2", display_name="a")
    assert await world.named("a") == "a-2"
    with pytest.raises(AlreadyExists):
        await world.rename("a", "a")
    assert await world.listed() == {"a": "b", "a-2": "a"}


async def test_a_model_that_was_deleted_leaves_its_name(world: World) -> None:
    await world.create("a")
    await world.rename("a", "b")
    await world.delete("a")

    assert (await world.create("b")).name == f"{PARENT}/models/b"
    assert (await world.create("a")).former_names == ["b"]
    assert await world.listed() == {"a": "a", "b": "b"}


async def test_a_repeated_command_renames_once(world: World) -> None:
    await world.create("a")
    request = service.RenameModelRequest(command_id=str(uuid4()), model=f"{PARENT}/models/a", display_name="b")
    first = await world.one.RenameModel(request, CONTEXT)
    await world.rename("a", "c")

    assert await world.other.RenameModel(request, CONTEXT) == first
    assert await world.named("c") == "a"


async def test_a_version_makes_no_model_of_anothers_name(world: World) -> None:
    await world.create("a")
    await world.rename("a", "b")
    artifact = await world.objects.put("default", b"onnx", "application/octet-stream")
    request = service.CreateVersionRequest(
        command_id=str(uuid4()),
        model=f"{PARENT}/models/b",
        create_model=True,
        artifact=artifact,
        format=resources.MODEL_FORMAT_MLFLOW,
    )

    with pytest.raises(AlreadyExists) as taken:
        await world.one.CreateVersion(request, CONTEXT)

    assert taken.value.field == "model"
    assert await world.listed() == {"a": "b"}


async def test_a_name_that_needed_approvals_is_never_open(world: World) -> None:
    await world.create("guarded")
    await world.rename("guarded", "b")
    await world.rename("guarded", "c")
    assert (await world.create("mine", open_aliases=True)).open_aliases

    for name in ("guarded", "b"):
        with pytest.raises(FailedPrecondition) as refused:
            await world.rename("mine", name)
        assert refused.value.reason == "NAME_GUARDED"
    assert not (await world.create("b", open_aliases=True)).open_aliases
    assert not (await world.create("x", display_name="guarded", open_aliases=True)).open_aliases
