"""Packages of a platform: signed, verified, downloaded."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.registry.v1 import service_pb2 as service
from headrace.api.registry.v1.resources_pb2 import PackageSignature, PackageTrust, Version
from headrace.client import Client
from headrace.errors import AlreadyExists, FailedPrecondition, InvalidArgument, rpc_errors
from headrace.packages.files import (
    MAX_MANIFEST_BYTES,
    SINGLE,
    ManifestInvalid,
    digests_at,
    digests_of,
    files_of,
    is_manifest,
)
from headrace.packages.trust import NotTrusted, pinned, require_countable, require_trusted
from headrace.transfer import download_file, fetch

if TYPE_CHECKING:
    from headrace.packages.signatures import PrivateKey, PublicKey


@dataclass(frozen=True, slots=True)
class Package:
    """The package of a version, its signatures verified.

    Attributes:
        version: The version.
        files: Its files by path; a single file is at ``SINGLE``.
        key_ids: Keys that signed exactly these files; none where nothing is signed and nothing has to be.
    """

    version: Version
    files: Mapping[str, ObjectRef]
    key_ids: tuple[str, ...]


def sign(client: Client, version: str, key: PrivateKey, *, source: Path | None = None) -> PackageSignature:
    """Signs the package of a version and has the registry record that. The key stays here.

    Args:
        client: The platform.
        version: As in ``inspect``.
        key: The key, which must be trusted for the model.
        source: The package as the signer has it, a file or a folder: its bytes are signed. Without it, the digests that
            the registry names are signed unseen.

    Raises:
        InvalidArgument: What the signer has is not what was registered.
        HeadraceError: The registry refuses, such as when the key is not trusted.
    """
    found, _ = _look_up(client, version)
    files = digests_of(_files(client, found)) if source is None else digests_at(source)
    return record(client, found.name, key.sign(files, name=found.name.split("/")[3]))


def record(client: Client, version: str, bundle: bytes) -> PackageSignature:
    """Has the registry verify and record a signature that was made elsewhere; the one by that key that is kept.

    Raises:
        HeadraceError: It is none of exactly this package, or of a key that is not trusted.
    """
    request = service.SignVersionRequest(command_id=str(uuid4()), version=version, bundle=bundle)
    with rpc_errors():
        answer: service.SignVersionResponse = client.signing.SignVersion(request)
    return answer.signature


def inspect(client: Client, version: str, *, keys: Sequence[PublicKey] = ()) -> Package:
    """The package of a version, its signatures verified against the digests; no file is read.

    Args:
        client: The platform.
        version: Resource name of a version, or of a model with ``@alias``.
        keys: With any, one of these must have signed it, whatever the registry says of keys.

    Raises:
        FailedPrecondition: It is not to be loaded, with the reason of a ``NotTrusted``; or ``MANIFEST_INVALID``.
    """
    found, trust = _look_up(client, version)
    if keys:
        trust = pinned(trust, keys)
    try:
        signatures = [each for _, each in require_countable(trust, found.name)]
        files = _files(client, found)
        bundles = {each.bundle.sha256: _read(client, found, each.bundle) for each in signatures}
        key_ids = require_trusted(trust, found.name, files=digests_of(files), bundles=bundles)
    except NotTrusted as error:
        raise FailedPrecondition(error.message, reason=error.reason) from error
    except ModuleNotFoundError as error:
        message = f"{found.name} is signed: verifying that needs the package {error.name} (headrace[verify])"
        raise FailedPrecondition(message, reason="DEPENDENCY_MISSING") from error
    return Package(found, files, tuple(key_ids))


def verify(client: Client, version: str, *, keys: Sequence[PublicKey] = ()) -> Package:
    """As ``inspect``, and every byte of every file in the object store is read and held to its digest.

    Raises:
        FailedPrecondition: As ``inspect``.
        HeadraceError: ``OBJECT_CORRUPT`` when a file is not what was registered.
    """
    found = inspect(client, version, keys=keys)
    for wanted in found.files.values():
        fetch(_url_of(client, found.version, wanted)(), wanted, lambda _: None)
    return found


def download(client: Client, version: str, target: Path, *, keys: Sequence[PublicKey] = ()) -> Package:
    """Writes the package of a version: a file, or a folder where it is of several files.

    It appears whole and verified or not at all: signatures first, then each file by its digest.

    Args:
        client: The platform.
        version: As in ``inspect``.
        target: The file, which is replaced, or the folder, which must not exist.
        keys: As in ``inspect``.

    Raises:
        AlreadyExists: There is something where the folder is to be.
        FailedPrecondition: As ``inspect``.
        HeadraceError: ``OBJECT_CORRUPT`` when a file is not what was registered.
    """
    found = inspect(client, version, keys=keys)
    if not is_manifest(found.version.artifact):
        if target.is_dir():
            raise InvalidArgument(f"{target} is a folder: name the file to write", field="target")
        target.parent.mkdir(parents=True, exist_ok=True)
        download_file(_url_of(client, found.version, found.version.artifact), found.version.artifact, target)
        return found
    if target.exists():
        raise AlreadyExists(f"{target} is there already", field="target")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    try:
        for path, wanted in found.files.items():
            (partial / path).parent.mkdir(parents=True, exist_ok=True)
            download_file(_url_of(client, found.version, wanted), wanted, partial / path)
        partial.chmod(0o755)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return found


def _look_up(client: Client, name: str) -> tuple[Version, PackageTrust]:
    with rpc_errors():
        answer: service.GetVersionResponse = client.registry.GetVersion(service.GetVersionRequest(name=name))
    return answer.version, answer.trust


def _files(client: Client, version: Version) -> dict[str, ObjectRef]:
    if not is_manifest(version.artifact):
        return {SINGLE: version.artifact}
    try:
        if version.artifact.size_bytes > MAX_MANIFEST_BYTES:
            raise ManifestInvalid(f"the manifest of a package has at most {MAX_MANIFEST_BYTES} bytes")
        return files_of(_read(client, version, version.artifact), version.name.split("/")[1])
    except ManifestInvalid as error:
        raise FailedPrecondition(str(error), reason="MANIFEST_INVALID") from error


def _read(client: Client, version: Version, wanted: ObjectRef) -> bytes:
    content = bytearray()
    fetch(_url_of(client, version, wanted)(), wanted, content.extend)
    return bytes(content)


def _url_of(client: Client, version: Version, wanted: ObjectRef) -> Callable[[], str]:
    def presigned() -> str:
        request = service.PresignArtifactRequest(version=version.name, sha256=wanted.sha256)
        with rpc_errors():
            answer: service.PresignArtifactResponse = client.registry.PresignArtifact(request)
        return answer.url

    return presigned
