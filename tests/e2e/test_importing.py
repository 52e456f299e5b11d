"""What others recorded comes over whole, and once: from a real MLflow server, from headrace itself, from CSV."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from headrace.api.registry.v1 import service_pb2 as registry
from headrace.api.registry.v1.resources_pb2 import Model
from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.client import Client
from headrace.errors import InvalidArgument
from headrace.imports import MlflowServer, Report, ServerError, import_csv, import_mlflow
from headrace.transfer import upload_bytes
from tests.support.eventually import eventually
from tests.support.mlflow import Script, client_process, mlflow_server
from tests.support.platform import Platform

pytestmark = pytest.mark.timeout(180)
MADE = {"created", "experiments", "runs", "models", "versions", "logged models", "metric points", "files", "aliases"}


class Source:
    """A server with something on it."""

    def __init__(self, url: str, filled: dict[str, Any], script: Script) -> None:
        self.url, self.filled, self.script = url, filled, script


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Source]:
    folder = tmp_path_factory.mktemp("server")
    with mlflow_server(folder) as url, client_process(tmp_path_factory.mktemp("client")) as process:
        script = Script(process, url)
        yield Source(url, script("fills_a_server"), script)


@pytest.fixture
def client(platform: Platform) -> Iterator[Client]:
    with platform.client() as found:
        yield found


def run_of(client: Client, project: str, identity: str) -> resources.Run:
    return client.tracking.GetRun(service.GetRunRequest(name=f"projects/{project}/runs/{UUID(identity)}")).run


def model_of(client: Client, project: str, name: str) -> Model:
    return client.registry.GetModel(registry.GetModelRequest(name=f"projects/{project}/models/{name}")).model


def points_of(client: Client, run: resources.Run, key: str) -> list[tuple[int, int, float]]:
    found = client.tracking.GetMetricHistory(service.GetMetricHistoryRequest(run=run.name, key=key))
    return list(zip(found.steps, found.times_us, found.values, strict=True))


def events_of(client: Client, project: str) -> int:
    """Events of the project in the logs of tracking and registry: what grows when anything is written."""
    runs = client.tracking.SearchRuns(service.SearchRunsRequest(parent=f"projects/{project}", page_size=1000)).runs
    listed = registry.ListModelsRequest(parent=f"projects/{project}")
    models = client.registry.ListModels(listed).models
    return sum(run.revision for run in runs) + sum(len(model.versions) for model in models)


def bring(client: Client, source: Source, project: str, **options: Any) -> Report:
    with MlflowServer(source.url) as server:
        return import_mlflow(client, server, project=project, **options)


@pytest.mark.mlflow
def test_everything_comes_over_from_an_mlflow_server(client: Client, source: Source, project: str) -> None:
    told: list[int] = []
    report = bring(client, source, project, tell=lambda progress: told.append(progress.done))
    assert [each.what for each in report.left_out] == [f"run {source.filled['deleted']}"]
    assert max(told) == len(told)

    run, child = (run_of(client, project, source.filled[each]) for each in ("parent", "child"))
    assert (run.display_name, run.status) == ("parent", resources.RUN_STATUS_FINISHED)
    assert dict(run.params) == {"alpha": "0.5", "long": "x" * 5000}
    assert (run.tags["team"], run.tags["note"]) == ("ops", "two\nlines")
    assert child.parent_run == run.name
    assert points_of(client, run, "many") == [
        (step, (1_700_000_000_000 + step) * 1000, step * 0.5) for step in range(2500)
    ]
    [(_, _, odd)] = points_of(client, run, "odd")
    assert odd != odd  # noqa: PLR0124 - NaN
    [dataset] = run.datasets
    assert (dataset.name, dataset.context) == ("three", "training")
    assert json.loads(dataset.profile) == {"num_rows": 3, "num_elements": 6}
    assert [each.path for each in run.artifacts] == ["conf.json", "notes/a b.txt"]
    assert len(run.model_outputs) == 3

    experiment = client.tracking.GetExperiment(service.GetExperimentRequest(name=run.experiment)).experiment
    assert (experiment.display_name, experiment.tags["purpose"]) == ("taxi/fares: v1", "fares")

    model = model_of(client, project, "fares")
    kept = [each.number for each in model.versions if not each.HasField("delete_time")]
    assert kept == [1, 3], "numbers stay as they were, though the server has no version 2 any more"
    assert model.versions[0].run == run.name
    assert model.versions[0].tags["k"] == "v"
    assert (model.description, model.tags["owner"]) == ("Fares of taxis", "me")
    assert {each.alias: each.version for each in model.aliases} == {"champion": 3, "production": 1}


@pytest.mark.mlflow
def test_a_second_import_adds_nothing_and_a_later_one_what_is_new(
    client: Client, source: Source, project: str, platform: Platform
) -> None:
    first = bring(client, source, project)
    running = eventually(
        lambda: run_of(client, project, source.filled["running"]), lambda run: run.revision > 1
    )  # its metrics are sealed within a second
    before = events_of(client, project)
    second = bring(client, source, project)
    assert +second.added == {}
    assert second.there["metric points"] == first.added["metric points"]
    assert events_of(client, project) == before
    if running.status == resources.RUN_STATUS_RUNNING:  # once for all tests of the server
        source.script("goes_on")
        third = bring(client, source, project)
        assert dict(+third.added) == {"metric points": 3, "files": 1, "bytes of files": 4}
        assert bring(client, source, project).added.total() == 0
    run = run_of(client, project, source.filled["running"])
    assert (run.status, run.end_time.ToMilliseconds()) == (resources.RUN_STATUS_FAILED, 1_700_000_005_000)
    assert [value for _, _, value in points_of(client, run, "loss")] == [1.0, 1.0, 0.5, 1 / 3]


@pytest.mark.mlflow
def test_a_dry_run_counts_the_same_and_writes_nothing(client: Client, source: Source, project: str) -> None:
    dry = bring(client, source, project, dry_run=True)
    assert (
        client.tracking.ListExperiments(service.ListExperimentsRequest(parent=f"projects/{project}")).experiments == []
    )
    assert client.registry.ListModels(registry.ListModelsRequest(parent=f"projects/{project}")).models == []
    real = bring(client, source, project)
    assert {kind: dry.added[kind] for kind in real.added if kind != "bytes of files"} == {
        kind: count for kind, count in real.added.items() if kind != "bytes of files"
    }


@pytest.mark.mlflow
def test_what_is_named_comes_alone(client: Client, source: Source, project: str) -> None:
    report = bring(client, source, project, models=["far*", "none"])
    assert "runs" not in report.added
    assert report.added["versions"] == 2
    assert [each.what for each in report.left_out] == ["model 'none'"]
    report = bring(client, source, project, experiments=["taxi/*"])
    assert (report.added["experiments"], "models" in report.added) == (1, False)


@pytest.mark.mlflow
def test_an_import_that_was_killed_is_completed_by_the_next(
    client: Client, source: Source, project: str, platform: Platform
) -> None:
    command = [
        sys.executable,
        "-c",
        "from headrace.cli import main; main()",
        "import",
        "mlflow",
        source.url,
        "--project",
        project,
        "--json",
    ]
    environment = {**os.environ, "HEADRACE_DATA": str(platform.folder)}
    whole = bring(client, source, f"{project}-whole")
    killed = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    parent = f"projects/{project}"
    request = service.SearchRunsRequest(parent=parent)
    eventually(lambda: killed.poll() is not None or client.tracking.SearchRuns(request).runs)
    killed.send_signal(signal.SIGKILL)
    killed.wait(timeout=10)
    done = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=60)
    told = json.loads(done.stdout)
    for kind in MADE & set(whole.added):
        assert told["added"].get(kind, 0) + told["there"].get(kind, 0) == whole.added[kind], kind
    run, other = (run_of(client, each, source.filled["parent"]) for each in (project, f"{project}-whole"))
    assert points_of(client, run, "many") == points_of(client, other, "many")
    assert run.params == other.params
    assert [(each.path, each.object.sha256) for each in run.artifacts] == [
        (each.path, each.object.sha256) for each in other.artifacts
    ]


@pytest.mark.mlflow
def test_mlflows_client_finds_in_headrace_what_it_had(
    client: Client, source: Source, project: str, platform: Platform, tmp_path: Path
) -> None:
    bring(client, source, project)
    with client_process(tmp_path, platform.connection.token) as process:
        found = Script(process, f"{platform.connection.gateway_url}/projects/{project}")("loads_what_was_imported")
    assert set(map(tuple, found["predicted"].values())) == {tuple(source.filled["predicted"])}
    assert found["points"] == [[step, 1_700_000_000_000 + step, step * 0.5] for step in range(2500)]
    assert found["text"] == "hello"


@pytest.mark.mlflow
def test_headrace_is_a_source_too(client: Client, source: Source, project: str, platform: Platform) -> None:
    bring(client, source, project)
    parent, odd = f"projects/{project}", "odd/a#b?c%2e &+.txt"
    stored = upload_bytes(client.tracking, parent, b"odd", media_type="text/plain")
    name = f"{parent}/runs/{UUID(source.filled['child'])}"
    artifact = resources.Artifact(path=odd, object=stored)
    client.tracking.LogArtifact(service.LogArtifactRequest(command_id=str(uuid4()), run=name, artifact=artifact))
    url = f"{platform.connection.gateway_url}/projects/{project}"
    with MlflowServer(url, token=platform.connection.token) as server:
        copied = import_mlflow(client, server, project=f"{project}-copy")
        again = import_mlflow(client, server, project=project)
    assert copied.left_out == []
    run, copy = (run_of(client, each, source.filled["parent"]) for each in (project, f"{project}-copy"))
    assert points_of(client, run, "many") == points_of(client, copy, "many")
    assert run_of(client, f"{project}-copy", source.filled["child"]).artifacts[0].path == odd
    versions = [model_of(client, each, "fares").versions for each in (project, f"{project}-copy")]
    assert [each.artifact.sha256 for each in versions[0]] != []
    assert [each.number for each in versions[0]] == [each.number for each in versions[1]]
    assert again.added.total() == 0, "a project imported into itself finds itself"


def test_who_is_no_mlflow_server_is_told_apart(client: Client, project: str, platform: Platform) -> None:
    with pytest.raises(InvalidArgument, match="address of an MLflow server"):
        MlflowServer("ftp://example.org")
    with pytest.raises(ServerError, match="401"):
        import_mlflow(client, MlflowServer(platform.connection.gateway_url), project=project)


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_each_row_of_a_table_is_a_run(client: Client, project: str, tmp_path: Path) -> None:
    given = str(uuid4())
    table = write(
        tmp_path / "runs.csv",
        "run_id,name,start_time,end_time,status,params.rate,metrics.loss,metrics.acc,tags.team,artifact_uri",
        f"{given},first,2026-01-02T03:04:05+00:00,2026-01-02 03:05:05,FAILED,0.1,0.25,nan,ops,file:/x",
        ",second,1767323045000,,,0.2,0.5,many,,",
        ",second,1767323045000,,,0.2,0.5,many,,",
        ",third,yesterday,,,0.3,0.5,,,",
    )
    report = import_csv(client, table, experiment="from a table", project=project)
    assert report.added["runs"] == 3
    assert {each.what for each in report.left_out} == {
        "column 'artifact_uri'",
        "metric 'acc' of row 2",
        "metric 'acc' of row 3",
        "row 4",
    }
    run = run_of(client, project, given)
    assert (run.display_name, run.status, dict(run.params)) == ("first", resources.RUN_STATUS_FAILED, {"rate": "0.1"})
    assert run.start_time.ToJsonString() == "2026-01-02T03:04:05Z"
    assert points_of(client, run, "loss") == [(0, 1767323105000000, 0.25)]
    assert run.tags["team"] == "ops"
    again = import_csv(client, table, experiment="from a table", project=project)
    assert again.added.total() == 0
    with table.open("a") as file:
        file.write(",fourth,1767323045000,,,0.4,0.5,,,\n")
    assert import_csv(client, table, experiment="from a table", project=project).added["runs"] == 1


@pytest.mark.parametrize(
    "content", [b"", b"a,b\n1,2\n", b"params.a,params.a\n1,2\n", b"params.a\n\xff\n", b'params.a\n"x']
)
def test_what_is_no_table_of_runs_is_refused(client: Client, project: str, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "runs.csv").write_bytes(content)
    with pytest.raises(InvalidArgument):
        import_csv(client, tmp_path / "runs.csv", experiment="none", project=project)
    listed = service.ListExperimentsRequest(parent=f"projects/{project}")
    assert client.tracking.ListExperiments(listed).experiments == []
