"""Large artifacts: up and down by presigned URL, beside what the object store itself does with the same bytes."""

from __future__ import annotations

import os
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.transfer import download_file, upload_file
from headrace_local.external import DEFAULT_BUCKET
from headrace_local.s3 import ACCESS_KEY, ObjectStoreAddress
from tests.bench.figures import Figure
from tests.support.platform import Platform

_UP_BOUND = "the store, then SHA-256 and one reading by the tracker"


def measure(platform: Platform, *, quick: bool) -> Iterator[Figure]:
    """256 MB of random bytes: one PUT and GET of the bare store, an upload in parts, its recording, a download."""
    size = (64 if quick else 256) * 2**20
    with tempfile.TemporaryDirectory(dir=platform.folder) as folder, platform.client() as client:
        path = Path(folder) / "large"
        path.write_bytes(os.urandom(size))
        put, get = _presigned(platform)
        bare_up = _rate(size, lambda: _put(put, path))
        bare_down = _rate(size, lambda: _get(get, Path(folder) / "bare"))
        stored = resources.Artifact(path="large")

        def upload() -> None:
            stored.object.CopyFrom(upload_file(client.tracking, "projects/bench", path, media_type=""))

        up = _rate(size, upload)
        run = f"projects/bench/runs/{uuid4()}"
        start = service.StartRunRequest(
            command_id=str(uuid4()), name=run, experiment="projects/bench/experiments/bench"
        )
        client.tracking.StartRun(start)
        log = service.LogArtifactRequest(command_id=str(uuid4()), run=run, artifact=stored)
        verified = _rate(size, lambda: client.tracking.LogArtifact(log, timeout=120))
        asked = service.PresignDownloadRequest(run=run, path="large")
        target = Path(folder) / "back"
        down = _rate(
            size, lambda: download_file(lambda: client.tracking.PresignDownload(asked).url, stored.object, target)
        )
    what = f"artifact of {size >> 20} MiB"
    yield Figure(f"{what}, the store alone, up / down", f"{bare_up:,.0f} / {bare_down:,.0f} MB/s", "", "the store")
    yield Figure(
        f"{what}, up in parts / down, both hashed", f"{up:,.0f} / {down:,.0f} MB/s", "0.8 of the store's", _UP_BOUND
    )
    yield Figure(
        f"{what}, of the store's own speed, up / down", f"{up / bare_up:.2f} / {down / bare_down:.2f}", "0.8", ""
    )
    yield Figure(f"{what}, verified when it is recorded", f"{verified:,.0f} MB/s", "", "one reading of the store")


def _presigned(platform: Platform) -> tuple[str, str]:
    """Where to PUT and GET an object that no digest is held to."""
    secret = (platform.folder / "secrets" / "s3.password").read_text(encoding="ascii").strip()
    address = ObjectStoreAddress(platform.connection.s3_endpoint, ACCESS_KEY, secret, DEFAULT_BUCKET)
    store, key = address.client(), f"bench/{uuid4()}"
    return store.presigned_put_object(address.bucket, key), store.presigned_get_object(address.bucket, key)


def _rate(size: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return size / 1e6 / (time.perf_counter() - began)


def _put(url: str, path: Path) -> None:
    with path.open("rb") as body:
        request = urllib.request.Request(url, data=body, method="PUT")
        request.add_header("Content-Length", str(path.stat().st_size))
        request.add_header("Content-Type", "application/octet-stream")
        with urllib.request.urlopen(request, timeout=120):
            pass


def _get(url: str, target: Path) -> None:
    with urllib.request.urlopen(url, timeout=120) as answer, target.open("wb") as out:
        while chunk := answer.read(1 << 20):
            out.write(chunk)
