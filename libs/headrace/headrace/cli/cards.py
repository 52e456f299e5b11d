"""``headrace models card`` and ``write-card``: what people should know of a model or a version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer
from rich.markdown import Markdown

from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace.cli.output import Json, Project, console, print_done, print_fields, print_json, when
from headrace.client import Client, connect
from headrace.errors import InvalidArgument

Model = Annotated[str, typer.Argument(help="Id of the model.")]
Number = Annotated[int, typer.Option("--version", min=0, help="Of one version; else of the model.")]


def show(model: Model, version: Number = 0, project: Project = "default", as_json: Json = False) -> None:
    """Show the card of a model or a version."""
    name = _name(project, model, version)
    with connect() as client:
        card = _card(client, name)
    if as_json:
        print_json(card)
        return
    if not card.revision:
        console.print(f"{name} has no card.", highlight=False)
        return
    written = f"{card.revision}, by {card.actor}, {when(card.time)} UTC"
    told = [("intended use", card.intended_use), ("limits", card.limits)]
    told += [("evaluation", card.evaluation), ("data", card.data)]
    print_fields(name, [("revision", written), *told, ("event", card.event_id)])
    console.print(Markdown(card.markdown, hyperlinks=False))


def write(
    model: Model,
    file: Annotated[Path | None, typer.Option(help="File with the text in Markdown.")] = None,
    intended_use: Annotated[str | None, typer.Option(help="What it is meant for, and what not.")] = None,
    limits: Annotated[str | None, typer.Option(help="Where it errs, whom it may harm.")] = None,
    evaluation: Annotated[str | None, typer.Option(help="How it was evaluated.")] = None,
    data: Annotated[str | None, typer.Option(help="What data it was trained and evaluated on.")] = None,
    version: Number = 0,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Write the card of a model or a version; what is not named stays as it is."""
    name = _name(project, model, version)
    with connect() as client:
        card = _card(client, name)
        seen = card.revision
        if file is not None:
            card.markdown = _read(file)
        given = {"intended_use": intended_use, "limits": limits, "evaluation": evaluation, "data": data}
        for field, text in given.items():
            if text is not None:
                setattr(card, field, text)
        request = service.WriteCardRequest(command_id=str(uuid4()), name=name, card=card, expected_revision=seen)
        written = client.registry.WriteCard(request).card
    print_done(f"wrote revision {written.revision} of the card of {name}", written, as_json=as_json)


def _card(client: Client, name: str) -> resources.ModelCard:
    if "/versions/" in name:
        return client.registry.GetVersion(service.GetVersionRequest(name=name)).version.card
    return client.registry.GetModel(service.GetModelRequest(name=name)).model.card


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"--file: {file} can not be read: {error}") from error


def _name(project: str, model: str, version: int) -> str:
    name = model if model.startswith("projects/") else f"projects/{project}/models/{model}"
    return f"{name}/versions/{version}" if version else name
