"""Registered models: create, look up, search, update, tags, aliases, delete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import uuid4

import grpc

from headrace.api.registry.v1 import resources_pb2 as resources
from headrace.api.registry.v1 import service_pb2 as service
from headrace_gateway.mlflow_api.asking import Ask
from headrace_gateway.mlflow_api.errors import MlflowError, exists, missing
from headrace_gateway.mlflow_api.filters import Value, parse_filter, parse_order
from headrace_gateway.mlflow_api.naming import last_part, run_id
from headrace_gateway.mlflow_api.sifting import ordered, page, sifted
from headrace_gateway.mlflow_api.table import V2, Endpoint
from headrace_gateway.mlflow_api.wire import Json, milliseconds, pairs

MAX_RESULTS: Final = 1000
ID_HEAD: Final = 241
"""Of a name that is the id of a model renamed since, so much begins the id of another model that gets the name."""
STAGES: Final = ("None", "Staging", "Production", "Archived")


def endpoints() -> list[Endpoint]:
    """Every endpoint on registered models."""
    return [
        Endpoint("POST", f"{V2}/registered-models/create", _create),
        Endpoint("GET", f"{V2}/registered-models/get", _get),
        Endpoint("GET", f"{V2}/registered-models/search", _search),
        Endpoint("POST", f"{V2}/registered-models/get-latest-versions", _latest),
        Endpoint("GET", f"{V2}/registered-models/get-latest-versions", _latest),
        Endpoint("PATCH", f"{V2}/registered-models/update", _update),
        Endpoint("POST", f"{V2}/registered-models/rename", _rename),
        Endpoint("DELETE", f"{V2}/registered-models/delete", _delete),
        Endpoint("POST", f"{V2}/registered-models/set-tag", _set_tag),
        Endpoint("DELETE", f"{V2}/registered-models/delete-tag", _delete_tag),
        Endpoint("GET", f"{V2}/registered-models/alias", _get_alias),
        Endpoint("POST", f"{V2}/registered-models/alias", _set_alias),
        Endpoint("DELETE", f"{V2}/registered-models/alias", _delete_alias),
    ]


async def get_model(ask: Ask, name: str, *, fields: Sequence[str] = ()) -> resources.Model:
    """The model that people call so, or these fields of it. Raises MlflowError when there is none."""
    _check_name(name)
    request = service.GetModelRequest(parent=ask.parent, display_name=name)
    request.read_mask.paths.extend(fields)
    try:
        found: resources.Model = (await ask.call(ask.services.registry.GetModel, request)).model
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        raise missing(f"Registered Model with name={name[:100]} not found") from None
    return found


async def resource_name(ask: Ask, name: str) -> str:
    """Resource name of the model that people call so: it stays when the other changes, as it may at any time."""
    return (await get_model(ask, name, fields=["name"])).name


async def all_models(ask: Ask) -> list[resources.Model]:
    """Every model of the project, by name."""
    found: list[resources.Model] = []
    request = service.ListModelsRequest(parent=ask.parent, page_size=1000)
    while True:
        listed = await ask.call(ask.services.registry.ListModels, request)
        found.extend(listed.models)
        request.page_token = listed.next_page_token
        if not request.page_token:
            return sorted(found, key=lambda each: each.display_name)


def in_use(model: resources.Model) -> list[resources.Version]:
    """Versions that were not deleted, oldest first."""
    return [each for each in model.versions if not each.HasField("delete_time")]


def stage_of(model: resources.Model, version: resources.Version) -> str:
    """MLflow's stage: that of the alias ``production`` or ``staging``, or archived."""
    if version.state == resources.VERSION_STATE_ARCHIVED:
        return "Archived"
    held = {each.alias for each in model.aliases if each.version == version.number}
    return "Production" if "production" in held else "Staging" if "staging" in held else "None"


def staged(model: resources.Model) -> dict[str, resources.Alias]:
    """The aliases that stages stand on, by stage, as far as they are set."""
    return {each.alias.title(): each for each in model.aliases if each.alias in ("production", "staging")}


def stage_named(text: str) -> str:
    """A stage whatever its case. Raises MlflowError for any other word."""
    found = next((each for each in STAGES if each.lower() == text.lower()), None)
    if found is None:
        raise MlflowError(f"Invalid Model Version stage: {text[:100]}. Value must be one of {', '.join(STAGES)}.")
    return found


def version_json(model: resources.Model, version: resources.Version) -> Json:
    """A version."""
    found: Json = {
        "name": model.display_name,
        "version": str(version.number),
        "creation_timestamp": milliseconds(version.create_time),
        "last_updated_timestamp": milliseconds(
            version.update_time if version.HasField("update_time") else version.create_time
        ),
        "user_id": last_part(version.author),
        "current_stage": stage_of(model, version),
        "description": version.description,
        "source": version.source,
        "status": "READY",
        "tags": pairs(version.tags),
        "aliases": sorted(each.alias for each in model.aliases if each.version == version.number),
    }
    if version.run:
        found["run_id"] = run_id(version.run)
    if version.logged_model:
        found["model_id"] = last_part(version.logged_model)
    return found


def latest_versions(model: resources.Model, stages: list[str]) -> list[resources.Version]:
    """The newest version of each stage (of those given; none for all)."""
    newest = {stage_of(model, each): each for each in in_use(model)}
    return [newest[stage] for stage in STAGES if stage in newest and (not stages or stage in stages)]


def model_json(model: resources.Model) -> Json:
    """A registered model."""
    times = [each.create_time for each in model.versions]
    updated = [milliseconds(each) for each in (*times, model.update_time, model.create_time)]
    return {
        "name": model.display_name,
        "creation_timestamp": milliseconds(model.create_time),
        "last_updated_timestamp": max(updated),
        "user_id": last_part(model.creator),
        "description": model.description,
        "latest_versions": [version_json(model, each) for each in latest_versions(model, [])],
        "tags": pairs(model.tags),
        "aliases": [{"alias": each.alias, "version": str(each.version)} for each in model.aliases],
    }


def version_number(ask: Ask) -> int:
    """The version a request names. Raises MlflowError when it is no positive number."""
    text = ask.required("version")
    if not (text.isascii() and text.isdecimal() and int(text[:9]) > 0 and len(text) < 9):
        raise MlflowError(f"Parameter 'version' must be an integer, got '{text[:100]}'.")
    return int(text)


async def _create(ask: Ask) -> Json:
    name = ask.required("name")
    _check_name(name)
    for identity in (name, f"{name[:ID_HEAD]}-{uuid4().hex[:8]}"):
        request = service.CreateModelRequest(
            name=f"{ask.parent}/models/{identity}",
            display_name=name,
            description=ask.text("description"),
            tags=ask.pairs("tags"),
            open_aliases=True,
        )
        try:
            model = (await ask.command(ask.services.registry.CreateModel, request)).model
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                raise
            if await _is_taken(ask, name):
                break
            continue  # a model that was renamed holds the id: take another
        return {"registered_model": model_json(model)}
    raise _taken(name)


async def _get(ask: Ask) -> Json:
    return {"registered_model": model_json(await get_model(ask, ask.required("name")))}


async def _search(ask: Ask) -> Json:
    comparisons, orders = parse_filter(ask.text("filter")), parse_order(ask.texts("order_by"))
    kept = ordered(sifted(await all_models(ask), comparisons, _value_of), orders, _value_of)
    size = ask.integer("max_results", 100)
    shown, token = page(kept, token=ask.text("page_token"), size=size, most=MAX_RESULTS)
    answer: Json = {"registered_models": [model_json(each) for each in shown]}
    return answer | ({"next_page_token": token} if token else {})


async def _latest(ask: Ask) -> Json:
    model = await get_model(ask, ask.required("name"))
    stages = [stage_named(each) for each in ask.texts("stages")]
    return {"model_versions": [version_json(model, each) for each in latest_versions(model, stages)]}


async def _update(ask: Ask) -> Json:
    model = await resource_name(ask, ask.required("name"))
    request = service.UpdateModelRequest(model=model, description=ask.text("description"))
    return {"registered_model": model_json((await ask.command(ask.services.registry.UpdateModel, request)).model)}


async def _rename(ask: Ask) -> Json:
    name, wanted = ask.required("name"), ask.required("new_name")
    _check_name(wanted)
    request = service.RenameModelRequest(model=await resource_name(ask, name), display_name=wanted)
    try:
        model = (await ask.command(ask.services.registry.RenameModel, request)).model
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
            raise
        raise _taken(wanted) from None
    return {"registered_model": model_json(model)}


async def _delete(ask: Ask) -> Json:
    request = service.DeleteModelRequest(model=await resource_name(ask, ask.required("name")))
    await ask.command(ask.services.registry.DeleteModel, request)
    return {}


async def _set_tag(ask: Ask) -> Json:
    model = await resource_name(ask, ask.required("name"))
    request = service.UpdateModelRequest(model=model, set={ask.required("key"): ask.text("value")})
    await ask.command(ask.services.registry.UpdateModel, request)
    return {}


async def _delete_tag(ask: Ask) -> Json:
    model = await resource_name(ask, ask.required("name"))
    request = service.UpdateModelRequest(model=model, removed=[ask.required("key")])
    await ask.command(ask.services.registry.UpdateModel, request)
    return {}


async def _get_alias(ask: Ask) -> Json:
    name, alias = ask.required("name"), ask.required("alias")
    model = await get_model(ask, name)
    versions = in_use(model)
    if alias.lower() == "latest":
        if not versions:
            raise missing(f"Latest version not found for model {name}.")
        return {"model_version": version_json(model, versions[-1])}
    pointer = next((each for each in model.aliases if each.alias == alias), None)
    if pointer is None:
        raise MlflowError(f"Registered model alias {alias[:100]} not found.")
    return {"model_version": version_json(model, model.versions[pointer.version - 1])}


async def _set_alias(ask: Ask) -> Json:
    name, alias, number = ask.required("name"), ask.required("alias"), version_number(ask)
    if alias.lower() == "latest":
        raise MlflowError("'latest' alias name (case insensitive) is reserved.")
    version = f"{await resource_name(ask, name)}/versions/{number}"
    request = service.PromoteVersionRequest(version=version, alias=alias, expected_revision=-1)
    try:
        await ask.command(ask.services.registry.PromoteVersion, request)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        raise missing(f"Model Version (name={name}, version={number}) not found") from None
    return {}


async def _delete_alias(ask: Ask) -> Json:
    model, alias = await get_model(ask, ask.required("name")), ask.required("alias")
    if any(each.alias == alias for each in model.aliases):
        request = service.RemoveAliasRequest(model=model.name, alias=alias, expected_revision=-1)
        await ask.command(ask.services.registry.RemoveAlias, request)
    return {}


def _check_name(name: str) -> None:
    """Raises MlflowError for what could be no part of a URI; the registry checks the rest."""
    if "/" in name or ":" in name:
        raise MlflowError(f"Invalid model name: '{name[:100]}'. It holds '/' or ':'.")


async def _is_taken(ask: Ask, name: str) -> bool:
    try:
        await resource_name(ask, name)
    except MlflowError:
        return False
    return True


def _taken(name: str) -> MlflowError:
    return exists(f"Registered Model (name={name}) already exists.")


def _value_of(model: resources.Model, kind: str, key: str) -> Value | None:
    if kind == "tag":
        return model.tags.get(key)
    match key:
        case "name":
            return model.display_name
        case "creation_timestamp":
            return float(milliseconds(model.create_time))
        case "last_updated_timestamp" | "timestamp":
            return float(str(model_json(model)["last_updated_timestamp"]))
        case _:
            raise MlflowError(f"Invalid attribute key '{key}' specified for registered models.")
