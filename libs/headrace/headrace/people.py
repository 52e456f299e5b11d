"""Display names of persons, resolved when something is shown: events have opaque ids alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import grpc

from headrace.api.registry.v1 import service_pb2 as service
from headrace.api.registry.v1.resources_pb2 import Person
from headrace.client import Client

_PAGE = 1000
_DEADLINE_S = 5.0


def persons(client: Client) -> Iterable[Person]:
    """Every person that is not erased, by id.

    Raises:
        grpc.RpcError: the registry does not answer.
    """
    request = service.ListPersonsRequest(page_size=_PAGE)
    while True:
        page = client.persons.ListPersons(request, timeout=_DEADLINE_S)
        yield from page.persons
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def display_names(client: Client, principals: Iterable[str]) -> Mapping[str, str]:
    """Principal -> what to show for it: ``Ada (persons/7f3c...)``, or itself where no name is known or to be had."""
    wanted = {each for each in principals if each}
    names: dict[str, str] = {}
    if any(each.startswith("persons/") for each in wanted) and client.connection.addresses.get("registry"):
        try:
            names = {each.name: each.display_name for each in persons(client)}
        except grpc.RpcError:
            names = {}  # a log is told without names rather than not at all
    return {each: f"{names[each]} ({each})" if each in names else each for each in wanted}
