"""The files of a version's package."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

import orjson

from headrace.api.common.v1.resources_pb2 import ObjectRef

MANIFEST: Final = "application/vnd.headrace.manifest+json"
"""Media type of a package of several files: JSON that lists their paths, digests, lengths and media types."""
MAX_MANIFEST_BYTES: Final = 64 * 1024 * 1024
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


SINGLE: Final = "."
"""Path of the file in a package of one file, which has no name there."""


class ManifestInvalid(ValueError):
    """A manifest can not be read, or names a file outside its package."""


def is_manifest(package: ObjectRef) -> bool:
    """Whether a package is of several files, which its manifest lists."""
    return package.media_type == MANIFEST


def files_of(manifest: bytes, project: str) -> dict[str, ObjectRef]:
    """The files of a manifest by path, as objects of ``project``: whoever wrote it can name none of another.

    Raises:
        ManifestInvalid: It can not be read, lists a path twice, or one that leads out of the package.
    """
    files: dict[str, ObjectRef] = {}
    try:
        for each in orjson.loads(manifest)["files"]:
            path, sha256 = _inside(str(each["path"])), str(each["sha256"])
            if not _SHA256.fullmatch(sha256):
                raise ManifestInvalid(f"the manifest names no SHA-256 of {path!r}"[:500])
            if path in files:
                raise ManifestInvalid(f"the manifest lists {path!r} twice"[:500])
            files[path] = ObjectRef(
                uri=f"{project}/sha256/{sha256[:2]}/{sha256}",
                sha256=sha256,
                size_bytes=int(each["size_bytes"]),
                media_type=str(each.get("media_type", "")),
            )
    except ManifestInvalid:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ManifestInvalid("the manifest of the package can not be read") from error
    return files


def digests_of(files: Mapping[str, ObjectRef]) -> dict[str, str]:
    """SHA-256 of each file by path: what a signature is of."""
    return {path: each.sha256 for path, each in files.items()}


def digests_at(path: Path) -> dict[str, str]:
    """SHA-256 of a file, or of each file beneath a folder by its path there; links are followed. Raises OSError."""
    if path.is_file():
        return {SINGLE: _sha256_of(path)}
    return {each.relative_to(path).as_posix(): _sha256_of(each) for each in sorted(path.rglob("*")) if each.is_file()}


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _inside(path: str) -> str:
    parts = path.split("/")
    if not path or "\\" in path or "\0" in path or any(each in {"", ".", ".."} for each in parts):
        raise ManifestInvalid(f"the manifest names {path!r}, which is no path within the package"[:500])
    return str(PurePosixPath(path))
