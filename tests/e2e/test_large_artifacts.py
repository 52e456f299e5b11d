"""Large files go straight to the object store in parts, come back whole, and nothing else is taken for them."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx2
import pytest

import headrace
from headrace import transfer
from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.client import Client
from headrace.errors import FailedPrecondition, InvalidArgument, NotFound, rpc_errors
from headrace.tracking import download_artifact
from headrace.transfer import TransferRefused, digest_file, upload_file
from tests.support.platform import Platform

pytestmark = pytest.mark.timeout(120)
SIZE = 70 * 1024 * 1024 + 123


@pytest.fixture
def client(platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("HEADRACE_DATA", str(platform.folder))
    monkeypatch.setenv("HEADRACE_SPOOL", str(tmp_path / "spool"))
    with platform.client() as found:
        yield found


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large.bin"
    path.write_bytes(os.urandom(SIZE))
    return path


def begin(client: Client, project: str, path: Path, **given: str) -> service.BeginUploadResponse:
    sha256, size = digest_file(path)
    request = service.BeginUploadRequest(parent=f"projects/{project}", sha256=sha256, size_bytes=size, **given)
    return client.tracking.BeginUpload(request)


def complete(client: Client, project: str, path: Path, upload: str) -> ObjectRef:
    sha256, size = digest_file(path)
    request = service.CompleteUploadRequest(
        parent=f"projects/{project}", sha256=sha256, size_bytes=size, upload_id=upload
    )
    with rpc_errors():
        return client.tracking.CompleteUpload(request).object


def part(path: Path, number: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek((number - 1) * length)
        return file.read(length)


def log(client: Client, project: str, stored: ObjectRef) -> resources.Run:
    name = f"projects/{project}/runs/{uuid4()}"
    start = service.StartRunRequest(
        command_id=str(uuid4()), name=name, experiment=f"projects/{project}/experiments/large"
    )
    client.tracking.StartRun(start)
    artifact = resources.Artifact(path="large.bin", object=stored)
    with rpc_errors():
        request = service.LogArtifactRequest(command_id=str(uuid4()), run=name, artifact=artifact)
        return client.tracking.LogArtifact(request).run


def test_a_large_file_of_a_run_goes_in_parts_and_comes_back(
    client: Client, project: str, large: Path, tmp_path: Path
) -> None:
    with headrace.start_run("large", project=project) as run:
        stored = run.log_artifact(large)
    assert (run.rejected, stored.size_bytes) == (0, SIZE)
    download_artifact(run.name, "large.bin", tmp_path / "back.bin")
    assert (tmp_path / "back.bin").read_bytes() == large.read_bytes()
    assert not list((tmp_path / "spool" / "blobs").iterdir()), "nothing is kept of what was sent"


def test_an_upload_that_broke_off_goes_on_with_the_parts_that_are_missing(
    client: Client, project: str, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = begin(client, project, large)
    assert len(begun.parts) == 5
    for each in begun.parts[:3]:
        content = part(large, each.number, begun.part_size_bytes)
        httpx2.put(each.url, content=content, timeout=30).raise_for_status()
    again = begin(client, project, large, upload_id=begun.upload_id)
    assert [each.number for each in again.parts if each.url] == [4, 5]
    with pytest.raises(FailedPrecondition, match="2 parts are missing, such as 4, 5"):
        complete(client, project, large, begun.upload_id)
    noted, sent = tmp_path / "noted", list[int]()
    noted.write_text(begun.upload_id)
    put = transfer._put

    def counted(url: str, body: Any, size: int, kind: str) -> None:
        sent.append(size)
        put(url, body, size, kind)

    monkeypatch.setattr(transfer, "_put", counted)
    stored = upload_file(client.tracking, f"projects/{project}", large, media_type="x/y", resume=noted)
    assert sorted(sent) == [SIZE - 4 * begun.part_size_bytes, begun.part_size_bytes]
    assert complete(client, project, large, begun.upload_id) == ObjectRef(
        uri=stored.uri, sha256=stored.sha256, size_bytes=SIZE
    ), "a repeat does no harm"
    assert log(client, project, stored).artifacts[0].object.sha256 == stored.sha256
    assert begin(client, project, large).upload_id == "", "what the store has is not sent again"


def test_a_part_that_came_half_spoils_nothing(client: Client, project: str, large: Path, tmp_path: Path) -> None:
    begun = begin(client, project, large)
    url, length = urlsplit(begun.parts[0].url), begun.part_size_bytes
    with socket.create_connection((url.hostname, url.port), timeout=10) as line:
        head = f"PUT {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Length: {length}\r\n\r\n"
        line.sendall(head.encode() + part(large, 1, length // 2))
    noted = tmp_path / "noted"
    noted.write_text(begun.upload_id)
    stored = upload_file(client.tracking, f"projects/{project}", large, media_type="x/y", resume=noted)
    assert log(client, project, stored).artifacts[0].object.size_bytes == SIZE


def test_parts_of_other_bytes_are_refused_by_the_digest(client: Client, project: str, large: Path) -> None:
    begun = begin(client, project, large)
    for each in begun.parts:
        content = part(large, each.number, begun.part_size_bytes)
        changed = bytes(len(content)) if each.number == 2 else content
        httpx2.put(each.url, content=changed, timeout=30).raise_for_status()
    stored = complete(client, project, large, begun.upload_id)
    with pytest.raises(InvalidArgument, match="upload"):
        log(client, project, stored)
    assert begin(client, project, large).upload_id, "and the right ones may be sent"
    mended = upload_file(client.tracking, f"projects/{project}", large, media_type="x/y")
    assert log(client, project, mended).artifacts[0].object.sha256 == hashlib.sha256(large.read_bytes()).hexdigest()


def test_an_upload_belongs_to_its_project_and_digest(client: Client, project: str, large: Path) -> None:
    begun = begin(client, project, large)
    other = begin(client, f"{project}-b", large, upload_id=begun.upload_id)
    assert other.upload_id != begun.upload_id
    with pytest.raises(NotFound):
        complete(client, f"{project}-b", large, begun.upload_id)
    for upload in (begun.upload_id, other.upload_id, "none"):
        sha256, _ = digest_file(large)
        abort = service.AbortUploadRequest(parent=f"projects/{project}", sha256=sha256, upload_id=upload)
        client.tracking.AbortUpload(abort)
    with pytest.raises(NotFound):
        complete(client, project, large, begun.upload_id)


def test_an_artifact_that_is_swapped_afterwards_is_not_downloaded(client: Client, project: str, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.write_bytes(b"right" * 100)
    sha256, size = digest_file(small)
    asked = service.PresignUploadRequest(parent=f"projects/{project}", sha256=sha256, size_bytes=size)
    url = client.tracking.PresignUpload(asked).url
    stored = upload_file(client.tracking, f"projects/{project}", small, media_type="x/y")
    run = log(client, project, stored)
    httpx2.put(url, content=b"wrong" * 100).raise_for_status()  # the URL is good for some minutes yet
    with pytest.raises(TransferRefused, match="not the bytes of its digest"):
        download_artifact(run.name, "large.bin", tmp_path / "back")
    assert not (tmp_path / "back").exists()
