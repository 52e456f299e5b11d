"""``headrace models``: keys that are trusted, signatures of packages, and packages verified and downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer

from headrace.api.registry.v1 import service_pb2 as service
from headrace.cli.output import Json, Project, console, print_done, print_fields, print_json, print_table, when
from headrace.client import connect
from headrace.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from headrace.packages.remote import Package
    from headrace.packages.signatures import PrivateKey, PublicKey

Model = Annotated[str, typer.Argument(help="Id of the model.")]
Number = Annotated[int, typer.Argument(help="Number of the version.", min=1)]
Version = Annotated[str, typer.Argument(help="Number of the version, or @ALIAS.")]
Reason = Annotated[str, typer.Option("--reason", "-m", help="Why; kept in the record.")]
Pinned = Annotated[
    list[Path] | None,
    typer.Option("--key", help="Public key that must have signed it, whatever the registry trusts; may be repeated."),
]


def keys(model: Model, project: Project = "default", as_json: Json = False) -> None:
    """List the keys whose signatures count for a model, and those that were withdrawn."""
    name = _name(project, model)
    with connect() as client:
        found = client.registry.GetModel(service.GetModelRequest(name=name)).model.signing_keys
    if as_json:
        print_json(list(found))
        return
    rows = [
        (
            each.id[:12],
            each.reason,
            each.actor,
            when(each.time),
            f"{when(each.withdrawal.time)}: {each.withdrawal.reason}" if each.HasField("withdrawal") else "",
        )
        for each in found
    ]
    columns = ("key", "why", "trusted by", "when (UTC)", "withdrawn (UTC)")
    print_table(f"Signing keys of {name}", columns, rows, empty="None is trusted.")


def trust_key(
    model: Model,
    key: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Public key in PEM.")],
    reason: Reason,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Trust a public key: its signatures of the model's packages count. Operators only."""
    pem = public_key(key).pem
    request = service.TrustKeyRequest(
        command_id=str(uuid4()), model=_name(project, model), public_key=pem, reason=reason
    )
    with connect() as client:
        trusted = client.signing.TrustKey(request).key
    print_done(f"signatures by {trusted.id} count for {request.model}", trusted, as_json=as_json)


def withdraw_key(
    model: Model,
    key: Annotated[str, typer.Argument(metavar="KEY", help="Id of the key, its beginning, or its file.")],
    reason: Reason,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Withdraw a key, for good: none of its signatures counts any more. Operators only."""
    name = _name(project, model)
    wanted = public_key(Path(key)).id if Path(key).is_file() else key.lower()
    with connect() as client:
        known = client.registry.GetModel(service.GetModelRequest(name=name)).model.signing_keys
        meant = [each.id for each in known if each.id.startswith(wanted)]
        if len(meant) != 1:
            raise InvalidArgument(f"{len(meant)} keys of {name} begin with {wanted}: `headrace models keys` lists them")
        request = service.WithdrawKeyRequest(command_id=str(uuid4()), model=name, key_id=meant[0], reason=reason)
        withdrawn = client.signing.WithdrawKey(request).key
    print_done(f"signatures by {withdrawn.id} count no more", withdrawn, as_json=as_json)


def sign(
    model: Model,
    version: Number,
    key: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Private key in PEM; stays here.")
    ] = None,
    signature: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Signature made elsewhere, such as by model_signing."),
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--path", exists=True, help="The package as you have it: these bytes are signed.")
    ] = None,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Sign the package of a version with a key of your own, or record a signature made elsewhere."""
    from headrace.packages import remote

    if (key is None) == (signature is None):
        raise InvalidArgument("give --key, or --signature")
    name = f"{_name(project, model)}/versions/{version}"
    with connect() as client:
        if signature is not None:
            made = remote.record(client, name, signature.read_bytes())
        else:
            made = remote.sign(client, name, private_key(key or Path()), source=source)
    print_done(f"{name}: signed by {made.key_id}", made, as_json=as_json)


def verify(
    model: Model, version: Version, key: Pinned = None, project: Project = "default", as_json: Json = False
) -> None:
    """Verify the signatures of a version, and every byte of its package."""
    from headrace.packages import remote

    with connect() as client:
        found = remote.verify(client, _version(project, model, version), keys=[public_key(each) for each in key or []])
    _print(found, "verified", as_json=as_json)


def download(
    model: Model,
    version: Version,
    output: Annotated[Path, typer.Option("-o", "--output", help="File, or folder, to write.")],
    key: Pinned = None,
    project: Project = "default",
    as_json: Json = False,
) -> None:
    """Download the package of a version, its signatures and digests verified."""
    from headrace.packages import remote

    pinned = [public_key(each) for each in key or []]
    with connect() as client:
        found = remote.download(client, _version(project, model, version), output, keys=pinned)
    _print(found, str(output), as_json=as_json)


def public_key(path: Path) -> PublicKey:
    """The public key of a file. Raises InvalidArgument, FailedPrecondition."""
    try:
        from headrace.packages.signatures import PublicKey, SignatureInvalid
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    try:
        return PublicKey(path.read_bytes())
    except (SignatureInvalid, OSError) as error:
        raise InvalidArgument(f"{path}: {error}") from error


def private_key(path: Path) -> PrivateKey:
    """The private key of a file; asks for its password where it has one. Raises as ``public_key``."""
    try:
        from headrace.packages.signatures import PrivateKey, SignatureInvalid
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    try:
        content = path.read_bytes()
        password = typer.prompt("Password of the key", hide_input=True) if b"ENCRYPTED" in content else ""
        return PrivateKey(content, password=password.encode() or None)
    except (SignatureInvalid, OSError) as error:
        raise InvalidArgument(f"{path}: {error}") from error


def _missing(error: ModuleNotFoundError) -> FailedPrecondition:
    message = f"signatures need the package {error.name}: install headrace[verify]"
    return FailedPrecondition(message, reason="DEPENDENCY_MISSING")


def _print(found: Package, what: str, *, as_json: bool) -> None:
    size = sum(each.size_bytes for each in found.files.values())
    facts = {
        "version": found.version.name,
        "files": len(found.files),
        "size_bytes": size,
        "signed_by": list(found.key_ids),
    }
    if as_json:
        print_json(facts)
        return
    print_fields(f"{found.version.name}: {what}", [("files", len(found.files)), ("size", f"{size} bytes")])
    signed = "\n".join(f"signed by {each}" for each in found.key_ids)
    console.print(signed or "not signed, and nothing asks for that")


def _version(project: str, model: str, version: str) -> str:
    if version.startswith("@"):
        return f"{_name(project, model)}{version}"
    if not version.isdecimal():
        raise InvalidArgument(f"give the number of a version, or @ALIAS, not {version!r}")
    return f"{_name(project, model)}/versions/{version}"


def _name(project: str, model: str) -> str:
    return model if model.startswith("projects/") else f"projects/{project}/models/{model}"
