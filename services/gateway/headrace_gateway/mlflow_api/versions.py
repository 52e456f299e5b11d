"""Model versions: create, look up, search, update, tags, stages, delete, and where their files are."""

from __future__ import annotations

from typing import Final

import grpc

from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace.api.tracking.v1.resources_pb2 import Artifact
from headrace_gateway.mlflow_api.artifacts import files_at, package
from headrace_gateway.mlflow_api.asking import Ask
from headrace_gateway.mlflow_api.errors import MlflowError, missing
from headrace_gateway.mlflow_api.filters import Value, parse_filter, parse_order
from headrace_gateway.mlflow_api.loggedmodels import get_model as get_logged_model
from headrace_gateway.mlflow_api.naming import last_part, model_name, run_id, run_name
from headrace_gateway.mlflow_api.paths import Place, place_of_source
from headrace_gateway.mlflow_api.registered import (
    all_models,
    get_model,
    in_use,
    stage_named,
    stage_of,
    staged,
    version_json,
    version_number,
)
from headrace_gateway.mlflow_api.sifting import ordered, page, sifted
from headrace_gateway.mlflow_api.table import V2, Endpoint
from headrace_gateway.mlflow_api.wire import Json, milliseconds

MAX_RESULTS: Final = 200_000
Found = tuple[resources.Model, resources.Version]


def endpoints() -> list[Endpoint]:
    """Every endpoint on model versions."""
    return [
        Endpoint("POST", f"{V2}/model-versions/create", _create),
        Endpoint("GET", f"{V2}/model-versions/get", _get),
        Endpoint("GET", f"{V2}/model-versions/get-download-uri", _download_uri),
        Endpoint("GET", f"{V2}/model-versions/search", _search),
        Endpoint("PATCH", f"{V2}/model-versions/update", _update),
        Endpoint("POST", f"{V2}/model-versions/transition-stage", _transition),
        Endpoint("POST", f"{V2}/model-versions/set-tag", _set_tag),
        Endpoint("DELETE", f"{V2}/model-versions/delete-tag", _delete_tag),
        Endpoint("DELETE", f"{V2}/model-versions/delete", _delete),
    ]


async def _create(ask: Ask) -> Json:
    name, source = ask.required("name"), ask.required("source")
    place = place_of_source(source)
    run, model = ask.text("run_id"), ask.text("model_id")
    if place.kind == "model":
        model = model or place.owner
    if place.kind == "run":
        run = run or place.owner
    if model and not run:
        run = run_id((await get_logged_model(ask, model)).run)
    registered = await get_model(ask, name)
    request = service.CreateVersionRequest(
        model=registered.name,
        run=run_name(ask, run) if run else "",
        artifact=await package(ask, await _below(ask, place)),
        format=resources.MODEL_FORMAT_MLFLOW,
        description=ask.text("description"),
        tags=ask.pairs("tags"),
        source=source,
        logged_model=model_name(ask, model) if model else "",
    )
    version = (await ask.command(ask.services.registry.CreateVersion, request)).version
    return {"model_version": version_json(registered, version)}


async def _below(ask: Ask, place: Place) -> list[Artifact]:
    """The files below a place, with paths from there. Raises MlflowError when there are none."""
    prefix = f"{place.path}/" if place.path else ""
    found = [each for each in await files_at(ask, place) if each.path.startswith(prefix)]
    if not found:
        raise missing(f"Unable to find a model: there are no artifacts below '{place.path or place.owner}'.")
    return [Artifact(path=each.path[len(prefix) :], object=each.object) for each in found]


async def _find(ask: Ask) -> Found:
    """The version that a request names by ``name`` and ``version``. Raises MlflowError when there is none."""
    name, number = ask.required("name"), version_number(ask)
    model = await get_model(ask, name)
    version = next((each for each in in_use(model) if each.number == number), None)
    if version is None:
        raise missing(f"Model Version (name={name}, version={number}) not found")
    return model, version


async def _get(ask: Ask) -> Json:
    return {"model_version": version_json(*await _find(ask))}


async def _download_uri(ask: Ask) -> Json:
    model, version = await _find(ask)
    name, number = last_part(model.name), version.number  # the id, as artifacts stay where they are
    # What is not to be loaded is refused here too, where clients tell the reason: of lists of files they tell a status.
    await files_at(ask, Place("version", f"{name}/{number}", ""))
    return {"artifact_uri": f"mlflow-artifacts:/models/{name}/versions/{number}"}


async def _search(ask: Ask) -> Json:
    comparisons, orders = parse_filter(ask.text("filter")), parse_order(ask.texts("order_by"))
    named = next((each.value for each in comparisons if (each.key, each.operator) == ("name", "=")), None)
    if isinstance(named, str):
        try:
            models = [await get_model(ask, named)]
        except (MlflowError, grpc.aio.AioRpcError):  # no such model, or no name a model can have: no versions
            models = []
    else:
        models = await all_models(ask)
    found: list[Found] = [(model, each) for model in models for each in reversed(in_use(model))]
    kept = ordered(sifted(found, comparisons, _value_of), orders, _value_of)
    size = ask.integer("max_results", 10_000)
    shown, token = page(kept, token=ask.text("page_token"), size=size, most=MAX_RESULTS)
    answer: Json = {"model_versions": [version_json(*each) for each in shown]}
    return answer | ({"next_page_token": token} if token else {})


async def _update(ask: Ask) -> Json:
    model, version = await _find(ask)
    request = service.UpdateVersionRequest(version=version.name, description=ask.text("description"))
    updated = (await ask.command(ask.services.registry.UpdateVersion, request)).version
    return {"model_version": version_json(model, updated)}


async def _set_tag(ask: Ask) -> Json:
    _, version = await _find(ask)
    request = service.UpdateVersionRequest(version=version.name, set={ask.required("key"): ask.text("value")})
    await ask.command(ask.services.registry.UpdateVersion, request)
    return {}


async def _delete_tag(ask: Ask) -> Json:
    _, version = await _find(ask)
    request = service.UpdateVersionRequest(version=version.name, removed=[ask.required("key")])
    await ask.command(ask.services.registry.UpdateVersion, request)
    return {}


async def _delete(ask: Ask) -> Json:
    _, version = await _find(ask)
    await ask.command(ask.services.registry.DeleteVersion, service.DeleteVersionRequest(version=version.name))
    return {}


async def _transition(ask: Ask) -> Json:
    """Stages stand on aliases, so that a stage is reached by no other way than an alias, and through its gates.

    The stage that is left is left last: whoever is refused the other one keeps it.
    """
    model, version = await _find(ask)
    wanted, current = stage_named(ask.required("stage")), stage_of(model, version)
    stub = ask.services.registry
    if wanted != current:
        if wanted == "None" and current == "Archived":
            raise MlflowError("An archived version stays archived: register it again to use it.")
        stages = staged(model)
        if wanted in ("Production", "Staging"):
            promote = service.PromoteVersionRequest(version=version.name, alias=wanted.lower(), expected_revision=-1)
            await ask.command(stub.PromoteVersion, promote)
        for left in (each for stage, each in stages.items() if stage != wanted and each.version == version.number):
            gone = service.RemoveAliasRequest(model=model.name, alias=left.alias, expected_revision=left.revision)
            await ask.command(stub.RemoveAlias, gone)
        if wanted == "Archived":
            await ask.command(stub.ArchiveVersion, service.ArchiveVersionRequest(version=version.name))
        if wanted in stages and ask.flag("archive_existing_versions"):
            old = service.ArchiveVersionRequest(version=f"{model.name}/versions/{stages[wanted].version}")
            await ask.command(stub.ArchiveVersion, old)
    return {"model_version": version_json(*await _find(ask))}


def _value_of(found: Found, kind: str, key: str) -> Value | None:
    model, version = found
    if kind == "tag":
        return version.tags.get(key)
    values: dict[str, Value] = {
        "name": model.display_name,
        "version_number": float(version.number),
        "version": float(version.number),
        "run_id": run_id(version.run),
        "source_path": version.source,
        "creation_timestamp": float(milliseconds(version.create_time)),
        "last_updated_timestamp": float(
            milliseconds(version.update_time if version.HasField("update_time") else version.create_time)
        ),
    }
    if key not in values:
        raise MlflowError(f"Invalid attribute key '{key}' specified for model versions.")
    return values[key]
