"""``headrace models``: versions, gates, approvals, promotions, rollbacks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import uuid4

import typer

from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace.cli import cards, gates, signing
from headrace.cli.exporting import Output, exporting, print_exported
from headrace.cli.output import (
    Json,
    Project,
    console,
    print_done,
    print_fields,
    print_json,
    print_table,
    short,
    when,
    words,
)
from headrace.cli.past import moment
from headrace.client import connect
from headrace.errors import InvalidArgument

MAX_DIGITS = 10
"""A number with fewer digits is that of a version; anything else is read as a time."""
app = typer.Typer(help="Models: versions, gates, approvals, promotions, rollbacks.", no_args_is_help=True)
Model = Annotated[str, typer.Argument(help="Id of the model.")]
Number = Annotated[int, typer.Argument(help="Number of the version.", min=1)]
Reason = Annotated[str, typer.Option("--reason", "-m", help="Why; kept in the record.")]
Alias = Annotated[str, typer.Option(help="Alias to move.")]


@app.command("list")
def list_models(project: Project = "default", as_json: Json = False) -> None:
    """List models with their aliases."""
    with connect() as client:
        models = client.registry.ListModels(
            service.ListModelsRequest(parent=f"projects/{project}", page_size=1000)
        ).models
    if as_json:
        print_json(list(models))
        return
    rows = [
        (
            short(model.name),
            model.display_name if model.display_name != short(model.name) else "",
            len(model.versions),
            ", ".join(f"{alias.alias} → {alias.version}" for alias in model.aliases),
            when(model.create_time),
        )
        for model in models
    ]
    print_table("Models", ("model", "called", "versions", "aliases", "created (UTC)"), rows, empty="No models yet.")


@app.command()
def show(model: Model, project: Project = "default", as_json: Json = False) -> None:
    """Show a model: its versions, what guards its aliases, and every move of them."""
    with connect() as client:
        found = client.registry.GetModel(service.GetModelRequest(name=_name(project, model))).model
    if as_json:
        print_json(found)
        return
    rows = [
        (
            each.number,
            words(resources.VersionState.Name(each.state), "VERSION_STATE_")
            + (", gates overridden" if each.overrides else ""),
            each.author,
            ", ".join(f"{'✓' if check.passed else '✗'} {check.check}" for check in each.validations),
            ", ".join(f"{'✓' if review.approved else '✗'} {review.actor}" for review in each.approvals),
            short(each.run),
            when(each.create_time),
        )
        for each in reversed(found.versions)
    ]
    columns = ("version", "state", "author", "checks", "reviews", "run", "created (UTC)")
    called = f", called {found.display_name}" if found.display_name != short(found.name) else ""
    title = f"Versions of {found.name}{called}"
    print_table(title, columns, rows, empty=f"{title}: none yet.")
    moves = [
        (
            move.alias,
            f"{move.previous_version or '-'} → {move.version}",
            "rollback" if move.rollback else "promotion",
            move.actor,
            _grounds(move),
            move.reason,
            when(move.time),
        )
        for alias in found.aliases
        for move in reversed(alias.history)
    ]
    console.print()
    print_table(
        "Moves of its aliases",
        ("alias", "version", "", "by", "on the word of", "reason", "when (UTC)"),
        moves,
        empty="None yet.",
    )


@app.command()
def rename(
    model: Model,
    new_name: Annotated[str, typer.Argument(help="Name for people, which no other model of the project has.")],
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Give a model another name for people. Its id stays: commands, endpoints, lineage and history go by that."""
    request = service.RenameModelRequest(command_id=str(uuid4()), model=_name(project, model), display_name=new_name)
    with connect() as client:
        renamed = client.registry.RenameModel(request).model
    print_done(f"{renamed.name} is called {renamed.display_name}", renamed, as_json=as_json)


@app.command()
def export(model: Model, output: Output, project: Project = "default", as_json: Json = False) -> None:
    """Write a model with its packages and the runs behind them to one file, for `headrace import archive`."""
    from headrace.bundles import export_models

    with connect() as client, exporting() as tell:
        written = export_models(client, [_name(project, model)], output, tell=tell)
    print_exported(written, as_json=as_json)


@app.command()
def check(
    model: Model, version: Number, alias: Alias = "production", project: Project = "default", as_json: Json = False
) -> None:
    """Say what a promotion would lack; exit status 1 when it lacks something."""
    request = service.CheckPromotionRequest(version=_version(project, model, version), alias=alias)
    with connect() as client:
        found = client.registry.CheckPromotion(request)
    if as_json:
        print_json(found)
    else:
        rows = [("✓" if each.passed else "✗", each.gate, each.reason) for each in found.results]
        print_table(f"Gates of {alias}", ("", "gate", "what it says"), rows, empty=f"Nothing stands against {alias}.")
    if found.unmet:
        raise typer.Exit(1)


@app.command()
def approve(model: Model, version: Number, reason: Reason, project: Project = "default", as_json: Json = False) -> None:
    """Approve a version that somebody else registered."""
    _review(_version(project, model, version), reason, approve=True, as_json=as_json)


@app.command()
def reject(model: Model, version: Number, reason: Reason, project: Project = "default", as_json: Json = False) -> None:
    """Reject a version."""
    _review(_version(project, model, version), reason, approve=False, as_json=as_json)


@app.command()
def consent(
    model: Model,
    version: Number,
    reason: Reason,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take the consent back.")] = False,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Consent to the format of a version that somebody else registered: loading it may run code that came with it."""
    name = _version(project, model, version)
    request = service.ConsentToFormatRequest(command_id=str(uuid4()), version=name, given=not withdraw, reason=reason)
    with connect() as client:
        found = client.registry.ConsentToFormat(request).version
    done = "took back the consent to" if withdraw else "consented to"
    print_done(f"{done} the format of {name}", found, as_json=as_json)


@app.command()
def archive(model: Model, version: Number, reason: Reason, project: Project = "default", as_json: Json = False) -> None:
    """Take a version out of use, unless something leads to it."""
    name = _version(project, model, version)
    request = service.ArchiveVersionRequest(command_id=str(uuid4()), version=name, reason=reason)
    with connect() as client:
        print_done(f"archived {name}", client.registry.ArchiveVersion(request).version, as_json=as_json)


@app.command()
def delete(model: Model, version: Number, project: Project = "default", as_json: Json = False) -> None:
    """Delete a version, unless something leads to it; its number is never given again."""
    name = _version(project, model, version)
    request = service.DeleteVersionRequest(command_id=str(uuid4()), version=name)
    with connect() as client:
        print_done(f"deleted {name}", client.registry.DeleteVersion(request).version, as_json=as_json)


app.command("card")(cards.show)
app.command("write-card")(cards.write)
app.command("gates")(gates.show)
app.command("set-gates")(gates.set_gates)
app.command("keys")(signing.keys)
app.command("trust-key")(signing.trust_key)
app.command("withdraw-key")(signing.withdraw_key)
app.command("sign")(signing.sign)
app.command("verify")(signing.verify)
app.command("download")(signing.download)


@app.command()
def promote(
    model: Model,
    version: Number,
    alias: Alias = "production",
    reason: Reason = "",
    override: Annotated[
        bool, typer.Option("--override", help="Although gates are unmet: operators only, with a reason; kept for ever.")
    ] = False,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Move an alias to a version whose gates are passed."""
    request = service.PromoteVersionRequest(
        command_id=str(uuid4()),
        version=_version(project, model, version),
        alias=alias,
        expected_revision=-1,
        reason=reason,
        override_gates=override,
    )
    with connect() as client:
        _print_move(client.registry.PromoteVersion(request).promotion, as_json=as_json)


@app.command()
def rollback(
    model: Annotated[str, typer.Argument(help="Id of the model, or MODEL@ALIAS.")],
    reason: Reason = "",
    alias: Alias = "production",
    to: Annotated[
        str,
        typer.Option(help="Version to go back to, or a time, such as 2026-05-03T14:03Z: to that of then."),
    ] = "",
    check: Annotated[bool, typer.Option("--check", help="Say what it would do, and change nothing.")] = False,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Move an alias back: to the version before, to the one named, or to that of a time."""
    name, _, named = model.partition("@")
    query = service.CheckRollbackRequest(model=_name(project, name), alias=named or alias)
    if to.isascii() and to.isdecimal() and len(to) < MAX_DIGITS:
        query.version = int(to)
    elif to:
        query.to_time.FromDatetime(moment(to, "--to"))
        reason = reason or f"to the state of {to}"
    if check:
        with connect() as client:
            _print_preview(client.registry.CheckRollback(query), as_json=as_json)
        return
    if not reason:
        raise InvalidArgument("say why: --reason")
    request = service.RollBackAliasRequest(
        command_id=str(uuid4()),
        model=query.model,
        alias=query.alias,
        version=query.version,
        to_time=query.to_time if query.HasField("to_time") else None,
        expected_revision=-1,
        reason=reason,
    )
    with connect() as client:
        _print_move(client.registry.RollBackAlias(request).promotion, as_json=as_json)


@app.command()
def grant(
    model: Model,
    identity: Annotated[str, typer.Argument(metavar="ID", help="Id of the standing approval.")],
    reason: Reason,
    alias: Alias = "production",
    grantee: Annotated[list[str] | None, typer.Option(help="Who may cite it.")] = None,
    check: Annotated[list[str] | None, typer.Option(help="Check that must have passed.")] = None,
    days: Annotated[float, typer.Option(help="Days it is good for.")] = 90,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Approve automatic promotions beforehand."""
    approval = resources.StandingApproval(
        id=identity, alias=alias, required_checks=check or [], grantees=grantee or ["services/serving"], reason=reason
    )
    approval.expire_time.FromDatetime(datetime.now(UTC) + timedelta(days=days))
    request = service.GrantStandingApprovalRequest(
        command_id=str(uuid4()), model=_name(project, model), standing_approval=approval
    )
    with connect() as client:
        granted = client.registry.GrantStandingApproval(request).standing_approval
    if as_json:
        print_json(granted)
    else:
        console.print(f"{', '.join(granted.grantees)} may promote to {alias} until {when(granted.expire_time)} UTC")


def _review(version: str, reason: str, *, approve: bool, as_json: bool) -> None:
    request = service.ReviewVersionRequest(command_id=str(uuid4()), version=version, approve=approve, reason=reason)
    with connect() as client:
        reviewed = client.registry.ReviewVersion(request).version
    print_done(f"{'approved' if approve else 'rejected'} {version}", reviewed, as_json=as_json)


def _print_move(move: resources.Promotion, *, as_json: bool) -> None:
    if as_json:
        print_json(move)
        return
    print_fields(
        f"{move.alias}: version {move.previous_version or '-'} → {move.version}",
        [
            ("by", move.actor),
            ("on the word of", _grounds(move)),
            ("overridden", "\n".join(f"{each.gate}: {each.reason}" for each in move.override.unmet)),
            ("gates passed", "\n".join(f"{each.gate}: {each.reason}" for each in move.results if each.passed)),
            ("checks passed", ", ".join(each.check for each in move.validations if each.passed)),
            ("trained on", ", ".join(f"{each.name} {each.digest[:19]}" for each in move.datasets)),
            ("event", move.event_id),
        ],
    )


def _print_preview(found: service.CheckRollbackResponse, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    move = found.promotion
    print_fields(
        f"{move.alias} would go back: version {move.previous_version} → {move.version}",
        [
            ("on the word of", _grounds(move)),
            ("would undo", "\n".join(_told(each) for each in found.undone)),
            ("would not pass today", "\n".join(f"{each.gate}: {each.reason}" for each in found.unmet)),
            ("requests answered otherwise", "\n".join(found.incompatibilities)),
        ],
    )


def _told(move: resources.Promotion) -> str:
    what = f"{move.previous_version or '-'} → {move.version} by {move.actor}, {when(move.time)} UTC"
    return f"{what}: {move.reason}" if move.reason else what


def _grounds(move: resources.Promotion) -> str:
    if move.HasField("override"):
        return f"{move.override.actor} (override of {', '.join(each.gate for each in move.override.unmet)})"
    if move.HasField("standing_approval"):
        return f"{move.standing_approval.approver} (standing approval {move.standing_approval.id})"
    if not move.approvals and move.HasField("gates"):
        return f"{move.gates.actor} (gates that need no approval)"
    return ", ".join(each.actor for each in move.approvals)


def _name(project: str, model: str) -> str:
    return model if model.startswith("projects/") else f"projects/{project}/models/{model}"


def _version(project: str, model: str, number: int) -> str:
    return f"{_name(project, model)}/versions/{number}"
