"""``headrace models gates`` and ``set-gates``: what a promotion to an alias needs, in words a shell can carry."""

from __future__ import annotations

from typing import Annotated
from uuid import uuid4

import typer

from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace.cli.output import Json, Project, print_done, print_json, print_table, when
from headrace.client import connect
from headrace.errors import InvalidArgument
from headrace.gates import sentences
from headrace.gatewords import contest, persons, replay, seconds, threshold

Model = Annotated[str, typer.Argument(help="Id of the model.")]


def show(model: Model, project: Project = "default", as_json: Json = False) -> None:
    """Show what a promotion to each alias needs."""
    name = _name(project, model)
    with connect() as client:
        found = client.registry.GetModel(service.GetModelRequest(name=name)).model
    if as_json:
        print_json(list(found.gates))
        return
    rows = [(each.alias, told, each.actor, when(each.time)) for each in found.gates for told in sentences(each)]
    empty = "None set: a promotion needs the approval of a person other than the author."
    print_table(f"Gates of {name}", ("alias", "needs", "set by", "when (UTC)"), rows, empty=empty)


def set_gates(
    model: Model,
    alias: Annotated[str, typer.Option(help="Alias they guard.")] = "production",
    check: Annotated[list[str] | None, typer.Option(help="Check that must have passed.")] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="Threshold, such as 'rmse<=25'; 'holdout/rmse<=25' for the newest result of a check."),
    ] = None,
    beats: Annotated[
        list[str] | None,
        typer.Option(help="In what to beat the champion on the same data: 'rmse<' (less), 'auc>0.01' (more, by 0.01)."),
    ] = None,
    max_age: Annotated[str, typer.Option(help="Oldest a version may be, such as 30d, 12h.")] = "",
    max_run_age: Annotated[str, typer.Option(help="Oldest its run may be.")] = "",
    approvals: Annotated[
        list[str] | None, typer.Option(help="Persons who must approve: 2, or 1:reviewer for one of a role.")
    ] = None,
    safe_format: Annotated[
        bool, typer.Option("--safe-format", help="No format that may run code, unless a person consented.")
    ] = False,
    signed: Annotated[
        bool, typer.Option("--signed", help="A trusted key must have signed the package; unsigned ones are not loaded.")
    ] = False,
    replayed: Annotated[
        str,
        typer.Option(help="Requests to have answered again: 1000, or '1000:max_difference<=0.5' (headrace replay)."),
    ] = "",
    max_replay_age: Annotated[str, typer.Option(help="Oldest a replay may be, such as 7d.")] = "",
    compatible_signature: Annotated[
        bool, typer.Option("--compatible-signature", help="It must take what the version before takes.")
    ] = False,
    approval: Annotated[bool, typer.Option(help="A person, or a standing approval, must have approved.")] = True,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Set what a promotion to an alias needs; what is not named is not asked for any more."""
    gates = resources.Gates(
        alias=alias,
        required_checks=check or [],
        approval_required=approval,
        compatible_signature_required=compatible_signature,
        metrics=[threshold(each, "--metric") for each in metric or []],
        champion=[contest(each, "--beats") for each in beats or []],
        max_age_s=seconds(max_age, "--max-age"),
        max_run_age_s=seconds(max_run_age, "--max-run-age"),
        safe_format_required=safe_format,
        signed_package_required=signed,
        approvals=[persons(each, "--approvals") for each in approvals or []],
    )
    if replayed:
        gates.replay.CopyFrom(replay(replayed, "--replayed"))
        if max_replay_age:
            gates.replay.max_age_s = seconds(max_replay_age, "--max-replay-age")
    elif max_replay_age:
        raise InvalidArgument("--max-replay-age: give --replayed too")
    request = service.SetGatesRequest(command_id=str(uuid4()), model=_name(project, model), gates=gates)
    with connect() as client:
        found = client.registry.SetGates(request).model
    print_done(f"{alias} needs {'; '.join(sentences(gates))}", found, as_json=as_json)


def _name(project: str, model: str) -> str:
    return model if model.startswith("projects/") else f"projects/{project}/models/{model}"
