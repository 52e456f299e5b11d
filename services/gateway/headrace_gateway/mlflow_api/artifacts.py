"""Artifacts: lists, and the proxy by which clients send and fetch their bytes."""

from __future__ import annotations

import asyncio
import functools
import mimetypes
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import orjson
from google.protobuf.field_mask_pb2 import FieldMask
from starlette.background import BackgroundTask
from starlette.responses import FileResponse, Response

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.registry.v1 import service_pb2 as registry
from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.packages.files import MANIFEST, SINGLE
from headrace.packages.trust import NotTrusted, require_countable, require_trusted
from headrace_gateway.mlflow_api.asking import Ask
from headrace_gateway.mlflow_api.errors import MlflowError, missing, unsupported
from headrace_gateway.mlflow_api.naming import experiment_number, last_part, model_name, run_artifacts, run_name
from headrace_gateway.mlflow_api.paths import Place, place_of, safe
from headrace_gateway.mlflow_api.registered import resource_name
from headrace_gateway.mlflow_api.runs import get_run
from headrace_gateway.mlflow_api.table import FILES, V2, Endpoint
from headrace_gateway.mlflow_api.wire import Json, files_json
from headrace_kit.objects import object_key

IN_MEMORY: Final = 4 * 1024 * 1024
"""Artifacts up to this many bytes are answered from memory, larger ones from a file."""
MAX_PARTS: Final = 10_000
"""Most parts that S3 knows."""
# What somebody stored is shown without any right of this site.
_HEADERS: Final = {
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Content-Disposition": "attachment",
    "Cache-Control": "no-store",
}


async def files_at(ask: Ask, place: Place) -> Sequence[resources.Artifact]:
    """Every file of a place's owner. Raises MlflowError when there is no such owner."""
    if place.kind == "run":
        return (await get_run(ask, place.owner)).artifacts
    if place.kind == "model":
        get = service.GetLoggedModelRequest(name=model_name(ask, place.owner))
        model: resources.LoggedModel = (await ask.call(ask.services.tracking.GetLoggedModel, get)).model
        return model.artifacts
    name, _, number = place.owner.rpartition("/")
    wanted = registry.GetVersionRequest(name=f"{ask.parent}/models/{name}/versions/{number}")
    found: registry.GetVersionResponse = await ask.call(ask.services.registry.GetVersion, wanted)
    files = await packaged(ask, found.version.artifact)
    await _require_signed(ask, found, files)
    return files


async def _require_signed(ask: Ask, found: registry.GetVersionResponse, files: Sequence[resources.Artifact]) -> None:
    """Whoever lists or fetches files of a version is to load it. Raises MlflowError when its signatures forbid that."""
    single = found.version.artifact.media_type != MANIFEST
    digests = {SINGLE if single else each.path: each.object.sha256 for each in files}
    try:
        signatures = [each.bundle for _, each in require_countable(found.trust, found.version.name)]
        bundles = {each.sha256: await ask.backend.objects.get(each) for each in signatures}
        await asyncio.to_thread(require_trusted, found.trust, found.version.name, files=digests, bundles=bundles)
    except NotTrusted as error:
        raise MlflowError(error.message, "INVALID_STATE") from error


async def packaged(ask: Ask, reference: ObjectRef) -> list[resources.Artifact]:
    """The files of a package: those of its manifest, or itself where it is a single file."""
    if reference.media_type != MANIFEST:
        return [resources.Artifact(path="package", object=reference)]
    project, _, _ = reference.uri.partition("/")
    try:
        listed = orjson.loads(await ask.backend.objects.get(reference))
        return [resources.Artifact(path=str(each["path"]), object=_own(project, each)) for each in listed["files"]]
    except (ValueError, KeyError, TypeError):
        raise MlflowError("The package's manifest can not be read.") from None


def _own(project: str, listed: dict[str, object]) -> ObjectRef:
    """An entry of a manifest as an object of its project: whoever wrote the manifest can name none of another."""
    sha256 = str(listed["sha256"])
    return ObjectRef(
        uri=object_key(project, sha256),
        sha256=sha256,
        size_bytes=int(str(listed["size_bytes"])),
        media_type=str(listed.get("media_type", "")),
    )


async def package(ask: Ask, artifacts: Sequence[resources.Artifact]) -> ObjectRef:
    """Stores a manifest of files, whose paths are as they shall be within the package."""
    files = [
        {
            "path": each.path,
            "uri": each.object.uri,
            "sha256": each.object.sha256,
            "size_bytes": each.object.size_bytes,
            "media_type": each.object.media_type,
        }
        for each in sorted(artifacts, key=lambda each: each.path)
    ]
    return await ask.backend.objects.put(ask.project, orjson.dumps({"files": files}), MANIFEST)


def endpoints() -> list[Endpoint]:
    """Every endpoint on artifacts."""
    return [
        Endpoint("PUT", f"{FILES}/artifacts/{{path:path}}", _upload, raw=True),
        Endpoint("GET", f"{FILES}/artifacts/{{path:path}}", _download, raw=True),
        Endpoint("GET", f"{FILES}/artifacts", _list_proxied),
        Endpoint("GET", f"{V2}/artifacts/list", _list_run),
        Endpoint("DELETE", f"{FILES}/artifacts/{{path:path}}", _delete, raw=True),
        Endpoint("GET", "/get-artifact", _of_run),
        Endpoint("GET", "/model-versions/get-artifact", _of_version),
        Endpoint("POST", f"{FILES}/mpu/create/{{path:path}}", _begin),
        Endpoint("POST", f"{FILES}/mpu/complete/{{path:path}}", _complete),
        Endpoint("POST", f"{FILES}/mpu/abort/{{path:path}}", _abort),
        Endpoint("GET", f"{FILES}/presigned/{{path:path}}", _presigned, raw=True),
    ]


async def _list_run(ask: Ask) -> Json:
    run = await get_run(ask, ask.required("run_id", "run_uuid"))
    folder = safe(ask.text("path").rstrip("/")) if ask.text("path") else ""
    prefix = f"{folder}/" if folder else ""
    root = run_artifacts(await experiment_number(ask, run.experiment), run.name)
    return {"root_uri": root, "files": files_json(run.artifacts, folder, prefix=prefix)}


async def _list_proxied(ask: Ask) -> Json:
    place = place_of(ask.required("path").strip("/"))
    return {"files": files_json(await files_at(ask, place), place.path, prefix="")}


async def _upload(ask: Ask) -> Json:
    place = _file(ask)
    await _require_owner(ask, place)
    media_type = ask.request.headers.get("content-type", "")[:200]
    await _log(ask, place, await ask.backend.objects.put(ask.project, ask.request.stream(), media_type))
    return {}


async def _require_owner(ask: Ask, place: Place) -> None:
    """Raises when there is nothing that could take a file."""
    if place.kind == "version":
        raise MlflowError("A registered version never changes.")
    if place.kind == "run":
        mask = FieldMask(paths=["name"])
        wanted = service.GetRunRequest(name=run_name(ask, place.owner), read_mask=mask)
        await ask.call(ask.services.tracking.GetRun, wanted)
    else:
        of_model = service.GetLoggedModelRequest(name=model_name(ask, place.owner))
        await ask.call(ask.services.tracking.GetLoggedModel, of_model)


async def _log(ask: Ask, place: Place, stored: ObjectRef) -> None:
    artifact = resources.Artifact(path=place.path, object=stored)
    if place.kind == "run":
        logged = service.LogArtifactRequest(run=run_name(ask, place.owner), artifact=artifact)
        await ask.command(ask.services.tracking.LogArtifact, logged)
    else:
        of_model = service.LogModelArtifactRequest(model=model_name(ask, place.owner), artifact=artifact)
        await ask.command(ask.services.tracking.LogModelArtifact, of_model)


async def _download(ask: Ask) -> Response:
    return await _sent(ask, _file(ask))


async def _of_run(ask: Ask) -> Response:
    return await _sent(ask, Place("run", ask.required("run_id", "run_uuid"), safe(ask.required("path"))))


async def _of_version(ask: Ask) -> Response:
    owner = f"{last_part(await resource_name(ask, ask.required('name')))}/{ask.required('version')}"
    return await _sent(ask, Place("version", owner, safe(ask.required("path"))))


async def _sent(ask: Ask, place: Place) -> Response:
    """The bytes of a file. Raises MlflowError when there is none."""
    reference = await _object_at(ask, place)
    kind = reference.media_type or "application/octet-stream"
    if reference.size_bytes <= IN_MEMORY:
        return Response(await ask.backend.objects.get(reference), media_type=kind, headers=_HEADERS)
    with tempfile.NamedTemporaryFile(prefix="headrace-artifact-", delete=False) as made:
        path = Path(made.name)
    gone = functools.partial(path.unlink, missing_ok=True)
    try:
        await ask.backend.objects.download(reference, path)
    except BaseException:
        gone()
        raise
    return FileResponse(path, media_type=kind, headers=_HEADERS, background=BackgroundTask(gone))


async def _object_at(ask: Ask, place: Place) -> ObjectRef:
    found = next((each for each in await files_at(ask, place) if each.path == place.path), None)
    if found is None:
        raise missing(f"No such artifact: '{place.path[:200]}'")
    return found.object


async def _presigned(ask: Ask) -> Json:
    """Where a client may fetch a file in pieces. It verifies nothing itself, so the bytes are verified first."""
    reference = await _object_at(ask, _file(ask))
    await ask.backend.objects.verify(reference)
    return {"url": ask.backend.objects.presign_get(reference), "headers": {}, "file_size": reference.size_bytes}


async def _delete(ask: Ask) -> Json:
    _file(ask)
    raise unsupported("Artifacts can not be deleted: a run keeps what it logged.")


async def _begin(ask: Ask) -> Json:
    place = _named(ask)
    count = ask.integer("num_parts", 1)
    if not 0 < count <= MAX_PARTS:
        raise MlflowError(f"Invalid value for parameter 'num_parts': expected 1 to {MAX_PARTS}.")
    await _require_owner(ask, place)
    objects = ask.backend.objects
    staged = await objects.begin_staged(ask.project)
    urls = await asyncio.to_thread(
        lambda: [objects.presign_staged(ask.project, staged, number) for number in range(1, count + 1)]
    )
    credentials = [{"url": url, "part_number": number, "headers": {}} for number, url in enumerate(urls, start=1)]
    return {"upload_id": staged, "credentials": credentials}


async def _complete(ask: Ask) -> Json:
    place = _named(ask)
    await _require_owner(ask, place)
    media_type = mimetypes.guess_type(place.path)[0] or "application/octet-stream"
    stored = await ask.backend.objects.adopt_staged(ask.project, ask.required("upload_id"), media_type)
    await _log(ask, place, stored)
    return {}


async def _abort(ask: Ask) -> Json:
    _named(ask)
    await ask.backend.objects.abort_staged(ask.project, ask.required("upload_id"))
    return {}


def _named(ask: Ask) -> Place:
    """The place of a file: the path is its folder, and the end of the body's ``path`` (the client's own) its name."""
    name = re.split(r"[/\\]", ask.required("path"))[-1]
    folder = ask.path("path").strip("/")
    place = place_of(f"{folder}/{name}" if name else folder)
    if not place.path or not name:
        raise MlflowError("Invalid path: it names no file.")
    return place


def _file(ask: Ask) -> Place:
    place = place_of(ask.path("path"))
    if not place.path:
        raise MlflowError("Invalid path: it names no file.")
    return place
