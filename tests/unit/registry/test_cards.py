"""Cards are written by anybody, a revision at a time, and each is an event."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import Message

from headrace.api.registry.v1 import events_pb2 as events
from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace_kit.errors import Aborted, NotFound
from headrace_registry import domain
from tests.support.registering import MODEL, Registry, by


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.register()
    return registry


def write(registry: Registry, name: str = MODEL, *, expected: int = -1, **card: Any) -> list[Message]:
    command = service.WriteCardRequest(name=name, card=resources.ModelCard(**card), expected_revision=expected)
    return registry.apply(lambda state: domain.decide_card(state, command, by("persons/ada")))


def test_each_writing_is_an_event_with_its_revision(registry: Registry) -> None:
    write(registry, markdown="# Delays", limits="winter")
    [event] = write(registry, expected=1, markdown="# Delays of flights")

    assert isinstance(event, events.ModelCardWritten)
    card = registry.model.card
    assert event.card == card
    assert (card.revision, card.actor, card.limits) == (2, "persons/ada", "")
    assert card.event_id


def test_a_version_has_a_card_of_its_own(registry: Registry) -> None:
    [event] = write(registry, f"{MODEL}/versions/1", evaluation="rmse 20 on held-out flights")

    assert isinstance(event, events.VersionCardWritten)
    assert registry.model.versions[0].card.evaluation == "rmse 20 on held-out flights"
    assert not registry.model.HasField("card")


def test_what_the_server_fills_is_not_the_clients_to_say(registry: Registry) -> None:
    forged = resources.ModelCard(markdown="x", revision=7, actor="persons/grace", event_id="none")
    command = service.WriteCardRequest(name=MODEL, card=forged, expected_revision=-1)
    registry.apply(lambda state: domain.decide_card(state, command, by("persons/ada")))

    assert (registry.model.card.revision, registry.model.card.actor) == (1, "persons/ada")


def test_a_card_that_somebody_wrote_since_is_not_overwritten(registry: Registry) -> None:
    write(registry, markdown="one")
    with pytest.raises(Aborted) as refusal:
        write(registry, expected=0, markdown="two")
    assert refusal.value.reason == "CARD_CHANGED"


def test_the_same_card_is_not_written_again(registry: Registry) -> None:
    write(registry, markdown="one")
    assert write(registry, markdown="one") == []


def test_a_model_and_a_version_must_be_there(registry: Registry) -> None:
    with pytest.raises(NotFound):
        write(registry, f"{MODEL}/versions/2", markdown="x")
    registry.delete()
    with pytest.raises(NotFound):
        write(registry, markdown="x")
