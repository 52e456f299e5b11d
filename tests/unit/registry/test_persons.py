"""Persons: opaque ids, an erasure that lasts, and no name in any event."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from google.protobuf.message import Message

from headrace.api.registry.v1.events_pb2 import PersonAdded, PersonErased
from headrace.api.registry.v1.resources_pb2 import Person
from headrace_kit.context import CommandContext
from headrace_kit.errors import FailedPrecondition
from headrace_registry.events import EVENT_TYPES
from headrace_registry.persons import decide_add, decide_erase, evolve, person_of, stream_of

NAME = person_of(UUID(int=1))
CONTEXT = CommandContext(uuid4(), "persons/operator", datetime(2026, 1, 1, tzinfo=UTC))


def folded(events: Sequence[Message], state: Person | None = None) -> Person | None:
    for event in events:
        state = evolve(state, event)
    return state


def test_an_id_is_made_of_the_command_and_tells_nothing() -> None:
    assert NAME == person_of(UUID(int=1)) != person_of(UUID(int=2))
    assert NAME.removeprefix("persons/").isalnum()
    assert stream_of(NAME) == f"projects/headrace/{NAME}"


def test_a_person_is_added_once() -> None:
    [event] = decide_add(None, NAME, CONTEXT)
    assert isinstance(event, PersonAdded)
    assert (event.person, event.creator) == (NAME, "persons/operator")
    assert decide_add(folded([event]), NAME, CONTEXT) == []


def test_who_is_erased_stays_erased() -> None:
    state = folded(decide_add(None, NAME, CONTEXT))
    erased = decide_erase(state, NAME, CONTEXT)
    assert [type(each) for each in erased] == [PersonErased]
    state = folded(erased, state)
    assert decide_erase(state, NAME, CONTEXT) == []
    with pytest.raises(FailedPrecondition, match="erased"):
        decide_add(state, NAME, CONTEXT)


def test_an_id_that_stands_in_telemetry_alone_can_be_erased() -> None:
    state = folded(decide_erase(None, "persons/7f3c", CONTEXT))
    assert state is not None
    assert (state.name, state.HasField("erase_time"), state.HasField("create_time")) == ("persons/7f3c", True, False)


def test_no_event_of_a_person_has_a_place_for_a_name() -> None:
    fields = {each.DESCRIPTOR.name: set(each.DESCRIPTOR.fields_by_name) for each in EVENT_TYPES}
    assert fields["PersonAdded"] == {"person", "creator", "time"}
    assert fields["PersonErased"] == {"person", "actor", "time"}
