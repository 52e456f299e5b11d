"""What a user does with MLflow, written for MLflow alone: run by the interpreter that has it, in a process of its own.

Reads one JSON object a line, ``{"scenario": name, "uri": tracking URI}``, runs the function of that name, and writes
``{"result": what it returned}`` or ``{"error": traceback}`` as a line.
"""
# Knows neither headrace nor its tests. pyright runs where there is no MLflow.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
import os
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

os.environ["MPLBACKEND"] = "agg"

import matplotlib.pyplot as plt
import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag, SpanEvent, SpanType, ViewType
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

SCENARIOS: dict[str, Callable[[], Any]] = {}


def scenario(function: Callable[[], Any]) -> Callable[[], Any]:
    SCENARIOS[function.__name__] = function
    return function


def refused(call: Callable[[], object]) -> str:
    """The error code a call ends with."""
    try:
        call()
    except MlflowException as error:
        return str(error.error_code)
    return "nothing was refused"


def iris() -> tuple[pd.DataFrame, Any]:
    data = load_iris(as_frame=True)
    return data.data, data.target


@scenario
def tracks_a_run() -> Any:
    mlflow.set_experiment("team/first one")
    with mlflow.start_run(run_name="hello", description="a note", tags={"kind": "test"}) as run:
        assert mlflow.log_param("alpha", 0.5) == 0.5
        mlflow.log_params({"layers": [1, 2], "name": "x y", "none": None})
        for step in range(5):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
        mlflow.log_metrics({"acc": 0.5, "nan": math.nan, "inf": math.inf, "low": -math.inf}, step=3)
        mlflow.set_tag("team", "ops")
        mlflow.set_tags({"a.b/c-d": "1", "gone": "x"})
        mlflow.delete_tag("gone")
        with mlflow.start_run(nested=True, run_name="child") as child:
            mlflow.log_metric("loss", 9.0)
    client = MlflowClient()
    found = client.get_run(run.info.run_id)
    assert found.info.run_name == "hello"
    assert found.info.status == "FINISHED"
    assert found.info.end_time >= found.info.start_time
    assert found.info.artifact_uri == f"mlflow-artifacts:/{run.info.experiment_id}/{run.info.run_id}/artifacts"
    assert found.data.params == {"alpha": "0.5", "layers": "[1, 2]", "name": "x y", "none": "None"}
    metrics = found.data.metrics
    assert math.isnan(metrics.pop("nan"))
    assert metrics == {"loss": 0.2, "acc": 0.5, "inf": math.inf, "low": -math.inf}
    tags = found.data.tags
    assert (tags["team"], tags["a.b/c-d"], tags["kind"], tags["mlflow.note.content"]) == ("ops", "1", "test", "a note")
    assert "gone" not in tags
    assert client.get_run(child.info.run_id).data.tags["mlflow.parentRunId"] == run.info.run_id
    assert client.get_parent_run(child.info.run_id).info.run_id == run.info.run_id
    history = client.get_metric_history(run.info.run_id, "loss")
    assert [(each.step, each.value) for each in history] == [(step, 1 / (step + 1)) for step in range(5)]
    assert client.get_metric_history(run.info.run_id, "none of it") == []
    return {"run": run.info.run_id, "child": child.info.run_id}


@scenario
def logs_in_batches() -> Any:
    mlflow.set_experiment("batches")
    client = MlflowClient()
    run = client.create_run(mlflow.get_experiment_by_name("batches").experiment_id)
    metrics = [Metric("m", float(step), 1_700_000_000_000 + step, step) for step in range(1000)]
    client.log_batch(run.info.run_id, metrics=metrics[:800], params=[Param("p", "1")], tags=[RunTag("t", "2")])
    client.log_batch(run.info.run_id, metrics=metrics[800:])
    client.log_batch(run.info.run_id, metrics=metrics[800:])  # as after an answer that was lost
    history = client.get_metric_history(run.info.run_id, "m")
    assert [(each.step, each.value, each.timestamp) for each in history] == [
        (each.step, each.value, each.timestamp) for each in metrics
    ]
    client.set_terminated(run.info.run_id, "KILLED")
    found = client.get_run(run.info.run_id)
    assert (found.data.params, found.data.tags["t"], found.info.status) == ({"p": "1"}, "2", "KILLED")
    client.set_terminated(run.info.run_id, "FAILED")
    with mlflow.start_run(run_id=run.info.run_id):
        assert client.get_run(run.info.run_id).info.status == "RUNNING"
    assert client.get_run(run.info.run_id).info.status == "FINISHED"
    return {"run": run.info.run_id}


@scenario
def keeps_artifacts() -> Any:
    mlflow.set_experiment("artifacts")
    content = os.urandom(5_000_000)
    with mlflow.start_run() as run, tempfile.TemporaryDirectory() as folder:
        mlflow.log_text("héllo", "notes/a b.txt")
        mlflow.log_text("x", "100% sure.txt")
        mlflow.log_dict({"a": [1, 2]}, "config.json")
        Path(folder, "f.bin").write_bytes(content)
        Path(folder, "sub").mkdir()
        Path(folder, "sub", "empty").touch()
        mlflow.log_artifact(str(Path(folder, "f.bin")), "big")
        mlflow.log_artifacts(folder, "all")
        figure, axes = plt.subplots()
        axes.plot([1, 2], [3, 4])
        mlflow.log_figure(figure, "plots/line.png")
        mlflow.log_image(np.zeros((4, 4, 3), np.uint8), "black.png")
        mlflow.log_image(np.zeros((4, 4, 3), np.uint8), key="seen", step=1)
        mlflow.log_table({"q": ["a", "b"], "n": [1, 2]}, "table.json")
        mlflow.log_table({"q": ["c"], "n": [3]}, "table.json")
    identity = run.info.run_id
    client = MlflowClient()
    root = {(each.path, each.is_dir) for each in client.list_artifacts(identity)}
    assert {("notes", True), ("config.json", False), ("big", True), ("all", True), ("black.png", False)} <= root
    [big] = client.list_artifacts(identity, "big")
    assert (big.path, big.file_size) == ("big/f.bin", 5_000_000)
    assert {each.path for each in client.list_artifacts(identity, "all")} == {"all/f.bin", "all/sub"}
    assert client.list_artifacts(identity, "config.json") == []
    assert mlflow.artifacts.load_text(f"runs:/{identity}/notes/a b.txt") == "héllo"
    assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/notes/a b.txt") == "héllo"
    assert mlflow.artifacts.load_dict(f"runs:/{identity}/config.json") == {"a": [1, 2]}
    with tempfile.TemporaryDirectory() as folder:
        fetched = Path(mlflow.artifacts.download_artifacts(run_id=identity, artifact_path="", dst_path=folder))
        assert (fetched / "big" / "f.bin").read_bytes() == content
        assert (fetched / "all" / "sub" / "empty").read_bytes() == b""
        assert (fetched / "100% sure.txt").read_text() == "x"
    assert mlflow.load_table("table.json", run_ids=[identity])["n"].tolist() == [1, 2, 3]
    return {"run": identity}


@scenario
def searches_runs() -> Any:
    mlflow.set_experiment("search")
    for number in range(6):
        with mlflow.start_run(run_name=f"run {number}"):
            mlflow.log_param("kind", "tree" if number % 2 else "forest")
            mlflow.log_metrics({"rmse": float(number), "val.rmse": 10.0 - number})
            mlflow.set_tag("Team Name", f"team-{number}")
            frame = pd.DataFrame({"x": [number]})
            mlflow.log_input(mlflow.data.from_pandas(frame, name=f"data{number}"), context="training")

    def names(filter_string: str, order_by: list[str] | None = None, **given: Any) -> list[str]:
        given.setdefault("experiment_names", ["search"])
        found = mlflow.search_runs(filter_string=filter_string, order_by=order_by or ["start_time"], **given)
        return found["tags.mlflow.runName"].tolist() if len(found) else []

    assert names("") == [f"run {number}" for number in range(6)]
    assert names("metrics.rmse < 3 and params.kind = 'tree'") == ["run 1"]
    assert names("metrics.`val.rmse` >= 8", ["metrics.rmse DESC"]) == ["run 2", "run 1", "run 0"]
    assert names('tags."Team Name" LIKE "team-%"', max_results=2) == ["run 0", "run 1"]
    assert names("params.kind ILIKE 'FOR%' AND metric.rmse != 0") == ["run 2", "run 4"]
    assert names("attributes.run_name IN ('run 1', 'run 3')") == ["run 1", "run 3"]
    assert names("run_name NOT IN ('run 1', 'run 3') and status = 'FINISHED'")[:2] == ["run 0", "run 2"]
    assert names("params.other IS NULL and metrics.rmse > 4") == ["run 5"]
    assert names("params.kind IS NOT NULL and metrics.rmse > 4") == ["run 5"]
    assert names("dataset.name = 'data3'") == ["run 3"]
    assert names("datasets.context = 'training' and metrics.rmse = 2") == ["run 2"]
    assert names("start_time > 0 and end_time < 99999999999999 and metrics.rmse <= 1e0") == ["run 0", "run 1"]
    runs = MlflowClient().search_runs([mlflow.get_experiment_by_name("search").experiment_id], max_results=4)
    assert len(runs) == 4
    more = MlflowClient().search_runs(
        [mlflow.get_experiment_by_name("search").experiment_id], max_results=4, page_token=runs.token
    )
    assert len(more) == 2
    assert not more.token
    identity = runs[0].info.run_id
    assert len(names(f"run_id = '{identity}'")) == 1
    [dataset] = runs[0].inputs.dataset_inputs
    assert json.loads(dataset.dataset.schema)
    assert (dataset.tags[0].key, dataset.tags[0].value) == ("mlflow.data.context", "training")
    codes = {
        text: refused(partial(names, text))
        for text in (
            "metrics.rmse >", "metrics.rmse LIKE '1'", "params.kind > 'a'", "rubbish = 1", "metrics.rmse = 'x'",
            "params.kind = tree", "params.kind = 'x' OR params.kind = 'y'", "';--", "a" * 30_000,
        )
    }  # fmt: skip
    return {"codes": codes}


@scenario
def deletes_and_restores_runs() -> Any:
    mlflow.set_experiment("deleting")
    client = MlflowClient()
    experiment = mlflow.get_experiment_by_name("deleting").experiment_id
    run = client.create_run(experiment)
    identity = run.info.run_id
    client.delete_run(identity)
    assert client.get_run(identity).info.lifecycle_stage == "deleted"
    assert client.search_runs([experiment]) == []
    assert len(client.search_runs([experiment], run_view_type=ViewType.DELETED_ONLY)) == 1
    codes = {
        "metric": refused(lambda: client.log_metric(identity, "m", 1)),
        "param": refused(lambda: client.log_param(identity, "p", 1)),
        "tag": refused(lambda: client.set_tag(identity, "t", 1)),
    }
    client.restore_run(identity)
    client.log_metric(identity, "m", 1)
    assert len(client.search_runs([experiment])) == 1
    client.update_run(identity, name="another")
    assert client.get_run(identity).info.run_name == "another"
    client.set_tag(identity, "mlflow.runName", "a third")
    assert client.get_run(identity).info.run_name == "a third"
    return {"codes": codes, "run": identity}


@scenario
def keeps_experiments() -> Any:
    client = MlflowClient()
    assert client.get_experiment("0").name == "Default"
    identity = client.create_experiment("exp/one", tags={"a": "1"})
    assert identity.isdecimal()
    assert client.get_experiment_by_name("exp/one").tags == {"a": "1"}
    assert client.get_experiment_by_name("none such") is None
    client.set_experiment_tag(identity, "b", "2")
    client.delete_experiment_tag(identity, "a")
    client.rename_experiment(identity, "exp/two")
    found = client.get_experiment(identity)
    assert (found.name, found.tags, found.lifecycle_stage) == ("exp/two", {"b": "2"}, "active")
    another = client.create_experiment("exp/one")
    assert another != identity
    listed = client.search_experiments(filter_string="name LIKE 'exp/%'", order_by=["name DESC"])
    assert [each.name for each in listed] == ["exp/two", "exp/one"]
    assert [each.name for each in client.search_experiments(filter_string="tags.b = '2'")] == ["exp/two"]
    run = client.create_run(identity)
    client.delete_experiment(identity)
    assert client.get_experiment(identity).lifecycle_stage == "deleted"
    assert "exp/two" not in {each.name for each in client.search_experiments()}
    assert client.search_runs([identity]) == []
    codes = {
        "same name": refused(lambda: client.create_experiment("exp/one")),
        "name of a deleted one": refused(lambda: client.create_experiment("exp/two")),
        "run in a deleted one": refused(lambda: client.create_run(identity)),
        "missing": refused(lambda: client.get_experiment("123456789")),
        "no number": refused(lambda: client.get_experiment("abc")),
        "rename to a taken one": refused(lambda: client.rename_experiment(another, "exp/two")),
        "location": refused(lambda: client.create_experiment("elsewhere", artifact_location="file:///etc")),
    }
    client.restore_experiment(identity)
    assert [each.info.run_id for each in client.search_runs([identity])] == [run.info.run_id]
    made: list[str] = []
    failed: list[str] = []

    def race() -> None:
        try:
            made.append(MlflowClient().create_experiment("raced"))
        except MlflowException as error:
            failed.append(str(error.error_code))

    threads = [threading.Thread(target=race) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert set(failed) == {"RESOURCE_ALREADY_EXISTS"}
    return {"codes": codes}


@scenario
def logs_registers_and_loads_a_model() -> Any:
    features, target = iris()
    model = LogisticRegression(max_iter=500).fit(features, target)
    expected = model.predict(features).tolist()
    mlflow.set_experiment("models")
    with mlflow.start_run() as run:
        info = mlflow.sklearn.log_model(
            model,
            name="classifier",
            input_example=features.head(3),
            signature=infer_signature(features, model.predict(features)),
            params={"c": "1"},
            pip_requirements=["scikit-learn"],
        )
        mlflow.log_metric("acc", 0.9, model_id=info.model_id)
    logged = mlflow.get_logged_model(info.model_id)
    assert (logged.name, logged.status, logged.source_run_id) == ("classifier", "READY", run.info.run_id)
    assert logged.params == {"c": "1"}
    assert [(each.key, each.value) for each in logged.metrics] == [("acc", 0.9)]
    [output] = MlflowClient().get_run(run.info.run_id).outputs.model_outputs
    assert output.model_id == info.model_id
    version = mlflow.register_model(info.model_uri, "Iris Classifier")
    assert (version.version, version.status, version.run_id) == ("1", "READY", run.info.run_id)
    client = MlflowClient()
    client.set_registered_model_alias("Iris Classifier", "champion", "1")
    for uri in (
        "models:/Iris Classifier@champion",
        "models:/Iris Classifier/1",
        "models:/Iris Classifier/latest",
        f"models:/{info.model_id}",
        f"runs:/{run.info.run_id}/classifier",
    ):
        assert mlflow.pyfunc.load_model(uri).predict(features).tolist() == expected, uri
    loaded = mlflow.sklearn.load_model("models:/Iris Classifier@champion")
    assert loaded.predict(features).tolist() == expected
    mlflow.set_logged_model_tags(info.model_id, {"reviewed": "yes"})
    mlflow.delete_logged_model_tag(info.model_id, "reviewed") if hasattr(mlflow, "delete_logged_model_tag") else None
    found = mlflow.search_logged_models(
        experiment_ids=[run.info.experiment_id], filter_string="name = 'classifier'", output_format="list"
    )
    assert [each.model_id for each in found] == [info.model_id]
    with mlflow.start_run() as second:
        mlflow.sklearn.log_model(
            model, name="again", registered_model_name="Iris Classifier", pip_requirements=["scikit-learn"]
        )
    assert client.get_model_version("Iris Classifier", "2").run_id == second.info.run_id
    assert client.get_model_version_by_alias("Iris Classifier", "champion").version == "1"
    return {"run": run.info.run_id, "model": info.model_id}


@scenario
def autologs_a_grid_search() -> Any:
    mlflow.set_experiment("autolog")
    features, target = iris()
    try:
        mlflow.autolog(log_models=False)  # finding out what a model requires takes the client long: once is enough
        with mlflow.start_run() as run:
            search = GridSearchCV(RandomForestClassifier(n_estimators=5), {"max_depth": [1, 3]}, cv=2)
            search.fit(features, target)
            search.score(features, target)
        mlflow.autolog(log_input_examples=True)
        with mlflow.start_run() as single:
            LogisticRegression(max_iter=500).fit(features, target)
    finally:
        mlflow.autolog(disable=True)
    client = MlflowClient()
    found = client.get_run(run.info.run_id)
    assert found.data.params["best_max_depth"] in {"1", "3"}
    assert found.data.metrics["best_cv_score"] > 0.5
    assert any(key.startswith("GridSearchCV_score") for key in found.data.metrics)
    children = mlflow.search_runs(
        experiment_names=["autolog"], filter_string=f"tags.mlflow.parentRunId = '{run.info.run_id}'"
    )
    assert sorted(children["params.max_depth"]) == ["1", "3"]
    assert "train" in {each.tags[0].value for each in found.inputs.dataset_inputs}
    plain = client.get_run(single.info.run_id)
    assert plain.data.metrics["training_accuracy_score"] > 0.9
    assert "training_confusion_matrix.png" in {each.path for each in client.list_artifacts(single.info.run_id)}
    [output] = plain.outputs.model_outputs
    loaded = mlflow.pyfunc.load_model(f"models:/{output.model_id}")
    assert len(loaded.predict(features)) == len(features)
    return {"run": run.info.run_id, "single": single.info.run_id}


@scenario
def keeps_a_registry() -> Any:
    client = MlflowClient()
    mlflow.set_experiment("registry")
    with mlflow.start_run() as run:
        mlflow.log_text("a model", "model/MLmodel")
        mlflow.log_text("weights", "model/data/w.txt")
    source = f"{run.info.artifact_uri}/model"
    client.create_registered_model("m1", tags={"a": "1"}, description="first")
    client.create_registered_model("m2")
    for _ in range(3):
        client.create_model_version("m1", source, run.info.run_id, tags={"v": "x"}, description="d")
    client.update_registered_model("m1", "described")
    client.set_registered_model_tag("m1", "b", "2")
    client.delete_registered_model_tag("m1", "a")
    client.update_model_version("m1", "2", "second")
    client.set_model_version_tag("m1", "2", "w", "y")
    client.delete_model_version_tag("m1", "2", "v")
    model, version = client.get_registered_model("m1"), client.get_model_version("m1", "2")
    assert (model.description, model.tags) == ("described", {"b": "2"})
    assert (version.description, version.tags, version.source) == ("second", {"w": "y"}, source)
    client.set_registered_model_alias("m1", "Best_one", "2")
    client.set_registered_model_alias("m1", "Best_one", "3")
    client.set_registered_model_alias("m1", "other", "3")
    assert client.get_model_version("m1", "3").aliases == ["Best_one", "other"]
    client.delete_registered_model_alias("m1", "other")
    client.delete_registered_model_alias("m1", "other")
    assert client.get_registered_model("m1").aliases == {"Best_one": "3"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client.transition_model_version_stage("m1", "1", "Production")
        client.transition_model_version_stage("m1", "2", "production", archive_existing_versions=True)
        stages = [client.get_model_version("m1", str(number)).current_stage for number in (1, 2, 3)]
        assert stages == ["Archived", "Production", "None"]
        assert [each.version for each in client.get_latest_versions("m1", ["Production"])] == ["2"]
    assert [each.name for each in client.search_registered_models("name LIKE 'm%'", order_by=["name DESC"])] == [
        "m2", "m1",
    ]  # fmt: skip
    assert [each.name for each in client.search_registered_models("tags.b = '2'")] == ["m1"]
    assert [each.version for each in client.search_model_versions("name='m1'")] == ["3", "2", "1"]
    assert [each.version for each in client.search_model_versions(f"run_id='{run.info.run_id}' and tags.w='y'")] == [
        "2"
    ]
    assert client.search_model_versions("name='nothing'") == []
    uri = client.get_model_version_download_uri("m1", "3")
    with mlflow.start_run(run_id=run.info.run_id):
        mlflow.log_text("other weights", "model/data/w.txt")  # a version stays what it was
    assert mlflow.artifacts.load_text(f"{uri}/data/w.txt") == "weights"
    codes = {
        "twice": refused(lambda: client.create_registered_model("m1")),
        "no model": refused(lambda: client.get_registered_model("nothing")),
        "no version": refused(lambda: client.get_model_version("m1", "9")),
        "no number": refused(lambda: client.get_model_version("m1", "x")),
        "version of no model": refused(lambda: client.create_model_version("nothing", source)),
        "no alias": refused(lambda: client.get_model_version_by_alias("m1", "nothing")),
        "alias to nothing": refused(lambda: client.set_registered_model_alias("m1", "z", "9")),
        "version under an alias": refused(lambda: client.delete_model_version("m1", "3")),
        "model under an alias": refused(lambda: client.delete_registered_model("m1")),
        "foreign source": refused(lambda: client.create_model_version("m1", "s3://bucket/model")),
        "local source": refused(lambda: client.create_model_version("m1", "/etc", run.info.run_id)),
        "source out of it": refused(lambda: client.create_model_version("m1", f"{run.info.artifact_uri}/../../x")),
        "stage": refused(lambda: client.transition_model_version_stage("m1", "3", "Nonsense")),
        "name": refused(lambda: client.create_registered_model("a|b")),
        "rename of none": refused(lambda: client.rename_registered_model("nothing", "m3")),
        "rename to a taken one": refused(lambda: client.rename_registered_model("m1", "m2")),
        "rename to no name": refused(lambda: client.rename_registered_model("m1", "a|b")),
        "rename into a path": refused(lambda: client.rename_registered_model("m1", "a/b")),
    }
    client.delete_registered_model_alias("m1", "Best_one")
    client.delete_model_version("m1", "3")
    assert refused(lambda: client.get_model_version("m1", "3")) == "RESOURCE_DOES_NOT_EXIST"
    client.delete_registered_model("m2")
    assert refused(lambda: client.get_registered_model("m2")) == "RESOURCE_DOES_NOT_EXIST"
    client.create_registered_model("m2")
    return {"codes": codes}


@scenario
def renames_a_model() -> Any:
    client = MlflowClient()
    mlflow.set_experiment("renaming")

    def shout(model_input: list[str]) -> list[str]:
        return [f"{each}!" for each in model_input]

    with mlflow.start_run():
        info = mlflow.pyfunc.log_model(name="model", python_model=shout, pip_requirements=["mlflow"])
    first = mlflow.register_model(info.model_uri, "a", tags={"v": "1"})
    mlflow.register_model(info.model_uri, "a")
    client.set_registered_model_tag("a", "team", "ops")
    client.set_registered_model_alias("a", "champion", "2")
    before = client.get_registered_model("a")

    client.rename_registered_model("a", "b")

    found = client.get_registered_model("b")
    assert (found.tags, found.aliases) == ({"team": "ops"}, {"champion": "2"})
    assert found.creation_timestamp == before.creation_timestamp
    assert found.last_updated_timestamp >= before.last_updated_timestamp
    assert {(each.name, each.version) for each in found.latest_versions} == {("b", "2")}
    versions = client.search_model_versions("name='b'")
    assert [(each.name, each.version, each.tags) for each in versions] == [("b", "2", {}), ("b", "1", {"v": "1"})]
    assert versions[1].source == first.source
    assert client.search_model_versions("name='a'") == []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert [(each.name, each.version) for each in client.get_latest_versions("b")] == [("b", "2")]
    assert [each.name for each in client.search_registered_models()] == ["b"]
    for uri in ("models:/b@champion", "models:/b/1", "models:/b/latest"):
        assert mlflow.pyfunc.load_model(uri).predict(["x"]) == ["x!"], uri
    gone = {
        "model": refused(lambda: client.get_registered_model("a")),
        "version": refused(lambda: client.get_model_version("a", "1")),
        "alias": refused(lambda: client.get_model_version_by_alias("a", "champion")),
        "set alias": refused(lambda: client.set_registered_model_alias("a", "champion", "1")),
        "tag": refused(lambda: client.set_registered_model_tag("a", "x", "y")),
        "describe": refused(lambda: client.update_registered_model("a", "x")),
        "new version": refused(lambda: client.create_model_version("a", info.model_uri)),
        "rename": refused(lambda: client.rename_registered_model("a", "c")),
        "delete": refused(lambda: client.delete_registered_model("a")),
    }

    assert mlflow.register_model(info.model_uri, "a").version == "1"  # the name is free: another model
    assert client.get_registered_model("a").aliases == {}
    client.set_registered_model_alias("a", "champion", "1")
    assert mlflow.pyfunc.load_model("models:/a@champion").predict(["y"]) == ["y!"]
    taken = refused(lambda: client.create_registered_model("a")), refused(lambda: client.create_registered_model("b"))
    client.update_registered_model("b", "still there")
    client.set_model_version_tag("b", "1", "k", "w")
    client.delete_registered_model_alias("b", "champion")
    client.delete_model_version("b", "2")
    assert [each.version for each in client.search_model_versions("name='b' and tags.k = 'w'")] == ["1"]
    client.rename_registered_model("a", "z")
    client.rename_registered_model("b", "a")  # its id, as it happens
    assert client.get_registered_model("a").description == "still there"
    assert [each.name for each in client.search_registered_models(order_by=["name DESC"])] == ["z", "a"]
    client.rename_registered_model("a", "b")
    return {"gone": gone, "taken": taken, "run": info.run_id}


@scenario
def sets_a_guarded_alias() -> Any:
    client = MlflowClient()
    return {"code": refused(lambda: client.set_registered_model_alias("guarded", "production", "1"))}


@scenario
def registers_for_signing() -> Any:
    client = MlflowClient()
    mlflow.set_experiment("signing")
    with mlflow.start_run() as run:
        mlflow.log_text("a model", "model/MLmodel")
        mlflow.log_text("weights", "model/data/w.txt")
    client.create_registered_model("signed")
    for _ in range(2):
        client.create_model_version("signed", f"{run.info.artifact_uri}/model", run.info.run_id)


@scenario
def downloads_what_is_signed() -> Any:
    """What comes of each version."""
    found: list[Any] = []
    for version in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            code = refused(partial(mlflow.artifacts.download_artifacts, f"models:/signed/{version}", dst_path=folder))
            files = [each.relative_to(folder).as_posix() for each in Path(folder).rglob("*") if each.is_file()]
        found.append([code, sorted(files)])
    return found


@scenario
def registers_for_guarding() -> Any:
    MlflowClient().create_registered_model("guarded")
    add_version("guarded")
    return {}


@scenario
def stages_what_is_guarded() -> Any:
    client = MlflowClient()
    client.create_registered_model("staged")
    add_version("staged")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client.transition_model_version_stage("staged", "1", "Staging")
    return {}


@scenario
def moves_a_guarded_stage() -> Any:
    client = MlflowClient()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code = refused(lambda: client.transition_model_version_stage("staged", "1", "Production"))
        return {"code": code, "stage": client.get_model_version("staged", "1").current_stage}


@scenario
def takes_over_a_model() -> Any:
    client = MlflowClient()
    add_version("governed")
    codes = {
        "alias": refused(lambda: client.set_registered_model_alias("governed", "champion", "1")),
        "production": refused(lambda: client.set_registered_model_alias("governed", "production", "1")),
    }
    client.delete_registered_model("governed")
    client.create_registered_model("governed")
    add_version("governed")
    return codes | {"alias of it anew": refused(lambda: client.set_registered_model_alias("governed", "champion", "2"))}


def add_version(name: str) -> None:
    """Registers a version of the model: a file in a run of its own."""
    with mlflow.start_run() as run:
        mlflow.log_text("a model", "model/MLmodel")
    MlflowClient().create_model_version(name, f"runs:/{run.info.run_id}/model", run.info.run_id)


class Hook(BaseHTTPRequestHandler):
    """Checks what MLflow's documentation tells receivers to check."""

    came: ClassVar[list[Any]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        signed = f"{self.headers['X-MLflow-Delivery-Id']}.{self.headers['X-MLflow-Timestamp']}.{body}"
        digest = hmac.new(b"a secret of ours", signed.encode(), hashlib.sha256).digest()
        assert abs(time.time() - int(self.headers["X-MLflow-Timestamp"])) < 300
        right = self.headers["X-MLflow-Signature"] == f"v1,{base64.b64encode(digest).decode()}"
        Hook.came.append({**json.loads(body), "right": right})
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:
        pass


@scenario
def tells_a_webhook() -> Any:
    client = MlflowClient()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/hook"
    every = [
        "registered_model.created",
        "model_version.created",
        "model_version_tag.set",
        "model_version_tag.deleted",
        "model_version_alias.created",
        "model_version_alias.deleted",
    ]
    made = client.create_webhook("chat", url, every, description="of ours", secret="a secret of ours")
    assert (made.name, made.url, str(made.status), made.description) == ("chat", url, "ACTIVE", "of ours")
    assert {str(each) for each in made.events} == set(every)
    assert made.creation_timestamp <= made.last_updated_timestamp
    tried = client.test_webhook(made.webhook_id)
    assert (tried.success, tried.response_status, tried.response_body, tried.error_message) == (True, 200, "ok", None)
    assert client.test_webhook(made.webhook_id, event="model_version_alias.created").success
    samples, Hook.came = Hook.came, []

    with mlflow.start_run() as run:
        mlflow.log_text("x", "model/notes.txt")
    client.create_registered_model("told", tags={"a": "b"}, description="of flights")
    version = client.create_model_version("told", f"runs:/{run.info.run_id}/model", run.info.run_id)
    client.set_model_version_tag("told", version.version, "stage", "tried")
    client.delete_model_version_tag("told", version.version, "stage")
    client.set_registered_model_alias("told", "champion", version.version)
    client.delete_registered_model_alias("told", "champion")
    deadline = time.monotonic() + 30
    while len(Hook.came) < len(every) and time.monotonic() < deadline:
        time.sleep(0.02)
    told = {f"{each['entity']}.{each['action']}": each["data"] for each in Hook.came}
    assert all(each["right"] for each in [*samples, *Hook.came])
    assert told["registered_model.created"] == {"name": "told", "tags": {"a": "b"}, "description": "of flights"}
    assert told["model_version.created"]["run_id"] == run.info.run_id
    assert told["model_version_tag.set"] == {"name": "told", "version": "1", "key": "stage", "value": "tried"}
    assert told["model_version_tag.deleted"] == {"name": "told", "version": "1", "key": "stage"}
    assert told["model_version_alias.created"] == {"name": "told", "alias": "champion", "version": "1"}
    assert told["model_version_alias.deleted"] == {"name": "told", "alias": "champion"}
    client.rename_registered_model("told", "told anew")
    client.set_registered_model_alias("told anew", "champion", version.version)
    while len(Hook.came) == len(every) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert Hook.came[-1]["data"] == {"name": "told anew", "alias": "champion", "version": "1"}

    changed = client.update_webhook(made.webhook_id, name="other", status="DISABLED", events=every[:1])
    assert (changed.name, str(changed.status), [str(each) for each in changed.events]) == (
        "other",
        "DISABLED",
        every[:1],
    )
    assert (changed.url, changed.description) == (url, "of ours")
    second = client.create_webhook("second", f"{url}/2", ["registered_model.created"])
    assert client.get_webhook(second.webhook_id).name == "second"
    first_page = client.list_webhooks(max_results=1)
    rest = client.list_webhooks(max_results=1, page_token=first_page.token)
    assert {each.name for each in [*first_page, *rest]} == {"other", "second"}
    assert not rest.token
    client.delete_webhook(second.webhook_id)
    codes = {
        "gone": refused(lambda: client.get_webhook(second.webhook_id)),
        "no id": refused(lambda: client.get_webhook("none")),
        "near": refused(lambda: client.create_webhook("x", "http://169.254.169.254/", every)),
        "prompt": refused(lambda: client.create_webhook("x", url, ["prompt.created"])),
        "url": refused(lambda: client.update_webhook(made.webhook_id, url="ftp://example.org/")),
    }
    server.shutdown()
    server.server_close()
    return {"codes": codes}


@mlflow.trace(  # type: ignore[untyped-decorator]
    span_type=SpanType.RETRIEVER, attributes={"top_k": 3, "weird key": [1, {"a": None}]}
)
def find(question: str) -> list[Any]:
    return [question, 1.5, {"score": 0.5, "none": None, "text": "naïve \u0000 ☂"}]


@mlflow.trace(name="answer")  # type: ignore[untyped-decorator]
def answer(question: str) -> dict[str, Any]:
    mlflow.update_current_trace(tags={"team": "ops"}, metadata={"user": "ada"}, client_request_id="r-7")
    with mlflow.start_span("inner") as span:
        span.add_event(SpanEvent("seen", attributes={"n": 1}))
        span.set_inputs({"q": question})
        found = find(question)
        span.set_outputs(found)
    if question == "fail":
        raise ValueError("not today")
    return {"found": found}


def trace_twice(experiment: str) -> tuple[str, str, str, str]:
    """Ids of the experiment, of a run, of its trace, and of one that failed outside of it."""
    number = mlflow.set_experiment(experiment).experiment_id
    with mlflow.start_run() as run:
        answer("why")
    first = str(mlflow.get_last_active_trace_id())
    with suppress(ValueError):
        answer("fail")
    second = str(mlflow.get_last_active_trace_id())
    mlflow.flush_trace_async_logging()
    return number, run.info.run_id, first, second


@scenario
def traces_an_application() -> Any:
    """Nested and failing functions come back as they were."""
    _, run, first, second = trace_twice("traced")
    trace = mlflow.get_trace(first)
    info = trace.info
    assert (str(info.state), info.client_request_id, info.trace_metadata["user"]) == ("OK", "r-7", "ada"), info
    assert json.loads(info.request_preview) == {"question": "why"}
    assert info.execution_duration is not None
    by_name = {each.name: each for each in trace.data.spans}
    assert set(by_name) == {"answer", "inner", "find"}
    assert by_name["find"].parent_id == by_name["inner"].span_id
    assert by_name["inner"].parent_id == by_name["answer"].span_id
    assert by_name["find"].span_type == SpanType.RETRIEVER
    assert by_name["find"].get_attribute("weird key") == [1, {"a": None}]
    assert by_name["find"].outputs == ["why", 1.5, {"score": 0.5, "none": None, "text": "naïve \u0000 ☂"}]
    assert by_name["answer"].outputs == {"found": by_name["find"].outputs}
    assert [(each.name, each.attributes) for each in by_name["inner"].events] == [("seen", {"n": 1})]
    failed = mlflow.get_trace(second)
    assert str(failed.info.state) == "ERROR"
    root = next(each for each in failed.data.spans if each.parent_id is None)
    assert root.events[0].attributes["exception.message"] == "not today"

    client = MlflowClient()
    mlflow.set_trace_tag(first, "kept", "yes")
    assert client.get_trace(first).info.tags["kept"] == "yes"
    mlflow.delete_trace_tag(first, "kept")
    assert "kept" not in client.get_trace(first).info.tags
    codes = {
        "no trace": refused(lambda: client.get_trace("tr-" + "1" * 32)),
        "no id": refused(lambda: client.get_trace("tr-x")),
        "no tag": refused(lambda: client.delete_trace_tag(first, "kept")),
        "tag of none": refused(lambda: client.set_trace_tag("tr-" + "1" * 32, "a", "b")),
    }
    return {"codes": codes, "run": run, "trace": first}


@scenario
def searches_traces() -> Any:
    """Traces are found by what they and their spans are."""
    experiment, run, first, second = trace_twice("searched for")

    def found(text: str, **more: Any) -> list[str]:
        listed = mlflow.search_traces(locations=[experiment], filter_string=text, return_type="list", **more)
        return [each.info.trace_id for each in listed]

    begun = mlflow.get_trace(first).info.request_time
    assert found("") == [second, first]
    assert found("", order_by=["timestamp_ms ASC"]) == [first, second]
    assert found("", max_results=1) == [second]
    assert found("trace.status = 'ERROR'") == [second]
    assert found("status = 'OK' AND tags.team = 'ops' AND metadata.user = 'ada'") == [first]
    assert found(f"timestamp_ms >= {begun} AND execution_time_ms < 600000 AND name LIKE 'ans%'") == [second, first]
    assert found("span.name = 'find' AND span.type = 'RETRIEVER' AND span.attributes.top_k = '3'") == [second, first]
    assert found("span.attributes.top_k = '4'") == []
    assert found("client_request_id = 'r-7' AND tag.none IS NULL", run_id=run) == [first]
    assert found(f"request_id IN ('{first}', 'tr-none')") == [first]
    assert len(mlflow.search_traces(locations=[experiment])) == 2  # as a table
    client = MlflowClient()
    page = client.search_traces(locations=[experiment], max_results=1)
    page = client.search_traces(locations=[experiment], max_results=1, page_token=page.token)
    assert [each.info.trace_id for each in page] == [first]
    codes = {
        "filter": refused(lambda: found("nothing.x = 'y'")),
        "no number": refused(lambda: found("timestamp_ms > 'x'")),
        "by feedback": refused(lambda: found("feedback.good = 'yes'")),
        "order": refused(lambda: found("", order_by=["colour"])),
        "experiment": refused(lambda: client.search_traces(locations=["12345"])),
    }
    return {"codes": codes}


@scenario
def deletes_traces() -> Any:
    """By name, by age, and no more than asked for."""
    experiment, _, first, second = trace_twice("deleted")
    client = MlflowClient()
    assert client.delete_traces(experiment, trace_ids=[second, "tr-" + "1" * 32]) == 1
    assert client.delete_traces(experiment, trace_ids=[second]) == 0
    begun = client.get_trace(first).info.request_time
    for _ in range(3):
        answer("again")
    mlflow.flush_trace_async_logging()
    assert client.delete_traces(experiment, max_timestamp_millis=begun) == 1
    now = int(time.time() * 1000) + 1
    assert client.delete_traces(experiment, max_timestamp_millis=now, max_traces=1) == 1
    return {"deleted": [second, first]}


@scenario
def errs() -> Any:
    client = MlflowClient()
    run = client.create_run("0")
    identity = run.info.run_id
    client.log_param(identity, "p", "1")
    return {
        "run": refused(lambda: client.get_run("0" * 32)),
        "run id": refused(lambda: client.get_run("nonsense")),
        "metric of no run": refused(lambda: client.log_metric("f" * 32, "m", 1.0)),
        "param": refused(lambda: client.log_param(identity, "p", "2")),
        "tag": refused(lambda: client.delete_tag(identity, "none")),
        "status": refused(lambda: client.update_run(identity, status="SCHEDULED")),
        "long tag": refused(lambda: client.set_tag(identity, "k" * 251, "v")),
        "experiment": refused(lambda: client.create_run("99")),
        "model": refused(lambda: client.get_logged_model("m-" + "0" * 32)),
        "model id": refused(lambda: client.get_logged_model("nonsense")),
    }


@scenario
def moves_large_files() -> Any:
    os.environ["MLFLOW_MULTIPART_UPLOAD_MINIMUM_FILE_SIZE"] = str(8 << 20)
    os.environ["MLFLOW_MULTIPART_UPLOAD_CHUNK_SIZE"] = str(6 << 20)
    os.environ["MLFLOW_MULTIPART_DOWNLOAD_CHUNK_SIZE"] = str(5 << 20)
    content = os.urandom((20 << 20) + 77)
    with tempfile.TemporaryDirectory() as folder, mlflow.start_run() as run:
        path = Path(folder) / "large.bin"
        path.write_bytes(content)
        mlflow.log_artifact(str(path), "deep/er")
        mlflow.log_artifact(str(path))
    with tempfile.TemporaryDirectory() as folder:
        for name in ("deep/er/large.bin", "large.bin"):
            back = mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path=name, dst_path=folder)
            assert Path(back).read_bytes() == content
    return {"run": run.info.run_id, "size": len(content)}


@scenario
def fills_a_server() -> Any:
    experiment = mlflow.set_experiment("taxi/fares: v1").experiment_id
    mlflow.set_experiment_tag("purpose", "fares")
    client, frame = MlflowClient(), pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [2.0, 4.0, 6.0]})
    with mlflow.start_run(run_name="parent", tags={"team": "ops", "note": "two\nlines"}) as parent:
        mlflow.log_params({"alpha": 0.5, "long": "x" * 5000})
        for step in range(5):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
        mlflow.log_metric("odd", math.nan)
        points = [Metric("many", step * 0.5, 1_700_000_000_000 + step, step) for step in range(2500)]
        for begin in range(0, len(points), 1000):
            client.log_batch(parent.info.run_id, metrics=points[begin : begin + 1000])
        mlflow.log_input(mlflow.data.from_pandas(frame, name="three", targets="b"), context="training")
        mlflow.log_text("hello", "notes/a b.txt")
        mlflow.log_dict({"a": 1}, "conf.json")
        with mlflow.start_run(run_name="child", nested=True) as child:
            mlflow.log_metric("rmse", 2.0)
        line = LogisticRegression().fit(frame[["a"]], [0, 1, 1])
        for _ in range(3):
            mlflow.sklearn.log_model(
                line, name="model", registered_model_name="fares", pip_requirements=["scikit-learn"]
            )
    predicted = [int(each) for each in line.predict(frame[["a"]])]
    client.delete_model_version("fares", "2")
    client.set_registered_model_alias("fares", "champion", "3")
    client.transition_model_version_stage("fares", "1", "Production")
    client.update_registered_model("fares", description="Fares of taxis")
    client.set_registered_model_tag("fares", "owner", "me")
    client.set_model_version_tag("fares", "1", "k", "v")
    running = client.create_run(experiment, run_name="running")
    client.log_metric(running.info.run_id, "loss", 1.0, step=0, timestamp=1_700_000_000_000)
    deleted = client.create_run(experiment, run_name="deleted")
    client.delete_run(deleted.info.run_id)
    return {
        "experiment": experiment,
        "parent": parent.info.run_id,
        "child": child.info.run_id,
        "running": running.info.run_id,
        "deleted": deleted.info.run_id,
        "predicted": predicted,
    }


@scenario
def goes_on() -> Any:
    client = MlflowClient()
    experiment = client.get_experiment_by_name("taxi/fares: v1").experiment_id
    [run] = client.search_runs([experiment], "attributes.run_name = 'running'")
    for step in range(1, 4):
        client.log_metric(run.info.run_id, "loss", 1.0 / step, step=step, timestamp=1_700_000_000_000 + step)
    client.log_text(run.info.run_id, "late", "late.txt")
    client.set_terminated(run.info.run_id, "FAILED", end_time=1_700_000_005_000)
    return run.info.run_id


@scenario
def loads_what_was_imported() -> Any:
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0]})
    found = {
        place: [int(each) for each in mlflow.pyfunc.load_model(place).predict(frame)]
        for place in ("models:/fares@champion", "models:/fares/1", "models:/fares/Production")
    }
    experiment = mlflow.get_experiment_by_name("taxi/fares: v1")
    [run] = mlflow.search_runs([experiment.experiment_id], "attributes.run_name = 'parent'", output_format="list")
    history = MlflowClient().get_metric_history(run.info.run_id, "many")
    text = mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/notes/a b.txt")
    return {"predicted": found, "points": [[each.step, each.timestamp, each.value] for each in history], "text": text}


def main() -> None:
    """Runs what is asked for, until there is nothing more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what MLflow prints goes where its warnings go
    for line in sys.stdin:
        asked = json.loads(line)
        mlflow.set_tracking_uri(asked["uri"])
        mlflow.set_experiment(experiment_id="0")
        try:
            answer = {"result": SCENARIOS[asked["scenario"]]()}
        except BaseException:  # noqa: BLE001 - the test is told
            answer = {"error": traceback.format_exc()}
            while mlflow.active_run():
                mlflow.end_run()
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
