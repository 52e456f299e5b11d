"""``headrace log erase``: what is kept of a person, deleted."""

from __future__ import annotations

import time
from typing import Annotated
from uuid import uuid4

import typer

from headrace.api.monitor.v1 import service_pb2 as monitor
from headrace.api.monitor.v1.resources_pb2 import ERASURE_STATE_DONE, Erasure
from headrace.api.registry.v1 import service_pb2 as registry
from headrace.cli.output import Json, console, print_json
from headrace.client import Client, connect
from headrace.errors import DeadlineExceeded, InvalidArgument

_LOOK_S = 0.5


def erase(
    person: Annotated[str, typer.Argument(help="The person's id, such as persons/7f3c...")],
    where: Annotated[
        list[str] | None, typer.Option(help="COLUMN=VALUE that marks their predictions; may be repeated.")
    ] = None,
    prediction: Annotated[list[str] | None, typer.Option(help="Id of a prediction; may be repeated.")] = None,
    endpoint: Annotated[str, typer.Option(help="Only predictions of this endpoint.")] = "",
    project: Annotated[str, typer.Option(help="Only predictions of this project.")] = "",
    wait_s: Annotated[float, typer.Option("--wait", min=0.0, help="Seconds to wait until it is done.")] = 600.0,
    as_json: Json = False,
) -> None:
    """Delete a person's name, and their predictions and labels from the archive and from Kafka.

    Their predictions are those with their id in a text column, and those that --where and --prediction name.
    Events keep the opaque id. The log says what was rewritten; nothing of it can be brought back.
    """
    request = monitor.EraseTelemetryRequest(
        command_id=str(uuid4()), person=person, project=project, endpoint=endpoint, prediction_ids=prediction or ()
    )
    for each in where or ():
        column, equals, value = each.partition("=")
        if not (column and equals):
            raise InvalidArgument("give COLUMN=VALUE", field="where")
        request.where.add(column=column, value=value)
    with connect() as client:
        client.persons.ErasePerson(registry.ErasePersonRequest(command_id=str(uuid4()), person=person))
        erasure = _done(client, client.archive.EraseTelemetry(request).erasure, wait_s=wait_s)
    if as_json:
        print_json(erasure)
        return
    console.print(
        f"{person}: {erasure.predictions_erased} predicted rows and {erasure.labels_erased} labels erased,"
        f" {erasure.ranges_rewritten} archived ranges rewritten",
        soft_wrap=True,
    )


def _done(client: Client, erasure: Erasure, *, wait_s: float) -> Erasure:
    until = time.monotonic() + wait_s
    while erasure.state != ERASURE_STATE_DONE:
        if time.monotonic() > until:
            raise DeadlineExceeded(f"erasure {erasure.id} goes on", reason="ERASURE_RUNNING")
        time.sleep(_LOOK_S)
        erasure = client.archive.GetErasure(monitor.GetErasureRequest(id=erasure.id)).erasure
    return erasure
