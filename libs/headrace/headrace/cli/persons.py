"""``headrace persons``: who the opaque ids in events are."""

from __future__ import annotations

from typing import Annotated
from uuid import uuid4

import typer

from headrace.api.registry.v1 import service_pb2 as service
from headrace.cli.output import Json, print_done, print_json, print_table, when
from headrace.client import connect
from headrace.people import persons

app = typer.Typer(help="Persons: opaque ids in events, display names beside them.", no_args_is_help=True)


@app.command()
def add(name: Annotated[str, typer.Argument(help="What people call them.")], as_json: Json = False) -> None:
    """Add a person, and print the id that stands for them in events; `headrace tokens issue` takes it."""
    with connect() as client:
        request = service.AddPersonRequest(command_id=str(uuid4()), display_name=name)
        person = client.persons.AddPerson(request).person
    print_done(person.name, person, as_json=as_json)


@app.command("list")
def list_(as_json: Json = False) -> None:
    """Print everybody who is not erased."""
    with connect() as client:
        found = list(persons(client))
    if as_json:
        print_json(found)
        return
    rows = [(each.name, each.display_name, when(each.create_time)) for each in found]
    print_table("persons", ("id", "name", "since"), rows, empty="Nobody was added.")
