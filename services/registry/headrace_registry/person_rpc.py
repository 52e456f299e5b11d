"""Persons over gRPC. Display names pass through here alone: no event, stored answer or log line has them."""

from __future__ import annotations

from datetime import UTC
from typing import Any, TypeAlias

import grpc

from headrace.api.registry.v1 import service_pb2 as service
from headrace.api.registry.v1.resources_pb2 import Person
from headrace.api.registry.v1.service_pb2_grpc import PersonServiceServicer
from headrace_kit.auth import OPERATOR
from headrace_kit.errors import FailedPrecondition
from headrace_kit.eventstore import EventStore
from headrace_kit.names import PERSON as PERSON_NAME
from headrace_kit.names import require_text
from headrace_kit.paging import page_of
from headrace_kit.rpc import command_context, require_role
from headrace_registry.persons import PERSON, PersonStore, decide_add, decide_erase, person_of, stream_of

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # Any: the messages of whichever method


class PersonServicer(PersonServiceServicer):
    """Answers calls about persons.

    Args:
        store: The persons' streams.
        persons: The table of names.
    """

    def __init__(self, store: EventStore, persons: PersonStore) -> None:
        self._store, self._persons = store, persons

    async def AddPerson(self, request: service.AddPersonRequest, context: Context) -> service.AddPersonResponse:
        require_role(OPERATOR)
        require_text(request.display_name, field="display_name", most=250)
        command = command_context(request.command_id)
        name = person_of(command.command_id)
        person = await self._store.execute(
            PERSON,
            stream_of(name),
            context=command,
            request=service.AddPersonRequest(command_id=request.command_id),  # a digest of a name would tell it
            decide=lambda state: decide_add(state, name, command),
            respond=lambda state: state,
        )
        answer = Person()
        answer.CopyFrom(person)
        answer.display_name = await self._persons.add(
            name, display_name=request.display_name, create_time=person.create_time.ToDatetime(tzinfo=UTC)
        )
        loaded = await self._store.load(PERSON, stream_of(name))
        if loaded is not None and loaded[0].HasField("erase_time"):
            await self._persons.delete(name)  # this was a late repeat: they were erased since
            raise FailedPrecondition("the person was erased", reason="PERSON_ERASED", field="command_id")
        return service.AddPersonResponse(person=answer)

    async def ListPersons(self, request: service.ListPersonsRequest, context: Context) -> service.ListPersonsResponse:
        page = page_of(request)
        persons = await self._persons.page(after=page.after, limit=page.limit)
        token = page.token(persons[-1].name, count=len(persons)) if persons else ""
        return service.ListPersonsResponse(persons=persons, next_page_token=token)

    async def ErasePerson(self, request: service.ErasePersonRequest, context: Context) -> service.ErasePersonResponse:
        require_role(OPERATOR)
        PERSON_NAME.parse(request.person, field="person")
        command = command_context(request.command_id)
        await self._persons.delete(request.person)  # before the event that says so
        response = await self._store.execute(
            PERSON,
            stream_of(request.person),
            context=command,
            request=request,
            decide=lambda state: decide_erase(state, request.person, command),
            respond=lambda person: service.ErasePersonResponse(person=person),
        )
        await self._persons.delete(request.person)  # and after it, for who was being added meanwhile
        return response
