"""Persons: pure decisions about them, and the one table that has their names."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import UUID, uuid5

from google.protobuf.message import Message

from headrace.api.registry.v1 import events_pb2 as events
from headrace.api.registry.v1.resources_pb2 import Person
from headrace_kit.context import CommandContext
from headrace_kit.errors import FailedPrecondition
from headrace_kit.eventstore import Aggregate
from headrace_kit.postgres import Database

PERSONS: Final = UUID("5f2d7a14-6f0c-5e6e-9c1b-0c8a5d3b7e21")
"""Root of the ids of persons. Fixed for ever."""


def person_of(command_id: UUID) -> str:
    """The principal of the person that a command adds: ``persons/{32 hex digits}``, which tell nothing of them."""
    return f"persons/{uuid5(PERSONS, str(command_id)).hex}"


def stream_of(person: str) -> str:
    """The stream of a person: ``projects/headrace/persons/{person}``."""
    return f"projects/headrace/{person}"


def decide_add(state: Person | None, person: str, context: CommandContext) -> Sequence[Message]:
    """Nothing when they are there already.

    Raises:
        FailedPrecondition: they were erased; an id is not used again.
    """
    if state is None:
        added = events.PersonAdded(person=person, creator=context.actor)
        added.time.FromDatetime(context.now)
        return [added]
    if state.HasField("erase_time"):
        raise FailedPrecondition("the person was erased", reason="PERSON_ERASED", field="command_id")
    return []


def decide_erase(state: Person | None, person: str, context: CommandContext) -> Sequence[Message]:
    """Also of an id that was never added: it may stand in telemetry alone. Nothing when they are erased already."""
    if state is not None and state.HasField("erase_time"):
        return []
    erased = events.PersonErased(person=person, actor=context.actor)
    erased.time.FromDatetime(context.now)
    return [erased]


def evolve(state: Person | None, event: Message) -> Person:
    """The state after an event."""
    person = Person()
    if state is not None:
        person.CopyFrom(state)
    person.revision += 1
    match event:
        case events.PersonAdded():
            person.name = event.person
            person.create_time.CopyFrom(event.time)
        case events.PersonErased():
            person.name = event.person
            person.erase_time.CopyFrom(event.time)
        case _:
            pass
    return person


PERSON: Final = Aggregate(name="person", state=Person, evolve=evolve)
"""Stream: ``projects/headrace/persons/{person}``. It owns no rows: names are in no event."""


class PersonStore:
    """The table of names. Methods raise what ``headrace_kit.postgres`` does."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, person: str, *, display_name: str, create_time: datetime) -> str:
        """Keeps a name, unless there is one; returns the one that is kept."""
        await self._database.execute(
            "INSERT INTO persons (name, display_name, create_time) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            person,
            display_name,
            create_time,
        )
        return str(await self._database.fetchval("SELECT display_name FROM persons WHERE name = $1", person) or "")

    async def delete(self, person: str) -> None:
        """Deletes a name."""
        await self._database.execute("DELETE FROM persons WHERE name = $1", person)

    async def page(self, *, after: str, limit: int) -> list[Person]:
        """At most ``limit`` persons with their names, by id, after the id ``after``."""
        rows = await self._database.fetch(
            "SELECT name, display_name, create_time FROM persons WHERE name > $1 ORDER BY name LIMIT $2", after, limit
        )
        return [_person(row["name"], row["display_name"], row["create_time"]) for row in rows]


def _person(name: str, display_name: str, create_time: datetime) -> Person:
    person = Person(name=name, display_name=display_name)
    person.create_time.FromDatetime(create_time.astimezone(UTC))
    return person
