"""What a model is called: the id stays, the name for people changes."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message

from headrace.api.registry.v1 import events_pb2 as events
from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace_kit.errors import FailedPrecondition, InvalidArgument, NotFound
from headrace_registry import domain, names, requests
from headrace_registry.store import model_rows
from tests.support.registering import MODEL, OPERATOR, Registry


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.create(actor="persons/operator")
    return registry


def rename(registry: Registry, name: str, *, guarded: bool = False) -> list[Message]:
    command = service.RenameModelRequest(model=MODEL, display_name=name)
    return registry.apply(lambda state: names.decide_rename(state, command, OPERATOR, guarded=guarded))


def called(model: resources.Model) -> tuple[str, list[str]]:
    return model.display_name, list(model.former_names)


def test_a_model_is_called_by_its_id_until_it_is_renamed(registry: Registry) -> None:
    assert called(registry.model) == ("delay", [])
    before = registry.model

    [renamed] = rename(registry, "Delays of 2026")

    assert renamed == events.ModelRenamed(model=MODEL, display_name="Delays of 2026", time=registry.model.update_time)
    assert called(registry.model) == ("Delays of 2026", ["delay"])
    assert (registry.model.name, registry.model.revision) == (MODEL, before.revision + 1)
    assert called(before) == ("delay", [])


def test_the_name_it_has_changes_nothing(registry: Registry) -> None:
    assert rename(registry, "delay") == []


def test_each_former_name_is_kept_once(registry: Registry) -> None:
    for name in ("b", "delay", "b", "c"):
        rename(registry, name)

    assert called(registry.model) == ("c", ["delay", "b"])


def test_a_model_that_begins_anew_keeps_its_former_names(registry: Registry) -> None:
    rename(registry, "b")
    registry.delete()

    registry.create(actor="persons/operator")

    assert called(registry.model) == ("delay", ["b"])


def test_a_model_can_be_created_under_a_name(registry: Registry) -> None:
    command = service.CreateModelRequest(name=MODEL, display_name="Delays")
    new = Registry()
    new.apply(lambda state: domain.decide_create(state, command, OPERATOR))

    assert called(new.model) == ("Delays", [])
    [row] = model_rows(MODEL, new.model, ())
    assert row.values is not None
    assert (row.values["display_name"], row.values["names"]) == ("Delays", ["Delays"])


def test_what_is_not_there_is_not_renamed(registry: Registry) -> None:
    registry.delete()
    with pytest.raises(NotFound):
        rename(registry, "b")
    with pytest.raises(NotFound):
        rename(Registry(), "b")


def test_open_aliases_get_no_name_that_needed_approvals(registry: Registry) -> None:
    assert registry.model.open_aliases
    with pytest.raises(FailedPrecondition) as refused:
        rename(registry, "b", guarded=True)
    assert refused.value.reason == "NAME_GUARDED"

    closed = Registry()
    closed.create(actor="persons/operator", open_aliases=False)
    assert rename(closed, "b", guarded=True)


def test_a_new_model_of_such_a_name_is_not_open() -> None:
    command = service.CreateModelRequest(name=MODEL, open_aliases=True)
    [created] = domain.decide_create(None, command, OPERATOR, guarded=True)
    assert isinstance(created, events.ModelCreated)
    assert not created.open_aliases


def test_names_are_bounded(registry: Registry) -> None:
    for number in range(names.MAX_FORMER):
        rename(registry, f"n{number}")
    with pytest.raises(FailedPrecondition) as refused:
        rename(registry, "one more")
    assert refused.value.reason == "NAMES_FULL"
    assert rename(registry, "n0")  # one it had before needs no room


@pytest.mark.parametrize("name", ["", " a", "a/b", "a:b", "a@b", "x" * 251, "a\n", "é"])
def test_a_name_is_of_the_form_of_an_id(name: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        requests.check_rename(service.RenameModelRequest(model=MODEL, display_name=name))
    assert refused.value.field == "display_name"
