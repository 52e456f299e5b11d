"""Sends a run's spool to the tracker, in order and once, from a thread of its own."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final
from uuid import UUID, uuid5

import grpc
from google.protobuf.message import Message

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.tracking.v1 import service_pb2 as service
from headrace.api.tracking.v1.resources_pb2 import MetricPoint, OutputChunk
from headrace.api.tracking.v1.service_pb2_grpc import TrackingServiceStub
from headrace.channel import MAX_MESSAGE_BYTES
from headrace.tracking.spool import Progress, Record, Spool, blob_path
from headrace.transfer import TransferInterrupted, TransferRefused, upload_known

_log = logging.getLogger("headrace")
MAX_BATCH_POINTS: Final = 20_000
MAX_BATCH_POINT_BYTES: Final = 1024 * 1024
"""Of points in records of many: a point has 13 bytes or more, so that these are fewer than a call may have."""
MAX_BATCH_CHUNKS: Final = 1000
MAX_BATCH_OUTPUT_BYTES: Final = 1024 * 1024
VERIFIED_BYTES_PER_S: Final = 50_000_000
"""What the tracker reads at least in a second while it verifies an artifact."""
RETRY_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
CALL_TIMEOUT_S: Final = 30.0
_TRANSIENT: Final = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNAUTHENTICATED,  # the platform may have been set up anew; what is spooled is kept
}

_WITHOUT_HISTORY: Final = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION)
"""Answers to a fork whose first run is not there, or was put away."""


class Kind(IntEnum):
    """What a record of a spool is. Numbers are on disk: never reused."""

    START_RUN = 1
    FINISH_RUN = 2
    LOG_PARAMS = 3
    METRIC_POINT = 4  # not written any more
    CHANGE_TAGS = 5
    LOG_DATASET = 6
    LOG_ARTIFACT = 7
    RESUME_RUN = 8
    OUTPUT = 9
    METRIC_POINTS = 10
    """A request with points and nothing else: such requests one after the other are a request with all points."""


_REQUESTS: Final[dict[int, type[Message]]] = {
    Kind.START_RUN: service.StartRunRequest,
    Kind.FINISH_RUN: service.FinishRunRequest,
    Kind.LOG_PARAMS: service.LogParamsRequest,
    Kind.CHANGE_TAGS: service.ChangeTagsRequest,
    Kind.LOG_DATASET: service.LogDatasetRequest,
    Kind.LOG_ARTIFACT: service.LogArtifactRequest,
    Kind.RESUME_RUN: service.ResumeRunRequest,
}


class TrackerDownError(Exception):
    """The tracker can not be reached now; what is spooled stays."""


@dataclass(frozen=True, slots=True)
class _Batch:
    records: list[Record]

    @property
    def end(self) -> int:
        return self.records[-1].end


@dataclass(frozen=True, slots=True)
class Sending:
    """How far the sending of a run has come: ``sent`` of ``size`` bytes of its spool."""

    run_id: str
    sent: int
    size: int


class Sender:
    """Sends one spool.

    Args:
        spool: The spool, held by this process.
        run: Resource name of the run.
        folder: The spool folder, for its blobs.
        connect: Makes a channel to the tracker; called anew after a failure.
        interval_s: How long points gather before they are sent.
    """

    def __init__(
        self, spool: Spool, run: str, folder: Path, connect: Callable[[], grpc.Channel], *, interval_s: float = 0.25
    ) -> None:
        self._spool, self._run, self._folder, self._connect = spool, run, folder, connect
        self._interval_s = interval_s
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._sent = threading.Condition()
        self._stub: TrackingServiceStub | None = None
        self._channel: grpc.Channel | None = None
        self._failures = 0
        self._thread = threading.Thread(target=self._work, name=f"headrace-{spool.run_id[-8:]}", daemon=True)
        self.rejected = 0
        """Records that the tracker refused for good; each was logged as a warning."""

    def start(self) -> None:
        """Begins to send in the background."""
        self._thread.start()

    def wake(self) -> None:
        """Says that there is something to send now."""
        self._wake.set()

    def flush(self, timeout_s: float) -> bool:
        """Waits until everything written so far was acknowledged; False when the time was too short."""
        self._wake.set()
        target, deadline = self._spool.size, time.monotonic() + timeout_s
        with self._sent:
            while self._spool.progress.sent < target:
                left = deadline - time.monotonic()
                if left <= 0 or not self._thread.is_alive():
                    return self._spool.progress.sent >= target
                self._sent.wait(min(left, 0.5))
        return True

    def close(self) -> None:
        """Stops; what was not sent stays in the spool, and the spool of a sent run is removed."""
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=CALL_TIMEOUT_S)
        if self._channel is not None:
            self._channel.close()
        if self._spool.is_sent:
            self._spool.remove()
        else:
            self._spool.close()

    def send_all(self, tell: Callable[[Sending], None] = lambda _: None) -> None:
        """Sends what is spooled, in this thread; ``tell`` is called after each part.

        Raises:
            TrackerDownError: The tracker can not be reached.
        """
        while not self._spool.is_sent:
            batch = next(self._batches(), None)
            if batch is None:
                return
            self._send(batch)
            tell(Sending(self._spool.run_id, self._spool.progress.sent, self._spool.size))

    def _work(self) -> None:
        while not self._closing.is_set():
            self._wake.wait(self._interval_s if self._failures == 0 else self._pause_s())
            self._wake.clear()
            try:
                self.send_all()
                self._failures = 0
            except TrackerDownError as error:
                if self._failures == 0:
                    _log.warning("tracker not reachable, recording to %s: %s", self._folder, error)
                self._failures += 1
                self._disconnect()
                self._closing.wait(self._pause_s())

    def _pause_s(self) -> float:
        return RETRY_S[min(self._failures, len(RETRY_S) - 1)]

    def _batches(self) -> Iterator[_Batch]:
        """The next batch: one command, or points or output that go together; as it was before a crash."""
        progress = self._spool.progress
        gathered: list[Record] = []
        for record in self._spool.records(progress.sent):
            if gathered and not _together(gathered, record):
                break
            gathered.append(record)
            if record.end == progress.sending:
                break
        if gathered:
            yield _Batch(gathered)

    def _send(self, batch: _Batch) -> None:
        sent = self._spool.progress.sent
        self._spool.mark(Progress(sent, batch.end))
        try:
            self._call(batch)
        except grpc.RpcError as error:
            code = error.code()
            if code in _TRANSIENT:
                raise TrackerDownError(f"{code.name}: {error.details()}") from error
            self._reject(batch, error.details())
        except _CanNotBeSentError as error:
            self._reject(batch, str(error))
        with self._sent:
            self._spool.mark(Progress(batch.end, batch.end))
            self._sent.notify_all()

    def _reject(self, batch: _Batch, reason: str | None) -> None:
        """What no repeat can mend is counted and left out, so that what comes after it is sent."""
        self.rejected += len(batch.records)
        _log.warning("the tracker refused %s: %s", Kind(batch.records[0].kind).name, reason)

    def _call(self, batch: _Batch) -> None:
        first = batch.records[0]
        if len(first.payload) > MAX_MESSAGE_BYTES:
            raise _CanNotBeSentError(f"{len(first.payload)} bytes are more than {MAX_MESSAGE_BYTES}, a call's limit")
        stub = self._connected()
        if first.kind in {Kind.METRIC_POINT, Kind.METRIC_POINTS}:
            payloads = [each.payload for each in batch.records]
            if first.kind == Kind.METRIC_POINT:
                request = service.LogMetricsRequest(points=[MetricPoint.FromString(each) for each in payloads])
            else:
                request = service.LogMetricsRequest.FromString(b"".join(payloads))
            request.command_id = str(uuid5(UUID(self._spool.run_id), f"{first.start}-{batch.end}"))
            request.run = self._run
            stub.LogMetrics(request, timeout=CALL_TIMEOUT_S)
            return
        if first.kind == Kind.OUTPUT:
            chunks = [OutputChunk.FromString(each.payload) for each in batch.records]
            identity = uuid5(UUID(self._spool.run_id), f"{first.start}-{batch.end}")
            output = service.LogOutputRequest(command_id=str(identity), run=self._run, chunks=chunks)
            stub.LogOutput(output, timeout=CALL_TIMEOUT_S)
            return
        message = _REQUESTS[first.kind].FromString(first.payload)
        match message:
            case service.StartRunRequest():
                self._start(stub, message)
            case service.FinishRunRequest():
                stub.FinishRun(message, timeout=CALL_TIMEOUT_S)
            case service.ResumeRunRequest():
                stub.ResumeRun(message, timeout=CALL_TIMEOUT_S)
            case service.LogParamsRequest():
                stub.LogParams(message, timeout=CALL_TIMEOUT_S)
            case service.ChangeTagsRequest():
                stub.ChangeTags(message, timeout=CALL_TIMEOUT_S)
            case service.LogDatasetRequest():
                stub.LogDataset(message, timeout=CALL_TIMEOUT_S)
            case service.LogArtifactRequest():
                self._log_artifact(stub, message)
            case _:
                raise AssertionError(f"a spool holds no {type(message).__name__}")

    def _start(self, stub: TrackingServiceStub, request: service.StartRunRequest) -> None:
        """Starts the run; without the history of another when that is not to be had: its own points matter more."""
        try:
            stub.StartRun(request, timeout=CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            if not request.forked_from or error.code() not in _WITHOUT_HISTORY:
                raise
            _log.warning("it does not go on with %s: %s", request.forked_from, error.details())
            request.tags["headrace.forked_from"] = f"{request.forked_from} at {request.fork_step}"
            request.ClearField("forked_from")
            request.ClearField("fork_step")
            request.command_id = str(uuid5(UUID(request.command_id), "without history"))
            stub.StartRun(request, timeout=CALL_TIMEOUT_S)

    def _log_artifact(self, stub: TrackingServiceStub, request: service.LogArtifactRequest) -> None:
        """Uploads and records a file; once more when its bytes, which lay there, were freed in between."""
        blob = blob_path(self._folder, self._spool.run_id, request.artifact.object.sha256)
        try:
            self._upload(stub, request, blob)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.INVALID_ARGUMENT:
                raise
            self._upload(stub, request, blob)
        blob.unlink(missing_ok=True)

    def _upload(self, stub: TrackingServiceStub, request: service.LogArtifactRequest, blob: Path) -> None:
        wanted = request.artifact.object
        stored = _upload(stub, "/".join(self._run.split("/")[:2]), blob, wanted)
        request.artifact.object.CopyFrom(stored)
        stub.LogArtifact(request, timeout=CALL_TIMEOUT_S + wanted.size_bytes / VERIFIED_BYTES_PER_S)

    def _connected(self) -> TrackingServiceStub:
        if self._stub is None:
            try:
                self._channel = self._connect()
            except Exception as error:
                raise TrackerDownError(str(error)) from error
            self._stub = TrackingServiceStub(self._channel)
        return self._stub

    def _disconnect(self) -> None:
        if self._channel is not None:
            self._channel.close()
        self._stub = self._channel = None


def _together(gathered: list[Record], record: Record) -> bool:
    """Whether a record goes into one call with those before it."""
    if record.kind != gathered[-1].kind:
        return False
    if record.kind == Kind.METRIC_POINT:
        return len(gathered) < MAX_BATCH_POINTS
    size = record.end - gathered[0].start
    if record.kind == Kind.METRIC_POINTS:
        return size <= MAX_BATCH_POINT_BYTES
    return record.kind == Kind.OUTPUT and len(gathered) < MAX_BATCH_CHUNKS and size <= MAX_BATCH_OUTPUT_BYTES


class _CanNotBeSentError(Exception):
    """A record that no repeat brings through."""


def _upload(stub: TrackingServiceStub, project: str, blob: Path, wanted: ObjectRef) -> ObjectRef:
    """Stores bytes; how far a large upload has come is noted beside them, for a later try or process."""
    try:
        return upload_known(stub, project, blob, wanted, blob.with_name(f"{blob.name}.upload"))
    except TransferInterrupted as error:
        raise TrackerDownError(str(error)) from error
    except TransferRefused as error:
        raise _CanNotBeSentError(str(error)) from error
    except OSError as error:
        raise _CanNotBeSentError(f"the artifact's bytes are gone: {error}") from error
