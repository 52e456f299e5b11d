"""Experiments: create, look up, search, update, tags, delete and restore."""

from __future__ import annotations

from uuid import uuid4

import grpc

from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.resources_pb2 import Experiment
from headrace.naming import experiment_id
from headrace_gateway.mlflow_api.asking import Ask
from headrace_gateway.mlflow_api.errors import MlflowError, exists
from headrace_gateway.mlflow_api.filters import Value, parse_filter, parse_order
from headrace_gateway.mlflow_api.naming import (
    DEFAULT_ID,
    experiment_by_id,
    experiment_by_name,
    experiment_name,
    view_of,
)
from headrace_gateway.mlflow_api.sifting import ordered, page, sifted
from headrace_gateway.mlflow_api.table import V2, Endpoint
from headrace_gateway.mlflow_api.wire import Json, experiment_json, milliseconds

MAX_RESULTS = 50_000


def endpoints() -> list[Endpoint]:
    """Every endpoint on experiments."""
    return [
        Endpoint("POST", f"{V2}/experiments/create", _create),
        Endpoint("GET", f"{V2}/experiments/get", _get),
        Endpoint("GET", f"{V2}/experiments/get-by-name", _get_by_name),
        Endpoint("POST", f"{V2}/experiments/search", _search),
        Endpoint("GET", f"{V2}/experiments/search", _search),
        Endpoint("POST", f"{V2}/experiments/update", _update),
        Endpoint("POST", f"{V2}/experiments/set-experiment-tag", _set_tag),
        Endpoint("POST", f"{V2}/experiments/delete-experiment-tag", _delete_tag),
        Endpoint("POST", f"{V2}/experiments/delete", _delete),
        Endpoint("POST", f"{V2}/experiments/restore", _restore),
    ]


async def _create(ask: Ask) -> Json:
    name, tags = ask.required("name"), ask.pairs("tags")
    if len(name) > 500:
        raise MlflowError("Invalid value for parameter 'name': give at most 500 characters.")
    if ask.text("artifact_location") not in ("", "mlflow-artifacts:/", "mlflow-artifacts:"):
        raise MlflowError("Invalid value for parameter 'artifact_location': artifacts lie in headrace's own store.")
    identity = experiment_id(name)
    for each in (identity, f"{identity}-{uuid4().hex[:8]}"):
        resource = f"{ask.parent}/experiments/{each}"
        request = service.CreateExperimentRequest(name=resource, display_name=name, tags=tags)
        try:
            made: Experiment = (await ask.command(ask.services.tracking.CreateExperiment, request)).experiment
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                raise
            if await _is_taken(ask, name):
                raise exists(f"Experiment(name={name}) already exists.") from None
            continue  # an experiment that was renamed holds the id: take another
        return {"experiment_id": str(made.number)}
    raise exists(f"Experiment(name={name}) already exists.")


async def _get(ask: Ask) -> Json:
    return {"experiment": experiment_json(await experiment_by_id(ask, ask.required("experiment_id")))}


async def _get_by_name(ask: Ask) -> Json:
    return {"experiment": experiment_json(await experiment_by_name(ask, ask.required("experiment_name")))}


async def _search(ask: Ask) -> Json:
    await experiment_by_id(ask, DEFAULT_ID)
    comparisons, orders = parse_filter(ask.text("filter")), parse_order(ask.texts("order_by"))
    request = service.ListExperimentsRequest(parent=ask.parent, page_size=1000)
    request.view = view_of(ask, "view_type")  # type: ignore[assignment] # a number of View
    found: list[Experiment] = []
    while True:
        listed = await ask.call(ask.services.tracking.ListExperiments, request)
        found.extend(listed.experiments)
        request.page_token = listed.next_page_token
        if not request.page_token:
            break
    newest = sorted(found, key=lambda each: (-milliseconds(each.create_time), each.number))
    kept = ordered(sifted(newest, comparisons, _value_of), orders, _value_of)
    size = ask.integer("max_results", 1000)
    shown, token = page(kept, token=ask.text("page_token"), size=size, most=MAX_RESULTS)
    answer: Json = {"experiments": [experiment_json(each) for each in shown]}
    return answer | ({"next_page_token": token} if token else {})


async def _update(ask: Ask) -> Json:
    found = await experiment_by_id(ask, ask.required("experiment_id"))
    name = ask.text("new_name")
    if found.HasField("delete_time"):
        raise MlflowError("Cannot rename a non-active experiment.")
    if name:
        request = service.UpdateExperimentRequest(experiment=found.name, display_name=name)
        await ask.command(ask.services.tracking.UpdateExperiment, request)
    return {}


async def _set_tag(ask: Ask) -> Json:
    name = await experiment_name(ask, ask.required("experiment_id"))
    request = service.UpdateExperimentRequest(experiment=name, set={ask.required("key"): ask.text("value")})
    await ask.command(ask.services.tracking.UpdateExperiment, request)
    return {}


async def _delete_tag(ask: Ask) -> Json:
    name = await experiment_name(ask, ask.required("experiment_id"))
    request = service.UpdateExperimentRequest(experiment=name, removed=[ask.required("key")])
    await ask.command(ask.services.tracking.UpdateExperiment, request)
    return {}


async def _delete(ask: Ask) -> Json:
    identity = ask.required("experiment_id")
    if identity == DEFAULT_ID:
        raise MlflowError("The experiment 'Default' can not be deleted: clients rely on it.")
    request = service.DeleteExperimentRequest(experiment=await experiment_name(ask, identity))
    await ask.command(ask.services.tracking.DeleteExperiment, request)
    return {}


async def _restore(ask: Ask) -> Json:
    name = await experiment_name(ask, ask.required("experiment_id"))
    request = service.RestoreExperimentRequest(experiment=name)
    await ask.command(ask.services.tracking.RestoreExperiment, request)
    return {}


async def _is_taken(ask: Ask, name: str) -> bool:
    try:
        await experiment_by_name(ask, name)
    except MlflowError:
        return False
    return True


def _value_of(experiment: Experiment, kind: str, key: str) -> Value | None:
    if kind == "tag":
        return experiment.tags.get(key)
    match key:
        case "name":
            return experiment.display_name
        case "experiment_id":
            return str(experiment.number)
        case "creation_time":
            return float(milliseconds(experiment.create_time))
        case "last_update_time":
            return float(milliseconds(experiment.update_time))
        case _:
            raise MlflowError(f"Invalid attribute key '{key}' specified for experiments.")
