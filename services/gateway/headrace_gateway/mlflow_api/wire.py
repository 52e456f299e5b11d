"""Headrace's resources as the JSON that MLflow's clients read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.common.v1.resources_pb2 import DatasetVersion
from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace_gateway.mlflow_api import naming

Json = dict[str, object]

RUN_NAME_TAG: Final = "mlflow.runName"
PARENT_TAG: Final = "mlflow.parentRunId"
USER_TAG: Final = "mlflow.user"
CONTEXT_TAG: Final = "mlflow.data.context"
MODEL_STATUS: Final = {
    resources.LOGGED_MODEL_STATUS_PENDING: "LOGGED_MODEL_PENDING",
    resources.LOGGED_MODEL_STATUS_READY: "LOGGED_MODEL_READY",
    resources.LOGGED_MODEL_STATUS_FAILED: "LOGGED_MODEL_UPLOAD_FAILED",
}


def milliseconds(time: Timestamp) -> int:
    """Milliseconds since 1970 UTC."""
    return time.ToMilliseconds()


def number(value: float) -> float | str:
    """A double as JSON has it: what JSON has no number for is a word."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def pairs(values: Mapping[str, str]) -> list[Json]:
    """A mapping as a list of key and value, by key."""
    return [{"key": key, "value": values[key]} for key in sorted(values)]


def stage(deleted: bool) -> str:  # noqa: FBT001 - its only argument
    """The life-cycle stage of what may be put away."""
    return "deleted" if deleted else "active"


def experiment_json(experiment: resources.Experiment) -> Json:
    """An experiment."""
    return {
        "experiment_id": str(experiment.number),
        "name": experiment.display_name,
        "artifact_location": f"mlflow-artifacts:/{experiment.number}",
        "lifecycle_stage": stage(experiment.HasField("delete_time")),
        "creation_time": milliseconds(experiment.create_time),
        "last_update_time": milliseconds(experiment.update_time),
        "tags": pairs(experiment.tags),
    }


def run_info(run: resources.Run, number_of_experiment: int) -> Json:
    """What a run is."""
    identity = naming.run_id(run.name)
    info: Json = {
        "run_id": identity,
        "run_uuid": identity,
        "run_name": run.display_name,
        "experiment_id": str(number_of_experiment),
        "user_id": run.tags.get(USER_TAG, run.actor.rpartition("/")[2]),
        "status": resources.RunStatus.Name(run.status).removeprefix("RUN_STATUS_"),
        "start_time": milliseconds(run.start_time),
        "artifact_uri": naming.run_artifacts(number_of_experiment, run.name),
        "lifecycle_stage": stage(run.HasField("delete_time")),
    }
    if run.HasField("end_time"):
        info["end_time"] = milliseconds(run.end_time)
    return info


def run_json(run: resources.Run, number_of_experiment: int) -> Json:
    """A run with its data, inputs and outputs."""
    tags = {**run.tags, RUN_NAME_TAG: run.display_name}
    if run.parent_run:
        tags.setdefault(PARENT_TAG, naming.run_id(run.parent_run))
    metrics = [
        {
            "key": key,
            "value": number(run.metrics[key].last),
            "timestamp": milliseconds(run.metrics[key].last_time),
            "step": run.metrics[key].last_step,
        }
        for key in sorted(run.metrics)
    ]
    inputs: Json = {
        "dataset_inputs": [_dataset_input(each) for each in run.datasets],
        "model_inputs": [{"model_id": naming.last_part(each.model)} for each in run.model_inputs],
    }
    outputs = [{"model_id": naming.last_part(each.model), "step": each.step} for each in run.model_outputs]
    return {
        "info": run_info(run, number_of_experiment),
        "data": {"metrics": metrics, "params": pairs(run.params), "tags": pairs(tags)},
        "inputs": inputs,
        "outputs": {"model_outputs": outputs},
    }


def logged_model_json(model: resources.LoggedModel, number_of_experiment: int) -> Json:
    """A logged model."""
    identity = naming.last_part(model.name)
    info: Json = {
        "model_id": identity,
        "experiment_id": str(number_of_experiment),
        "name": model.display_name,
        "creation_timestamp_ms": milliseconds(model.create_time),
        "last_updated_timestamp_ms": milliseconds(model.update_time),
        "artifact_uri": naming.model_artifacts(number_of_experiment, model.name),
        "status": MODEL_STATUS[model.status],
        "model_type": model.model_type,
        "tags": pairs(model.tags),
    }
    if model.run:
        info["source_run_id"] = naming.run_id(model.run)
    metrics = [_model_metric(each, identity) for each in model.metrics]
    return {"info": info, "data": {"params": pairs(model.params), "metrics": metrics}}


def files_json(artifacts: Iterable[resources.Artifact], folder: str, *, prefix: str) -> list[Json]:
    """The entries of a folder (empty for the root), by path, each below ``prefix``."""
    below = f"{folder}/" if folder else ""
    found: dict[str, Json] = {}
    for each in artifacts:
        if not each.path.startswith(below):
            continue
        name, deeper, _ = each.path[len(below) :].partition("/")
        path = f"{prefix}{name}"
        found[name] = (
            {"path": path, "is_dir": True}
            if deeper
            else {"path": path, "is_dir": False, "file_size": each.object.size_bytes}
        )
    return [found[name] for name in sorted(found)]


def _dataset_input(dataset: DatasetVersion) -> Json:
    tags = [{"key": CONTEXT_TAG, "value": dataset.context}] if dataset.context else []
    held: Json = {
        "name": dataset.name,
        "digest": dataset.digest,
        "source_type": dataset.source_type or "headrace",
        "source": dataset.source,
    }
    if dataset.schema:
        held["schema"] = dataset.schema
    if dataset.profile:
        held["profile"] = dataset.profile
    return {"tags": tags, "dataset": held}


def _model_metric(metric: resources.ModelMetric, model_id: str) -> Json:
    found: Json = {
        "key": metric.key,
        "value": number(metric.value),
        "timestamp": milliseconds(metric.time),
        "step": metric.step,
        "model_id": model_id,
    }
    if metric.run:
        found["run_id"] = naming.run_id(metric.run)
    if metric.dataset_name:
        found["dataset_name"], found["dataset_digest"] = metric.dataset_name, metric.dataset_digest
    return found
