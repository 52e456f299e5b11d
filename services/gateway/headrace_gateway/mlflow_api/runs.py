"""Runs: create, update, get, delete and restore, and what they hold besides metrics: parameters, tags, data, models."""

from __future__ import annotations

from typing import Final

import grpc
import orjson

from headrace.api.common.v1.resources_pb2 import DatasetVersion
from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from headrace_gateway.mlflow_api.asking import Arguments, Ask
from headrace_gateway.mlflow_api.errors import MlflowError, missing
from headrace_gateway.mlflow_api.naming import (
    DEFAULT_ID,
    experiment_name,
    experiment_number,
    model_name,
    new_run_name,
    run_name,
)
from headrace_gateway.mlflow_api.table import V2, Endpoint
from headrace_gateway.mlflow_api.wire import CONTEXT_TAG, PARENT_TAG, RUN_NAME_TAG, USER_TAG, Json, run_info, run_json

ENDED: Final = ("FINISHED", "FAILED", "KILLED")
HISTORY_TAG: Final = "mlflow.log-model.history"
"""Where clients before 3.0 keep what they logged as models."""


def endpoints() -> list[Endpoint]:
    """Every endpoint on a run, but for metrics and search."""
    return [
        Endpoint("POST", f"{V2}/runs/create", _create),
        Endpoint("GET", f"{V2}/runs/get", _get),
        Endpoint("POST", f"{V2}/runs/update", _update),
        Endpoint("POST", f"{V2}/runs/delete", _delete),
        Endpoint("POST", f"{V2}/runs/restore", _restore),
        Endpoint("POST", f"{V2}/runs/log-parameter", _log_param),
        Endpoint("POST", f"{V2}/runs/set-tag", _set_tag),
        Endpoint("POST", f"{V2}/runs/delete-tag", _delete_tag),
        Endpoint("POST", f"{V2}/runs/log-inputs", _log_inputs),
        Endpoint("POST", f"{V2}/runs/outputs", _log_outputs),
        Endpoint("POST", f"{V2}/runs/log-model", _log_model),
    ]


async def _create(ask: Ask) -> Json:
    experiment = await experiment_name(ask, ask.text("experiment_id") or DEFAULT_ID)
    tags = ask.pairs("tags")
    request = service.StartRunRequest(
        name=new_run_name(ask),
        experiment=experiment,
        display_name=ask.text("run_name") or tags.get(RUN_NAME_TAG, ""),
        code=_code(tags),
    )
    tags.pop(RUN_NAME_TAG, None)
    if user := ask.text("user_id"):
        tags.setdefault(USER_TAG, user)
    request.tags.update(tags)
    if parent := tags.get(PARENT_TAG, ""):
        request.parent_run = run_name(ask, parent)
    if start := ask.integer("start_time"):
        _set_time(request.start_time, start)
    run = (await ask.command(ask.services.tracking.StartRun, request)).run
    return {"run": run_json(run, await experiment_number(ask, run.experiment))}


async def _get(ask: Ask) -> Json:
    run = await get_run(ask, ask.required("run_id", "run_uuid"))
    return {"run": run_json(run, await experiment_number(ask, run.experiment))}


async def _update(ask: Ask) -> Json:
    identity = ask.required("run_id", "run_uuid")
    name = run_name(ask, identity)
    if display := ask.text("run_name"):
        request = service.RenameRunRequest(run=name, display_name=display)
        await ask.command(ask.services.tracking.RenameRun, request)
    if status := ask.text("status"):
        await _set_status(ask, identity, _status(status))
    run = await get_run(ask, identity)
    return {"run_info": run_info(run, await experiment_number(ask, run.experiment))}


async def _delete(ask: Ask) -> Json:
    request = service.DeleteRunRequest(run=run_name(ask, ask.required("run_id")))
    await ask.command(ask.services.tracking.DeleteRun, request)
    return {}


async def _restore(ask: Ask) -> Json:
    request = service.RestoreRunRequest(run=run_name(ask, ask.required("run_id")))
    await ask.command(ask.services.tracking.RestoreRun, request)
    return {}


async def _log_param(ask: Ask) -> Json:
    await log_params(ask, ask.required("run_id", "run_uuid"), [ask])
    return {}


async def _set_tag(ask: Ask) -> Json:
    await set_tags(ask, ask.required("run_id", "run_uuid"), {ask.required("key"): ask.text("value")})
    return {}


async def _delete_tag(ask: Ask) -> Json:
    identity, key = ask.required("run_id"), ask.required("key")
    run = await get_run(ask, identity)
    if key not in run.tags:
        raise missing(f"No tag with name: {key} in run with id {identity}")
    request = service.ChangeTagsRequest(run=run.name, removed=[key])
    await ask.command(ask.services.tracking.ChangeTags, request)
    return {}


async def _log_inputs(ask: Ask) -> Json:
    name = run_name(ask, ask.required("run_id"))
    for each in ask.items("datasets"):
        request = service.LogDatasetRequest(run=name, dataset=_dataset(each))
        await ask.command(ask.services.tracking.LogDataset, request)
    models = [resources.ModelLink(model=model_name(ask, each.required("model_id"))) for each in ask.items("models")]
    if models:
        await ask.command(ask.services.tracking.LinkModels, service.LinkModelsRequest(run=name, inputs=models))
    return {}


async def _log_outputs(ask: Ask) -> Json:
    models = [
        resources.ModelLink(model=model_name(ask, each.required("model_id")), step=each.integer("step"))
        for each in ask.items("models")
    ]
    request = service.LinkModelsRequest(run=run_name(ask, ask.required("run_id")), outputs=models)
    await ask.command(ask.services.tracking.LinkModels, request)
    return {}


async def _log_model(ask: Ask) -> Json:
    identity, text = ask.required("run_id"), ask.required("model_json")
    run = await get_run(ask, identity)
    try:
        logged = orjson.loads(text)
        history = orjson.loads(run.tags.get(HISTORY_TAG, "[]"))
    except orjson.JSONDecodeError as error:
        raise MlflowError(f"Malformed model info: {error}") from None
    if not isinstance(logged, dict) or not isinstance(history, list):
        raise MlflowError("Malformed model info: it is no JSON object.")
    await set_tags(ask, identity, {HISTORY_TAG: orjson.dumps([*history, logged]).decode()})
    return {}


async def get_run(ask: Ask, identity: str) -> resources.Run:
    """The run of that id. Raises MlflowError when there is none."""
    try:
        found: resources.Run = (
            await ask.call(ask.services.tracking.GetRun, service.GetRunRequest(name=run_name(ask, identity)))
        ).run
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        raise missing(f"Run with id={identity[:100]} not found") from None
    return found


async def log_params(ask: Ask, identity: str, given: list[Arguments] | list[Ask]) -> None:
    """Logs parameters. Raises MlflowError when one would change."""
    params: dict[str, str] = {}
    for each in given:
        key, value = each.required("key"), each.text("value")
        if params.setdefault(key, value) != value:
            raise MlflowError(f"Duplicate parameter keys have been submitted: {key!r} has two values.")
    request = service.LogParamsRequest(run=run_name(ask, identity), params=params)
    try:
        await ask.command(ask.services.tracking.LogParams, request)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
            raise
        held = (await get_run(ask, identity)).params
        changed = next((key for key in sorted(params) if held.get(key, params[key]) != params[key]), None)
        if changed is None:
            raise
        raise MlflowError(
            f"Changing param values is not allowed. Param with key='{changed}' was already logged with "
            f"value='{held[changed]}' for run ID='{identity}'. Attempted logging new value '{params[changed]}'."
        ) from None


async def set_tags(ask: Ask, identity: str, tags: dict[str, str]) -> None:
    """Sets tags; that of the run's name renames it."""
    name = run_name(ask, identity)
    display = tags.pop(RUN_NAME_TAG, "")
    if display:
        request = service.RenameRunRequest(run=name, display_name=display)
        await ask.command(ask.services.tracking.RenameRun, request)
    if tags:
        await ask.command(ask.services.tracking.ChangeTags, service.ChangeTagsRequest(run=name, set=tags))


async def _set_status(ask: Ask, identity: str, status: str) -> None:
    """Ends a run, or goes on with it: one that ended otherwise is resumed first."""
    name = run_name(ask, identity)
    if status == "RUNNING":
        await ask.command(ask.services.tracking.ResumeRun, service.ResumeRunRequest(run=name))
        return
    request = service.FinishRunRequest(run=name, status=resources.RunStatus.Value(f"RUN_STATUS_{status}"))
    if end := ask.integer("end_time"):
        _set_time(request.end_time, end)
    try:
        await ask.command(ask.services.tracking.FinishRun, request)
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
            raise
        await ask.command(ask.services.tracking.ResumeRun, service.ResumeRunRequest(run=name))
        await ask.command(ask.services.tracking.FinishRun, request)


def _status(given: str) -> str:
    numbered = {"1": "RUNNING", "3": "FINISHED", "4": "FAILED", "5": "KILLED"}
    status = numbered.get(given, given)
    if status != "RUNNING" and status not in ENDED:
        raise MlflowError(f"Invalid value {given[:100]!r} for parameter 'status': give RUNNING, {', '.join(ENDED)}.")
    return status


def _code(tags: dict[str, str]) -> resources.CodeVersion:
    """What clients say about the code, as far as it fits."""
    return resources.CodeVersion(
        commit=tags.get("mlflow.source.git.commit", "")[:100],
        branch=tags.get("mlflow.source.git.branch", "")[:500],
        entrypoint=tags.get("mlflow.source.name", "")[:2000],
    )


def _dataset(given: Arguments) -> DatasetVersion:
    dataset, tags = given.item("dataset"), given.pairs("tags")
    return DatasetVersion(
        name=dataset.required("name"),
        digest=dataset.required("digest"),
        source_type=dataset.text("source_type"),
        source=dataset.text("source"),
        schema=dataset.text("schema"),
        profile=dataset.text("profile"),
        context=tags.get(CONTEXT_TAG, ""),
    )


def _set_time(stamp: object, value: int) -> None:
    """Sets a Timestamp; one that no Timestamp can hold is refused."""
    try:
        stamp.FromMilliseconds(value)  # type: ignore[attr-defined]
    except (ValueError, OverflowError):
        raise MlflowError(f"Invalid value {value}: expected milliseconds since 1970.") from None
