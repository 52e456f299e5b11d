"""``headrace endpoints``: which versions answer, with what share."""

from __future__ import annotations

from typing import Annotated
from uuid import uuid4

import typer

from headrace.api.serving.v1 import service_pb2 as service
from headrace.api.serving.v1.resources_pb2 import Endpoint
from headrace.cli.output import Json, Project, console, number, print_fields, print_json, print_table, short
from headrace.client import connect

app = typer.Typer(help="Endpoints: create, show, roll out, block.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Id of the endpoint.")]
Version = Annotated[str, typer.Argument(help="Version as MODEL/NUMBER, such as delays/3.")]
Reason = Annotated[str, typer.Option("--reason", "-m", help="Why; kept in the record.")]


@app.command("list")
def list_endpoints(project: Project = "default", as_json: Json = False) -> None:
    """List endpoints and the versions that answer."""
    request = service.ListEndpointsRequest(parent=f"projects/{project}", page_size=1000)
    with connect() as client:
        endpoints = client.serving.ListEndpoints(request).endpoints
    if as_json:
        print_json(list(endpoints))
        return
    rows = [
        (short(each.name), f"{short(each.model)}@{each.alias}", _routes(each), _rollout(each)) for each in endpoints
    ]
    print_table("Endpoints", ("endpoint", "follows", "answers", "rollout"), rows, empty="No endpoints yet.")


@app.command()
def show(endpoint: Name, project: Project = "default", as_json: Json = False) -> None:
    """Show an endpoint and what it answered."""
    with connect() as client:
        found = client.serving.GetEndpoint(service.GetEndpointRequest(name=_name(project, endpoint))).endpoint
        traffic = client.serving.GetTraffic(service.GetTrafficRequest(endpoint=found.name))
    if as_json:
        print_json({"endpoint": found, "traffic": traffic})
        return
    print_fields(
        found.name,
        [
            ("follows", f"{found.model}@{found.alias}"),
            ("answers", _routes(found)),
            ("rollout", _rollout(found)),
            ("blocked", ", ".join(f"{short(each.version)} ({each.reason})" for each in found.blocked)),
        ],
    )
    rows = [
        (short(each.version), number(each.requests), number(each.rows), number(each.failures), each.p50_ms, each.p99_ms)
        for each in traffic.versions
    ]
    console.print()
    columns = ("version", "requests", "rows", "failures", "p50 ms", "p99 ms")
    print_table("Traffic since the server started", columns, rows, empty="None yet.")


@app.command()
def create(
    endpoint: Name,
    model: Annotated[str, typer.Option(help="Id of the model.")],
    alias: Annotated[str, typer.Option(help="Alias to follow.")] = "production",
    allow_pickle: Annotated[bool, typer.Option(help="Load Python pickles, which can run any code.")] = False,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Create an endpoint that follows an alias of a model."""
    request = service.CreateEndpointRequest(
        command_id=str(uuid4()),
        name=_name(project, endpoint),
        model=f"projects/{project}/models/{model}",
        alias=alias,
        allow_pickle=allow_pickle,
    )
    with connect() as client:
        _print(client.serving.CreateEndpoint(request).endpoint, as_json=as_json)


@app.command()
def rollout(
    endpoint: Name,
    version: Version,
    step: Annotated[list[int] | None, typer.Option(help="Share in percent; may be repeated, ascending.")] = None,
    step_rows: Annotated[int, typer.Option(help="Rows the candidate must answer in a step.")] = 1000,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Roll a version out by steps; the registry moves the alias at the end."""
    request = service.StartRolloutRequest(
        command_id=str(uuid4()),
        endpoint=_name(project, endpoint),
        version=_version(project, version),
        steps=step or [],
        step_rows=step_rows,
    )
    with connect() as client:
        _print(client.serving.StartRollout(request).endpoint, as_json=as_json)


@app.command()
def block(
    endpoint: Name, version: Version, reason: Reason, project: Project = "default", as_json: Json = False
) -> None:
    """Stop a version at once; the last good routes answer."""
    request = service.BlockVersionRequest(
        command_id=str(uuid4()),
        endpoint=_name(project, endpoint),
        version=_version(project, version),
        reason=reason,
    )
    with connect() as client:
        _print(client.serving.BlockVersion(request).endpoint, as_json=as_json)


def _print(endpoint: Endpoint, *, as_json: bool) -> None:
    if as_json:
        print_json(endpoint)
    else:
        print_fields(endpoint.name, [("answers", _routes(endpoint)), ("rollout", _rollout(endpoint))])


def _routes(endpoint: Endpoint) -> str:
    return ", ".join(f"version {short(each.version)}: {each.weight} %" for each in endpoint.routes)


def _rollout(endpoint: Endpoint) -> str:
    if not endpoint.HasField("rollout"):
        return ""
    rollout_ = endpoint.rollout
    return f"version {short(rollout_.version)}, step {rollout_.step + 1} of {len(rollout_.steps)}"


def _name(project: str, endpoint: str) -> str:
    return endpoint if endpoint.startswith("projects/") else f"projects/{project}/endpoints/{endpoint}"


def _version(project: str, version: str) -> str:
    if version.startswith("projects/"):
        return version
    model, slash, number_ = version.rpartition("/")
    if not slash:
        raise typer.BadParameter("give MODEL/NUMBER, such as delays/3")
    return f"projects/{project}/models/{model}/versions/{number_}"
