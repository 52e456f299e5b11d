"""A version of the registry, loaded here, scores a file: what ``headrace score`` does."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import grpc

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.registry.v1 import resources_pb2 as registry
from headrace.api.registry.v1 import service_pb2 as service
from headrace.api.registry.v1.service_pb2_grpc import RegistryServiceStub
from headrace.api.serving.v1 import resources_pb2 as resources
from headrace.connection import Connection
from headrace.kafka.columns import ColumnData
from headrace_kit.errors import Unavailable
from headrace_kit.objects import verified
from headrace_kit.rpc import channel
from headrace_serving.batch import Progress, Publish, Scored, score_file
from headrace_serving.loader import build_version, require_loadable
from headrace_serving.registry import Registry
from headrace_serving.telemetry import PredictionLog, now_us
from headrace_serving.trusting import require_signed
from headrace_serving.versions import LoadedVersion

DOWNLOAD_S: Final = 60.0
QUEUE_ROWS: Final = 400_000


async def run(
    connection: Connection,
    name: str,
    source: Path,
    target: Path,
    *,
    id_column: str = "",
    publish: str = "",
    allow_pickle: bool = False,
    progress: Progress | None = None,
) -> Scored:
    """Fetches a version and scores a file with it; see ``score_file``.

    With ``publish``, an endpoint's id in the model's project, each chunk is in Kafka before the next is computed.

    Raises:
        KitError: What ``score_file`` and ``ModelLoader.load`` raise.
    """
    threads = ThreadPoolExecutor(1)
    calls = channel(connection.address("registry"), connection.token)
    log: PredictionLog | None = None
    try:
        loaded = await load_version(calls, name, threads, allow_pickle=allow_pickle)
        if publish:
            log = PredictionLog(connection.kafka_bootstrap, ledger=None, queue_rows=QUEUE_ROWS)
        sender = _sender(log, loaded, endpoint=publish) if log is not None else None
        try:
            return await score_file(loaded, source, target, id_column=id_column, progress=progress, publish=sender)
        finally:
            loaded.retire()
    finally:
        if log is not None:
            await log.stop()
        await calls.close()
        threads.shutdown()


async def load_version(
    calls: grpc.aio.Channel, name: str, threads: ThreadPoolExecutor, *, allow_pickle: bool
) -> LoadedVersion:
    """A version of the registry at ``calls``, fetched, verified and loaded here. Raises as ``ModelLoader.load``."""
    known = await Registry(calls).version(name)
    version = known.version
    require_loadable(version, allow_pickle=allow_pickle)
    await require_signed(known, lambda wanted: _download(calls, version, wanted))
    package = await _download(calls, version, version.artifact)
    return await asyncio.to_thread(build_version, version, package, threads)


def _sender(log: PredictionLog, version: LoadedVersion, *, endpoint: str) -> Publish:
    project = version.name.split("/")[1]

    async def send(columns: Sequence[ColumnData]) -> str:
        return await log.record(
            resources.TELEMETRY_MODE_DURABLE,
            endpoint=f"projects/{project}/endpoints/{endpoint}",
            version=version.name,
            prediction_id="",
            time_us=now_us(),
            columns=columns,
        )

    return send


async def _download(calls: grpc.aio.Channel, version: registry.Version, wanted: ObjectRef) -> bytes:
    stub: Any = RegistryServiceStub(calls)  # Any: one stub class is typed for blocking and awaited calls
    answer: service.PresignArtifactResponse = await stub.PresignArtifact(
        service.PresignArtifactRequest(version=version.name, sha256=wanted.sha256)
    )

    def read() -> bytes:
        with urllib.request.urlopen(answer.url, timeout=DOWNLOAD_S) as response:  # noqa: S310 - the registry's URL
            return bytes(response.read(wanted.size_bytes + 1))

    try:
        return verified(await asyncio.to_thread(read), wanted)
    except (urllib.error.URLError, TimeoutError, OSError) as error:
        raise Unavailable("the object store can not be reached", reason="OBJECTS_UNAVAILABLE") from error
