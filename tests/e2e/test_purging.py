"""Runs are purged on a running platform: by the command line, and by a tracker that is killed meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from uuid import uuid4

import grpc
import httpx2
import pytest

import headrace
from headrace.api.audit.v1 import service_pb2 as audit
from headrace.api.registry.v1 import service_pb2 as registry
from headrace.api.registry.v1.resources_pb2 import MODEL_FORMAT_ONNX
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.client import Client
from headrace.errors import HeadraceError, NotFound, PermissionDenied
from tests.support.platform import Platform
from tests.support.serving import signature

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]

PROGRAM = str(Path(sys.executable).with_name("headrace"))


@pytest.fixture
def connected(platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """The platform, found by the SDK, with a spool of the test's own."""
    monkeypatch.setenv("HEADRACE_DATA", str(platform.folder))
    monkeypatch.setenv("HEADRACE_SPOOL", str(tmp_path / "spool"))
    return platform


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([PROGRAM, "runs", *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


def is_there(url: str) -> bool:
    status = httpx2.get(url, timeout=30).status_code
    assert status in (HTTPStatus.OK, HTTPStatus.NOT_FOUND)
    return status == HTTPStatus.OK


def url_of(client: Client, run: str, path: str) -> str:
    return client.tracking.PresignDownload(service.PresignDownloadRequest(run=run, path=path)).url


def test_a_purged_run_is_gone_and_what_a_version_needs_stays(connected: Platform, project: str) -> None:
    unique = uuid4().bytes
    with headrace.start_run("x", project=project) as run:
        run.log_metric("loss", 1.0)
        print("hello")
        run.log_bytes(b"mine " + unique, "mine.bin")
        model = run.log_model(b"model " + unique)
    with connected.client() as client:
        urls = {path: url_of(client, run.name, path) for path in ("mine.bin", "model.onnx")}
        version = registry.CreateVersionRequest(
            command_id=str(uuid4()),
            model=f"projects/{project}/models/kept",
            create_model=True,
            format=MODEL_FORMAT_ONNX,
            artifact=model,
            signature=signature(),
        )
        client.registry.CreateVersion(version)
    assert "put away" in command("delete", run.id, "--project", project).stdout
    assert "No run" in command("purge", "--older-than", "1d", "--project", project).stdout
    told = json.loads(command("purge", "--older-than", "0s", "--dry-run", "--project", project, "--json").stdout)
    assert [each["run"] for each in told["runs"]] == [run.name]
    freed = {key: int(told[key]) for key in ("freed_count", "freed_bytes")}
    with connected.client() as client:
        artifacts = client.tracking.GetRun(service.GetRunRequest(name=run.name)).run.artifacts
    own = [each.object.size_bytes for each in artifacts if each.path != "model.onnx"]
    assert freed == {"freed_count": len(own), "freed_bytes": sum(own)}
    assert all(is_there(url) for url in urls.values())
    purged = json.loads(command("purge", "--older-than", "0s", "--project", project, "--json").stdout)
    assert [(each["run"], each["point_count"]) for each in purged["runs"]] == [(run.name, "1")]
    assert purged.get("waiting_count", "0") == "0"
    assert {key: int(purged[key]) for key in freed} == freed
    assert (is_there(urls["mine.bin"]), is_there(urls["model.onnx"])) == (False, True)
    with pytest.raises(NotFound), connected.client() as client:
        client.tracking.GetRun(service.GetRunRequest(name=run.name))
    with connected.client() as client:
        log = client.log("tracking").ReadStream(audit.ReadStreamRequest(stream_id=run.name, page_size=100))
    assert log.entries[-1].type == "headrace.tracking.v1.RunPurged"
    assert log.entries[-1].meta.actor == connected_actor(connected)


def connected_actor(platform: Platform) -> str:
    tokens = json.loads(platform.stack.folder.tokens.read_text())
    return next(str(each["principal"]) for each in tokens if "operator" in each["roles"])


def test_only_operators_purge(connected: Platform, project: str) -> None:
    request = service.PurgeRunsRequest(command_id=str(uuid4()), parent=f"projects/{project}")
    request.deleted_before.GetCurrentTime()
    person = connected.connection_of_person(f"p{uuid4().hex[:6]}")
    with pytest.raises(PermissionDenied, match="operator"), Client(person) as client:
        client.tracking.PurgeRuns(request)


def test_a_tracker_that_is_killed_while_it_purges_goes_on(connected: Platform, project: str) -> None:
    runs: list[headrace.Run] = []
    for number in range(12):
        with headrace.start_run("x", project=project) as run:
            run.log_metric("loss", number)
            run.log_bytes(b"%d " % number + uuid4().bytes, "own.bin")
        runs.append(run)
    with connected.client() as client:
        urls = [url_of(client, run.name, "own.bin") for run in runs]
    command("delete", *(run.id for run in runs), "--project", project)
    request = service.PurgeRunsRequest(command_id=str(uuid4()), parent=f"projects/{project}")
    request.deleted_before.FromDatetime(datetime.now(UTC) + timedelta(days=1))

    def purge() -> None:
        with connected.client() as client, suppress(grpc.RpcError, HeadraceError):
            client.tracking.PurgeRuns(request, timeout=60)

    calling = threading.Thread(target=purge)
    calling.start()
    with connected.client() as client:
        while client.tracking.PurgeRuns(
            service.PurgeRunsRequest(
                command_id=str(uuid4()),
                parent=request.parent,
                deleted_before=request.deleted_before,
                limit=100,
                validate_only=True,
            )
        ).runs[6:]:
            pass
    killed = connected.kill("tracking")
    calling.join()
    connected.wait_ready("tracking", other_than=killed)
    command("purge", "--older-than", "0s", "--project", project)
    again = json.loads(command("purge", "--older-than", "0s", "--project", project, "--json").stdout)
    assert again.get("runs", []) == []
    assert [is_there(url) for url in urls] == [False] * 12
    with connected.client() as client:
        for run in runs:
            log = client.log("tracking").ReadStream(audit.ReadStreamRequest(stream_id=run.name, page_size=100))
            assert [each.type for each in log.entries].count("headrace.tracking.v1.RunPurged") == 1
