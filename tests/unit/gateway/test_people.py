"""Pages show names where they are known, and ids where they are not."""

from __future__ import annotations

from headrace.api.audit.v1.resources_pb2 import EventMeta, LogEntry
from headrace.api.registry.v1.resources_pb2 import Person
from headrace.api.registry.v1.service_pb2 import ListPersonsRequest, ListPersonsResponse
from headrace_gateway.pages import Pages
from headrace_gateway.people import People


class Registry:
    """A registry with two persons, on two pages."""

    def __init__(self) -> None:
        self.persons = [Person(name="persons/1", display_name="Ada <3"), Person(name="persons/2", display_name="Bob")]

    async def ListPersons(  # noqa: N802 - as the stub
        self,
        request: ListPersonsRequest,
        timeout: float,  # noqa: ASYNC109 - as the stub
    ) -> ListPersonsResponse:
        assert timeout
        index = int(request.page_token or 0)
        token = str(index + 1) if index + 1 < len(self.persons) else ""
        return ListPersonsResponse(persons=self.persons[index : index + 1], next_page_token=token)


async def test_names_come_from_every_page_and_go_when_they_are_erased() -> None:
    registry = Registry()
    people = People(registry)
    assert people.named("persons/2") == ""
    await people.look()
    assert (people.named("persons/1"), people.named("persons/2")) == ("Ada <3", "Bob")
    del registry.persons[1]
    await people.look()
    assert people.named("persons/2") == ""


async def test_a_page_shows_the_name_and_keeps_the_id() -> None:
    people = People(Registry())
    await people.look()
    pages = Pages("default", people.named)
    for actor, shown in (("persons/1", "Ada &lt;3"), ("persons/9", "9")):
        entry = LogEntry(source="headrace/registry", type="t.T", meta=EventMeta(actor=actor))
        assert f'title="{actor}">{shown}<' in pages.fragment("_entry.html", entry=entry)
