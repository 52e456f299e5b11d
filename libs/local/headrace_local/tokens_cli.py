"""``headrace tokens issue | list | revoke``: who may call, beside the operator and the services."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.console import Console
from rich.table import Table

from headrace_local.arguments import AsJson, Data, data_folder, local_errors
from headrace_local.errors import NotRunning

if TYPE_CHECKING:
    from headrace_local.tokens import TokensFile

app = typer.Typer(help="Tokens of persons and programs, by which servers know who calls.", no_args_is_help=True)
Principal = Annotated[str, typer.Argument(help="Whose: persons/ID of `headrace persons add`, or services/NAME.")]
File = Annotated[Path | None, typer.Option("--file", help="Another tokens.json than the data folder's.")]


class Role(StrEnum):
    """What more a caller may do than everybody who is known."""

    OPERATOR = "operator"
    SERVICE = "service"


@app.command()
def issue(
    principal: Principal,
    *,
    role: Annotated[
        list[Role] | None,
        typer.Option(help="operator: console, persons, erasing; service: steps, for anybody."),
    ] = None,
    data: Data = None,
    file: File = None,
    as_json: AsJson = False,
) -> None:
    """Make a token and print it, once: only its digest is kept. Servers take it from then on.

    Whoever has it gives it by HEADRACE_TOKEN, or as a file by HEADRACE_TOKEN_FILE.
    """
    with local_errors():
        token = _file(data, file).issue(principal, roles=role or ())
    typer.echo(json.dumps({"principal": principal, "token": token}, indent=2) if as_json else token)


@app.command("list")
def list_(*, data: Data = None, file: File = None, as_json: AsJson = False) -> None:
    """Print whose tokens are let in, by their digests."""
    from headrace_local.tokens import STACK

    with local_errors():
        entries = _file(data, file).entries()
    if as_json:
        typer.echo(json.dumps(entries, indent=2))
        return
    table = Table("principal", "roles", "digest", "made by", box=None, header_style="bold", pad_edge=False)
    for each in entries:
        roles = cast("list[object]", each["roles"])
        maker = "the stack" if each["principal"] in STACK else "an operator"
        table.add_row(str(each["principal"]), " ".join(map(str, roles)), str(each["sha256"])[:16], maker)
    Console(highlight=False).print(table)


@app.command()
def revoke(
    principal: Principal,
    *,
    digest: Annotated[str, typer.Option(help="Only the token whose digest begins so.")] = "",
    data: Data = None,
    file: File = None,
    as_json: AsJson = False,
) -> None:
    """Let a principal's tokens in no more. What was done by them stays in the log."""
    with local_errors():
        count = _file(data, file).revoke(principal, digest=digest)
    gone = f"{count} token{'s' if count > 1 else ''} of {principal} revoked"
    typer.echo(json.dumps({"principal": principal, "revoked": count}, indent=2) if as_json else gone)


def _file(data: Path | None, file: Path | None) -> TokensFile:
    from headrace_local.tokens import TokensFile

    path = data_folder(data).tokens if file is None else file.expanduser().absolute()
    if not path.exists():
        raise NotRunning(f"there is no {path}: it is made when the stack first starts")
    return TokensFile(path)
