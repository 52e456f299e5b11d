"""Logged models: what training left behind, with parameters, metrics and files, before anybody registers it."""

from __future__ import annotations

from typing import Final
from uuid import uuid4

import grpc

from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from headrace_gateway.mlflow_api.asking import Ask
from headrace_gateway.mlflow_api.errors import MlflowError, missing
from headrace_gateway.mlflow_api.filters import Order, Value, parse_filter
from headrace_gateway.mlflow_api.naming import (
    DEFAULT_ID,
    experiment_name,
    experiment_number,
    last_part,
    model_artifacts,
    model_name,
    run_id,
    run_name,
)
from headrace_gateway.mlflow_api.paths import safe
from headrace_gateway.mlflow_api.sifting import ordered, page, sifted
from headrace_gateway.mlflow_api.table import V2, Endpoint
from headrace_gateway.mlflow_api.wire import MODEL_STATUS, Json, files_json, logged_model_json, milliseconds

MAX_RESULTS: Final = 1000
_ENDS: Final = {
    "LOGGED_MODEL_READY": resources.LOGGED_MODEL_STATUS_READY,
    "2": resources.LOGGED_MODEL_STATUS_READY,
    "LOGGED_MODEL_UPLOAD_FAILED": resources.LOGGED_MODEL_STATUS_FAILED,
    "3": resources.LOGGED_MODEL_STATUS_FAILED,
}


def endpoints() -> list[Endpoint]:
    """Every endpoint on logged models."""
    return [
        Endpoint("POST", f"{V2}/logged-models", _create),
        Endpoint("POST", f"{V2}/logged-models/search", _search),
        Endpoint("GET", f"{V2}/logged-models/{{model_id}}", _get),
        Endpoint("PATCH", f"{V2}/logged-models/{{model_id}}", _finalize),
        Endpoint("DELETE", f"{V2}/logged-models/{{model_id}}", _delete),
        Endpoint("POST", f"{V2}/logged-models/{{model_id}}/params", _log_params),
        Endpoint("PATCH", f"{V2}/logged-models/{{model_id}}/tags", _set_tags),
        Endpoint("DELETE", f"{V2}/logged-models/{{model_id}}/tags/{{key:path}}", _delete_tag),
        Endpoint("GET", f"{V2}/logged-models/{{model_id}}/artifacts/directories", _list_files),
    ]


async def _shown(ask: Ask, model: resources.LoggedModel) -> Json:
    return {"model": logged_model_json(model, await experiment_number(ask, model.experiment))}


async def _create(ask: Ask) -> Json:
    identity = f"m-{uuid4().hex}"
    request = service.CreateLoggedModelRequest(
        name=f"{ask.parent}/loggedModels/{identity}",
        experiment=await experiment_name(ask, ask.text("experiment_id") or DEFAULT_ID),
        display_name=ask.text("name") or identity,
        model_type=ask.text("model_type"),
        run=run_name(ask, ask.text("source_run_id")) if ask.text("source_run_id") else "",
        params=ask.pairs("params"),
        tags=ask.pairs("tags"),
    )
    return await _shown(ask, (await ask.command(ask.services.tracking.CreateLoggedModel, request)).model)


async def _get(ask: Ask) -> Json:
    return await _shown(ask, await get_model(ask, ask.path("model_id")))


async def _finalize(ask: Ask) -> Json:
    status = _ENDS.get(ask.required("status"))
    if status is None:
        raise MlflowError(f"Invalid model status: {ask.text('status')[:100]}")
    request = service.FinishLoggedModelRequest(model=model_name(ask, ask.path("model_id")), status=status)
    return await _shown(ask, (await ask.command(ask.services.tracking.FinishLoggedModel, request)).model)


async def _delete(ask: Ask) -> Json:
    request = service.DeleteLoggedModelRequest(model=model_name(ask, ask.path("model_id")))
    await ask.command(ask.services.tracking.DeleteLoggedModel, request)
    return {}


async def _set_tags(ask: Ask) -> Json:
    name = model_name(ask, ask.path("model_id"))
    request = service.AnnotateLoggedModelRequest(model=name, set=ask.pairs("tags"))
    return await _shown(ask, (await ask.command(ask.services.tracking.AnnotateLoggedModel, request)).model)


async def _delete_tag(ask: Ask) -> Json:
    name = model_name(ask, ask.path("model_id"))
    request = service.AnnotateLoggedModelRequest(model=name, removed=[ask.path("key")])
    await ask.command(ask.services.tracking.AnnotateLoggedModel, request)
    return {}


async def _log_params(ask: Ask) -> Json:
    name = model_name(ask, ask.path("model_id"))
    request = service.AnnotateLoggedModelRequest(model=name, params=ask.pairs("params"))
    await ask.command(ask.services.tracking.AnnotateLoggedModel, request)
    return {}


async def _search(ask: Ask) -> Json:
    comparisons = parse_filter(ask.text("filter"))
    orders = [
        Order(*_order_key(each.required("field_name")), not (not each.given("ascending") or each.flag("ascending")))
        for each in ask.items("order_by")
    ]
    names = [await experiment_name(ask, each) for each in ask.texts("experiment_ids")]
    found: list[resources.LoggedModel] = []
    request = service.ListLoggedModelsRequest(parent=ask.parent, experiments=names, page_size=1000)
    while names:
        listed = await ask.call(ask.services.tracking.ListLoggedModels, request)
        found.extend(listed.models)
        request.page_token = listed.next_page_token
        if not request.page_token:
            break
    kept = ordered(sifted(found, comparisons, _value_of), orders, _value_of)
    size = ask.integer("max_results", 100)
    models, token = page(kept, token=ask.text("page_token"), size=size, most=MAX_RESULTS)
    answer: Json = {"models": [(await _shown(ask, each))["model"] for each in models]}
    return answer | ({"next_page_token": token} if token else {})


async def _list_files(ask: Ask) -> Json:
    model = await get_model(ask, ask.path("model_id"))
    folder_path = ask.text("artifact_directory_path").rstrip("/")
    folder = safe(folder_path) if folder_path else ""
    root = model_artifacts(await experiment_number(ask, model.experiment), model.name)
    listed = files_json(model.artifacts, folder, prefix=f"{folder}/" if folder else "")
    return {"root_uri": root, "files": listed}


async def get_model(ask: Ask, identity: str) -> resources.LoggedModel:
    """The logged model of that id. Raises MlflowError when there is none."""
    request = service.GetLoggedModelRequest(name=model_name(ask, identity))
    try:
        found: resources.LoggedModel = (await ask.call(ask.services.tracking.GetLoggedModel, request)).model
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        raise missing(f"Logged model with ID '{identity}' not found.") from None
    return found


def _order_key(field: str) -> tuple[str, str]:
    kind, dot, key = field.partition(".")
    kinds = {"metrics": "metric", "params": "param", "attributes": "attribute"}
    return (kinds[kind], key) if dot and kind in kinds else ("attribute", field)


def _value_of(model: resources.LoggedModel, kind: str, key: str) -> Value | None:
    if kind == "tag":
        return model.tags.get(key)
    if kind == "param":
        return model.params.get(key)
    if kind == "metric":
        return next((each.value for each in reversed(model.metrics) if each.key == key), None)
    values: dict[str, Value] = {
        "name": model.display_name,
        "model_id": last_part(model.name),
        "model_type": model.model_type,
        "status": MODEL_STATUS[model.status],
        "source_run_id": run_id(model.run),
        "creation_timestamp": float(milliseconds(model.create_time)),
        "creation_time": float(milliseconds(model.create_time)),
        "last_updated_timestamp": float(milliseconds(model.update_time)),
        "last_updated_time": float(milliseconds(model.update_time)),
    }
    if key not in values:
        raise MlflowError(f"Invalid attribute key '{key}' specified for logged models.")
    return values[key]
