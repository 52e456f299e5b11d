"""MLflow's names and headrace's: runs, logged models, experiments."""

from __future__ import annotations

import re
from typing import Final
from uuid import UUID, uuid4

import grpc

from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.resources_pb2 import Experiment
from headrace_gateway.mlflow_api.asking import Ask
from headrace_gateway.mlflow_api.errors import MlflowError, missing

DEFAULT_ID: Final = "0"
DEFAULT_NAME: Final = "Default"
_KEPT: Final = 10_000
_MODEL_ID: Final = re.compile(r"m-[0-9a-f]{32}")


def run_name(ask: Ask, run_id: str) -> str:
    """Resource name of a run. Raises MlflowError when it can be none's id."""
    try:
        found = UUID(run_id)
    except ValueError:
        found = None
    if found is None or run_id not in (found.hex, str(found)) or found.int == 0:
        raise missing(f"Run with id={run_id[:100]} not found")
    return f"{ask.parent}/runs/{found}"


def run_id(name: str) -> str:
    """MLflow's id of a run: 32 hex digits."""
    return name.rpartition("/")[2].replace("-", "")


def dashed(identity: str) -> str:
    """An id of a run as headrace writes it; a pattern, or what is no id, stays as it is."""
    if len(identity) != 32:
        return identity
    return "-".join((identity[:8], identity[8:12], identity[12:16], identity[16:20], identity[20:]))


def new_run_name(ask: Ask) -> str:
    """Resource name of a new run."""
    return f"{ask.parent}/runs/{uuid4()}"


def model_name(ask: Ask, model_id: str) -> str:
    """Resource name of a logged model. Raises MlflowError when it can be none's id."""
    if not _MODEL_ID.fullmatch(model_id):
        raise missing(f"Logged model with ID '{model_id[:100]}' not found.")
    return f"{ask.parent}/loggedModels/{model_id}"


def last_part(name: str) -> str:
    """The id at the end of a resource name."""
    return name.rpartition("/")[2]


def run_artifacts(number: int, run: str) -> str:
    """Where the artifacts of a run are, as clients write it."""
    return f"mlflow-artifacts:/{number}/{run_id(run)}/artifacts"


def model_artifacts(number: int, model: str) -> str:
    """Where the files of a logged model are."""
    return f"mlflow-artifacts:/{number}/models/{last_part(model)}/artifacts"


async def experiment_name(ask: Ask, experiment_id: str) -> str:
    """Resource name of the experiment of that id. Raises MlflowError."""
    if not (experiment_id.isascii() and experiment_id.isdecimal() and len(experiment_id) < 19):
        raise missing(f"No Experiment with id={experiment_id[:100]} exists")
    known = ask.backend.experiments.get((ask.project, int(experiment_id)))
    return known or (await experiment_by_id(ask, experiment_id)).name


async def experiment_number(ask: Ask, name: str) -> int:
    """Number of the experiment of that resource name."""
    if name not in ask.backend.numbers:
        request = service.GetExperimentRequest(name=name)
        _learn(ask, (await ask.call(ask.services.tracking.GetExperiment, request)).experiment)
    return ask.backend.numbers[name]


async def experiment_by_id(ask: Ask, experiment_id: str) -> Experiment:
    """The experiment of that id; 0 is made when it is first asked for. Raises MlflowError."""
    if not (experiment_id.isascii() and experiment_id.isdecimal() and len(experiment_id) < 19):
        raise missing(f"No Experiment with id={experiment_id[:100]} exists")
    request = service.GetExperimentRequest(parent=ask.parent, number=int(experiment_id))
    try:
        found = (await ask.call(ask.services.tracking.GetExperiment, request)).experiment
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        if int(experiment_id):
            raise missing(f"No Experiment with id={experiment_id} exists") from None
        return await default_experiment(ask)
    return _learn(ask, found)


async def experiment_by_name(ask: Ask, name: str) -> Experiment:
    """The experiment of that name for people. Raises MlflowError."""
    request = service.GetExperimentRequest(parent=ask.parent, display_name=name)
    try:
        found = (await ask.call(ask.services.tracking.GetExperiment, request)).experiment
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        if name == DEFAULT_NAME:
            return await default_experiment(ask)
        raise missing(f"Could not find experiment with name '{name}'") from None
    return _learn(ask, found)


async def default_experiment(ask: Ask) -> Experiment:
    """The experiment of number 0, which MLflow's clients take for granted."""
    name = f"{ask.parent}/experiments/{DEFAULT_NAME}"
    try:
        request = service.CreateExperimentRequest(name=name, display_name=DEFAULT_NAME)
        made = (await ask.command(ask.services.tracking.CreateExperiment, request)).experiment
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
            raise
        get = service.GetExperimentRequest(name=name)
        made = (await ask.call(ask.services.tracking.GetExperiment, get)).experiment
    return _learn(ask, made)


def _learn(ask: Ask, experiment: Experiment) -> Experiment:
    ask.backend.experiments[ask.project, experiment.number] = experiment.name
    ask.backend.numbers[experiment.name] = experiment.number
    for known in (ask.backend.experiments, ask.backend.numbers):
        if len(known) > _KEPT:
            known.popitem(last=False)
    return experiment


def view_of(ask: Ask, name: str) -> int:
    """A view (``headrace.api.tracking.v1.View``) as MLflow names it: a word or a number."""
    value = ask.text(name, default="ACTIVE_ONLY")
    views = {"ACTIVE_ONLY": 0, "DELETED_ONLY": 1, "ALL": 2, "1": 0, "2": 1, "3": 2}
    if value not in views:
        raise MlflowError(f"Invalid value {value[:100]!r} for parameter '{name}'.")
    return views[value]
