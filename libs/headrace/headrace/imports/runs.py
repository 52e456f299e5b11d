"""Runs and logged models of an MLflow server, written to a platform."""

from __future__ import annotations

from functools import partial
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from headrace.api.common.v1.resources_pb2 import DatasetVersion
from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.errors import read
from headrace.imports.files import Files
from headrace.imports.server import Json, MlflowServer, integer, nested, objects, pairs, text
from headrace.imports.target import SOURCE_TAG, Point, Target
from headrace.naming import run_uuid

_NAME_TAG: Final = "mlflow.runName"
_PARENT_TAG: Final = "mlflow.parentRunId"
_CONTEXT_TAG: Final = "mlflow.data.context"
_ENDS: Final = {
    "FINISHED": resources.RUN_STATUS_FINISHED,
    "FAILED": resources.RUN_STATUS_FAILED,
    "KILLED": resources.RUN_STATUS_KILLED,
}
_MODEL_ENDS: Final = {
    "LOGGED_MODEL_READY": resources.LOGGED_MODEL_STATUS_READY,
    "LOGGED_MODEL_UPLOAD_FAILED": resources.LOGGED_MODEL_STATUS_FAILED,
}


class Runs:
    """Imports runs and logged models. For many threads."""

    def __init__(self, target: Target, server: MlflowServer) -> None:
        self.target, self.server, self.report = target, server, target.report
        self._files = Files(target, server)

    def run(self, given: Json, experiment: str) -> None:
        """Imports a run into the experiment of that resource name. Raises ServerError, HeadraceError."""
        info, data = nested(given, "info"), nested(given, "data")
        if text(info, "lifecycle_stage") == "deleted":
            self.report.leave_out(f"run {run_id_of(given)}", "it is deleted on the server")
            return
        name, tags = self.target.run_name(run_uuid(run_id_of(given))), pairs(data, "tags")
        display = text(info, "run_name") or tags.get(_NAME_TAG, "")
        tags.pop(_NAME_TAG, None)
        tags[SOURCE_TAG] = self.server.url
        if user := text(info, "user_id"):
            tags.setdefault("mlflow.user", user)
        run = self.target.run(name)
        if run is None:
            run = self.target.start(self._start(name, experiment, display[:250], tags, info))
            if run is None:
                return
        elif SOURCE_TAG not in run.tags or run.HasField("delete_time"):
            why = (
                "was put away here" if run.HasField("delete_time") else "there is a run of this id that no import made"
            )
            self.report.leave_out(f"run {run_id_of(given)}", why)
            return
        else:
            self.report.find("runs")
            self.target.tags(run, {**tags, SOURCE_TAG: run.tags[SOURCE_TAG]})
        self.target.params(run, pairs(data, "params"))
        self._datasets(run, objects(nested(given, "inputs"), "dataset_inputs"))
        self._metrics(run, run_id_of(given), objects(data, "metrics"))
        self._links(run, given)
        held = {each.path: each.object.size_bytes for each in run.artifacts}
        self._files.bring(
            f"run {run_id_of(given)}",
            lambda: self.server.files(text(info, "artifact_uri"), run_id=run_id_of(given)),
            held,
            lambda artifact: self.target.command(
                self.target.client.tracking.LogArtifact,
                service.LogArtifactRequest(run=run.name, artifact=artifact),
                salt=str(run.revision),
            ),
        )
        end = _ENDS.get(text(info, "status"))
        if end is not None:
            request = service.FinishRunRequest(run=name, status=end)
            _set_time(request.end_time, integer(info, "end_time"))
            self.target.finish(run, request)

    def logged_model(self, given: Json, experiment: str) -> None:
        """Imports a logged model. Raises ServerError, HeadraceError."""
        info, data, stub = nested(given, "info"), nested(given, "data"), self.target.client.tracking
        identity = text(info, "model_id")
        name, what = f"{self.target.parent}/loggedModels/{identity}", f"logged model {identity}"
        found = read(stub.GetLoggedModel, service.GetLoggedModelRequest(name=name))
        if found is None:
            request = service.CreateLoggedModelRequest(
                name=name,
                experiment=experiment,
                display_name=text(info, "name") or identity,
                model_type=text(info, "model_type"),
                params=pairs(data, "params"),
                tags={**pairs(info, "tags"), SOURCE_TAG: self.server.url},
            )
            if run := text(info, "source_run_id"):
                request.run = self.target.run_name(run_uuid(run))
            if not self.target.attempt(
                what, "logged models", lambda: self.target.command(stub.CreateLoggedModel, request)
            ):
                return
            model = resources.LoggedModel(name=name, status=resources.LOGGED_MODEL_STATUS_PENDING)
        else:
            self.report.find("logged models")
            model = found.model
        metrics = [self._model_metric(each) for each in objects(data, "metrics")]
        new = [each for each in metrics if each not in model.metrics]
        for begin in range(0, len(new), 1000):
            annotate = service.AnnotateLoggedModelRequest(model=name, metrics=new[begin : begin + 1000])
            self.target.attempt(
                f"metrics of {what}",
                "",
                partial(self.target.command, stub.AnnotateLoggedModel, annotate),
            )
        self._files.bring(
            what,
            lambda: self.server.files(text(info, "artifact_uri")),
            {each.path: each.object.size_bytes for each in model.artifacts},
            lambda artifact: self.target.command(
                stub.LogModelArtifact,
                service.LogModelArtifactRequest(model=name, artifact=artifact),
                salt=str(model.revision),
            ),
        )
        end = _MODEL_ENDS.get(text(info, "status"))
        if end is not None and model.status == resources.LOGGED_MODEL_STATUS_PENDING:
            finish = service.FinishLoggedModelRequest(model=name, status=end)
            self.target.attempt(f"the end of {what}", "", lambda: self.target.command(stub.FinishLoggedModel, finish))

    def _start(
        self, name: str, experiment: str, display: str, tags: dict[str, str], info: Json
    ) -> service.StartRunRequest:
        request = service.StartRunRequest(
            name=name,
            experiment=experiment,
            display_name=display,
            tags=tags,
            code=resources.CodeVersion(
                commit=tags.get("mlflow.source.git.commit", "")[:100],
                branch=tags.get("mlflow.source.git.branch", "")[:500],
                entrypoint=tags.get("mlflow.source.name", "")[:2000],
            ),
        )
        _set_time(request.start_time, integer(info, "start_time"))
        if parent := tags.get(_PARENT_TAG, ""):
            request.parent_run = self.target.run_name(run_uuid(parent))
        return request

    def _datasets(self, run: resources.Run, given: list[Json]) -> None:
        for each in given:
            held = nested(each, "dataset")
            dataset = DatasetVersion(
                name=text(held, "name"),
                digest=text(held, "digest"),
                source_type=text(held, "source_type"),
                source=text(held, "source"),
                schema=text(held, "schema"),
                profile=text(held, "profile"),
                context=pairs(each, "tags").get(_CONTEXT_TAG, ""),
            )
            if dataset in run.datasets:
                self.report.find("datasets")
                continue
            request = service.LogDatasetRequest(run=run.name, dataset=dataset)
            self.target.attempt(
                f"dataset {dataset.name!r} of run {run.name.rpartition('/')[2]}",
                "datasets",
                partial(self.target.command, self.target.client.tracking.LogDataset, request),
            )

    def _metrics(self, run: resources.Run, run_id: str, latest: list[Json]) -> None:
        for each in latest:
            key = text(each, "key")
            if run.status != resources.RUN_STATUS_RUNNING and _is_last(run, key, each):
                self.report.find("metric points", run.metrics[key].count)
                continue  # points are sent by step and time, so who has the last has all
            self.target.points(run, key, [_point(found) for found in self.server.history(run_id, key)])

    def _links(self, run: resources.Run, given: Json) -> None:
        def link(each: Json) -> resources.ModelLink:
            return resources.ModelLink(
                model=f"{self.target.parent}/loggedModels/{text(each, 'model_id')}", step=integer(each, "step")
            )

        inputs = [link(each) for each in objects(nested(given, "inputs"), "model_inputs")]
        outputs = [link(each) for each in objects(nested(given, "outputs"), "model_outputs")]
        new = service.LinkModelsRequest(
            run=run.name,
            inputs=[each for each in inputs if each not in run.model_inputs],
            outputs=[each for each in outputs if each not in run.model_outputs],
        )
        if new.inputs or new.outputs:
            what = f"logged models of run {run.name.rpartition('/')[2]}"
            self.target.attempt(what, "", lambda: self.target.command(self.target.client.tracking.LinkModels, new))

    def _model_metric(self, each: Json) -> resources.ModelMetric:
        step, time_us, value = _point(each)
        metric = resources.ModelMetric(
            key=text(each, "key"),
            value=value,
            step=step,
            dataset_name=text(each, "dataset_name"),
            dataset_digest=text(each, "dataset_digest"),
        )
        metric.time.FromMicroseconds(time_us)
        if run := text(each, "run_id"):
            metric.run = self.target.run_name(run_uuid(run))
        return metric


def run_id_of(given: Json) -> str:
    """Id of a run on its server."""
    return text(nested(given, "info"), "run_id", "run_uuid")


def _point(given: Json) -> Point:
    try:
        value = float(given.get("value", 0.0))
    except (TypeError, ValueError):
        value = float("nan")
    return integer(given, "step"), integer(given, "timestamp") * 1000, value


def _is_last(run: resources.Run, key: str, given: Json) -> bool:
    if key not in run.metrics:
        return False
    held, (step, time_us, value) = run.metrics[key], _point(given)
    same = held.last == value or (held.last != held.last and value != value)  # noqa: PLR0124 - NaN
    return same and held.last_step == step and held.last_time.ToMicroseconds() == time_us


def _set_time(stamp: Timestamp, milliseconds: int) -> None:
    """Sets a time where one is given that a Timestamp can hold."""
    if milliseconds > 0:
        try:
            stamp.FromMilliseconds(milliseconds)
        except (ValueError, OverflowError):
            stamp.Clear()
