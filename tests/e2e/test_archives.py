"""A run or a model goes to one file and comes back elsewhere: whole, once, and over nothing that is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

import headrace
from headrace.api.registry.v1 import resources_pb2 as models
from headrace.api.registry.v1 import service_pb2 as registry
from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.bundles import BundleDamaged, export_models, export_runs, import_bundle
from headrace.client import Client
from headrace.errors import NotFound, rpc_errors
from headrace.transfer import fetch, upload_bytes
from tests.support.platform import Platform

pytestmark = pytest.mark.timeout(120)
MANIFEST = "application/vnd.headrace.manifest+json"


@pytest.fixture
def client(platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("HEADRACE_DATA", str(platform.folder))
    monkeypatch.setenv("HEADRACE_SPOOL", str(tmp_path / "spool"))
    with platform.client() as found:
        yield found


def record(project: str, *, run_id: UUID | None = None) -> str:
    """A run of everything, which is part of another; returns its resource name."""
    with (
        headrace.start_run("fares: all", name="parent", project=project) as parent,
        headrace.start_run("fares: all", name="first", project=project, parent=parent, run_id=run_id) as run,
    ):
        run.log_params({"rate": 0.1})
        run.set_tags({"team": "ops"})
        for step in range(300):
            run.log_metric("loss", 1 / (step + 1), step=step)
        run.log_metric("odd", float("nan"), step=1)
        run.log_metric("odd", float("-inf"), step=2)
        run.log_dataset({"a": [1.0, 2.0]}, "tiny")
        run.log_bytes(b"\x00weights", "model/weights.bin")
        run.log_bytes(b"same", "notes/a.txt")
        run.log_bytes(b"same", "notes/b#%2e ?.txt")
    return run.name


def get(client: Client, name: str) -> resources.Run:
    return client.tracking.GetRun(service.GetRunRequest(name=name)).run


def moved(name: str, project: str) -> str:
    return "/".join(["projects", project, *name.split("/")[2:]])


def points(client: Client, name: str, key: str) -> list[tuple[int, int, str]]:
    found = client.tracking.GetMetricHistory(service.GetMetricHistoryRequest(run=name, key=key))
    return [
        (step, time_us, repr(value))
        for step, time_us, value in zip(found.steps, found.times_us, found.values, strict=True)
    ]


def test_a_run_comes_back_elsewhere(client: Client, project: str, tmp_path: Path) -> None:
    name, other = record(project), f"{project}-b"
    written = export_runs(client, [name], tmp_path / "run.zip")
    assert len(written.runs) == 2, "with the run it is part of"
    assert import_bundle(client, tmp_path / "run.zip", project=other, dry_run=True).added["runs"] == 2
    with pytest.raises(NotFound), rpc_errors():
        get(client, moved(name, other))
    report = import_bundle(client, tmp_path / "run.zip", project=other)
    assert report.left_out == []
    run, copy = get(client, name), get(client, moved(name, other))
    assert copy.parent_run == moved(run.parent_run, other)
    assert points(client, run.name, "loss") == points(client, copy.name, "loss")
    assert points(client, run.name, "odd") == points(client, copy.name, "odd")
    assert [(each.path, each.object.sha256) for each in run.artifacts] == [
        (each.path, each.object.sha256) for each in copy.artifacts
    ]
    for field in ("display_name", "status", "start_time", "end_time", "code", "environment", "params", "datasets"):
        assert getattr(run, field) == getattr(copy, field), field
    assert copy.tags["team"] == "ops"
    again = import_bundle(client, tmp_path / "run.zip", project=other)
    assert again.added.total() == 0, "a repeat adds nothing"
    assert get(client, copy.name) == copy
    home = import_bundle(client, tmp_path / "run.zip", project=project)
    assert home.added.total() == 0, "where it came from it is there"
    assert get(client, name) == run
    back = export_runs(client, [copy.name], tmp_path / "back.zip")
    assert len(back.runs) == 2
    assert import_bundle(client, tmp_path / "back.zip", project=project).added.total() == 0, "a copy is known again"


def test_an_id_that_is_taken_is_not_taken_away(client: Client, project: str, tmp_path: Path) -> None:
    identity = uuid4()
    name, other = record(project, run_id=identity), f"{project}-b"
    export_runs(client, [name], tmp_path / "run.zip")
    with headrace.start_run("mine", project=other, run_id=identity) as mine:
        mine.log_params({"rate": "another"})
    before = get(client, mine.name)
    report = import_bundle(client, tmp_path / "run.zip", project=other)
    [line] = report.left_out
    assert line.what == f"the id of {name}"
    assert get(client, mine.name) == before
    new = get(client, f"projects/{other}/runs/{line.why.split()[-2]}")
    assert dict(new.params) == {"rate": "0.1"}
    assert import_bundle(client, tmp_path / "run.zip", project=other).added.total() == 0


def test_a_file_that_was_changed_stops_the_import_and_the_whole_one_completes_it(
    client: Client, project: str, tmp_path: Path
) -> None:
    name, other = record(project), f"{project}-b"
    export_runs(client, [name], tmp_path / "run.zip")
    with zipfile.ZipFile(tmp_path / "run.zip") as file:
        members = {info.filename: file.read(info) for info in file.infolist()}
    last = next(path for path in members if path.startswith("objects/") and members[path] == b"same")
    with zipfile.ZipFile(tmp_path / "changed.zip", "w") as file:
        for path, content in members.items():
            file.writestr(path, b"evil" if path == last else content)
    with pytest.raises(BundleDamaged):
        import_bundle(client, tmp_path / "changed.zip", project=other)
    assert [each.path for each in get(client, moved(name, other)).artifacts if "notes" in each.path] == []
    import_bundle(client, tmp_path / "run.zip", project=other)
    run, copy = get(client, name), get(client, moved(name, other))
    assert [each.path for each in copy.artifacts] == [each.path for each in run.artifacts]
    assert copy.status == resources.RUN_STATUS_FINISHED
    assert points(client, run.name, "loss") == points(client, copy.name, "loss")


def register(client: Client, project: str, run: str) -> None:
    """Three versions, the second deleted: a package of two files, with an alias on the last."""
    parent = f"projects/{project}"
    stored = {each.path: each.object for each in get(client, run).artifacts}
    files = [
        {"path": path, "uri": each.uri, "sha256": each.sha256, "size_bytes": each.size_bytes, "media_type": ""}
        for path, each in (("MLmodel", stored["notes/a.txt"]), ("weights.bin", stored["model/weights.bin"]))
    ]
    package = upload_bytes(client.tracking, parent, json.dumps({"files": files}).encode(), media_type=MANIFEST)
    create = registry.CreateModelRequest(command_id=str(uuid4()), name=f"{parent}/models/Fares 1", open_aliases=True)
    client.registry.CreateModel(create)
    for number in (1, 2, 3):
        request = registry.CreateVersionRequest(
            command_id=str(uuid4()),
            model=create.name,
            run=run,
            artifact=package,
            format=models.MODEL_FORMAT_MLFLOW,
            description=f"number {number}",
            tags={"number": str(number)},
        )
        client.registry.CreateVersion(request)
    deleted = registry.DeleteVersionRequest(command_id=str(uuid4()), version=f"{create.name}/versions/2")
    client.registry.DeleteVersion(deleted)
    promote = registry.PromoteVersionRequest(
        command_id=str(uuid4()), version=f"{create.name}/versions/3", alias="champion", expected_revision=-1
    )
    client.registry.PromoteVersion(promote)


def test_a_model_comes_back_elsewhere_with_the_run_that_made_it(client: Client, project: str, tmp_path: Path) -> None:
    name, other = record(project), f"{project}-b"
    register(client, project, name)
    model = f"projects/{project}/models/Fares 1"
    rename = registry.RenameModelRequest(command_id=str(uuid4()), model=model, display_name="Fares of all")
    client.registry.RenameModel(rename)
    written = export_models(client, [model], tmp_path / "model.zip")
    assert name in written.runs
    report = import_bundle(client, tmp_path / "model.zip", project=other)
    assert report.left_out == []
    copy = client.registry.GetModel(registry.GetModelRequest(name=moved(model, other))).model
    assert copy.display_name == "Fares of all"
    kept = [each for each in copy.versions if not each.HasField("delete_time")]
    assert [(each.number, each.description, each.run) for each in kept] == [
        (1, "number 1", moved(name, other)),
        (3, "number 3", moved(name, other)),
    ]
    assert {each.alias: each.version for each in copy.aliases} == {"champion": 3}
    listed = bytearray()
    presigned = client.registry.PresignArtifact(registry.PresignArtifactRequest(version=kept[0].name))
    fetch(presigned.url, presigned.artifact, listed.extend)
    for each in json.loads(listed)["files"]:
        assert each["uri"].startswith(f"{other}/")
        content = bytearray()
        asked = registry.PresignArtifactRequest(version=kept[0].name, sha256=each["sha256"])
        part = client.registry.PresignArtifact(asked)
        fetch(part.url, part.artifact, content.extend)
        assert bytes(content) == {"MLmodel": b"same", "weights.bin": b"\x00weights"}[each["path"]]
    assert import_bundle(client, tmp_path / "model.zip", project=other).added.total() == 0
    assert import_bundle(client, tmp_path / "model.zip", project=project).added.total() == 0


def test_the_commands(client: Client, project: str, tmp_path: Path, platform: Platform) -> None:
    name, environment = record(project), {**os.environ, "HEADRACE_DATA": str(platform.folder)}
    register(client, project, name)

    def call(*words: str) -> dict[str, Any]:
        command = [sys.executable, "-c", "from headrace.cli import main; main()", *words, "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, check=True, timeout=60, cwd=tmp_path)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    identity = name.rpartition("/")[2]
    assert len(call("runs", "export", identity, "-o", "run.zip", "--project", project)["runs"]) == 2
    assert call("models", "export", "Fares 1", "-o", "model.zip", "--project", project)["models"] != []
    report = call("import", "archive", "model.zip", "--project", f"{project}-b")
    assert report["left_out"] == []
    again = call("import", "archive", "run.zip", "--project", f"{project}-b")
    assert again["added"] == {}
