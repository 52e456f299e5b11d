"""What the package of a version is made of."""

from __future__ import annotations

import orjson

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.registry.v1.resources_pb2 import Version
from headrace.packages.files import (
    MANIFEST,
    MAX_MANIFEST_BYTES,
    SINGLE,
    ManifestInvalid,
    digests_of,
    files_of,
    is_manifest,
)
from headrace_kit.errors import FailedPrecondition, NotFound
from headrace_kit.objects import ObjectStore, object_key
from headrace_kit.validate import require_sha256


async def part_of(objects: ObjectStore, version: Version, sha256: str) -> ObjectRef:
    """The package of a version, or the part of it that has a digest.

    Raises:
        NotFound: The version has nothing of that digest.
        InvalidArgument: It is no digest.
    """
    if not sha256:
        return version.artifact
    require_sha256(sha256, field="sha256")
    for each in (version.artifact, version.reference_profile, *(one.bundle for one in version.package_signatures)):
        if each.sha256 == sha256:
            return each
    if version.artifact.media_type == MANIFEST and version.artifact.size_bytes <= MAX_MANIFEST_BYTES:
        content = await objects.get(version.artifact)
        found = listed(content, version.name.split("/")[1])
        if sha256 in found:
            return found[sha256]
    raise NotFound("object", sha256, field="sha256")


async def digests(objects: ObjectStore, version: Version) -> dict[str, str]:
    """SHA-256 of each file of the package by its path: what is signed.

    Raises:
        FailedPrecondition: The package is a manifest that can not be read.
    """
    if not is_manifest(version.artifact):
        return {SINGLE: version.artifact.sha256}
    try:
        if version.artifact.size_bytes > MAX_MANIFEST_BYTES:
            raise ManifestInvalid(f"the manifest of a package has at most {MAX_MANIFEST_BYTES} bytes")
        return digests_of(files_of(await objects.get(version.artifact), version.name.split("/")[1]))
    except ManifestInvalid as error:
        raise FailedPrecondition(str(error), field="version", reason="MANIFEST_INVALID") from error


def listed(content: bytes, project: str) -> dict[str, ObjectRef]:
    """The files of a manifest, by digest, as objects of ``project``: whoever wrote it can name none of another."""
    try:
        files = orjson.loads(content)["files"]
        return {
            str(each["sha256"]): ObjectRef(
                uri=object_key(project, str(each["sha256"])),
                sha256=str(each["sha256"]),
                size_bytes=int(each["size_bytes"]),
                media_type=str(each.get("media_type", "")),
            )
            for each in files
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
