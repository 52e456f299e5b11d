"""The application: asks the endpoint for each flight's delay as it leaves, and reports the delay when it has landed.

It plays the year back in order of event time and never waits for the platform's loop, only for its own answers.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
import numpy as np
import numpy.typing as npt

# Any: stubs and messages of awaited calls, which grpc types as blocking ones.
# ruff: noqa: ANN401
from flights.data import FEATURES, TARGET, Floats
from flights.model import INPUT, OUTPUT
from flights.replay import LabelBatch, PredictRequest, Replay
from headrace.api.common.v1.telemetry_pb2 import LabelBatch as WireLabels
from headrace.api.monitor.v1.service_pb2 import PublishLabelsRequest
from headrace.api.monitor.v1.service_pb2_grpc import TelemetryServiceStub
from headrace.channel import STREAMS
from headrace.connection import Connection
from headrace.inference import grpc_service_pb2 as oip
from headrace.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from headrace.kafka import ColumnData, Labels, encode_labels, group_labels

IN_FLIGHT: Final = 16
"""Requests under way at once."""
PATIENCE_S: Final = 180.0
"""How long a service may be away before the application gives up."""
_AWAY: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)


@dataclass(slots=True)
class Progress:
    """How far the application is; read by whoever shows it.

    Attributes:
        event_us: Event time of the newest request, microseconds since 1970 UTC.
        predictions: Rows answered.
        labels: Labels acknowledged.
        repeated: Rows of attempts that ended without an answer: their outcome is unknown.
        versions: Rows answered by each version, by its resource name.
    """

    event_us: int = 0
    predictions: int = 0
    labels: int = 0
    repeated: int = 0
    versions: dict[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class Answers:
    """What the endpoint answered, in the order of the replayed flights.

    Attributes:
        predictions: ``(n,) float32`` minutes.
        versions: ``(n,)`` index into ``names`` of the version that answered.
        names: Resource names of versions.
        times: ``(n,) float64`` wall-clock seconds since 1970 of the answer.
    """

    predictions: Floats
    versions: npt.NDArray[np.int16]
    names: Sequence[str]
    times: npt.NDArray[np.float64]


class Application:
    """Plays a replay against an endpoint.

    Args:
        connection: The platform.
        project: Project of the endpoint.
        endpoint: Id of the endpoint.
        replay: What to play.
        pace: Rows a second at most, give or take a second's; 0 for no limit.
    """

    def __init__(
        self, connection: Connection, *, project: str, endpoint: str, replay: Replay, pace: float = 0.0
    ) -> None:
        self.progress = Progress()
        self.pace = pace
        """Rows a second at most; may be changed while it plays."""
        self.answered: dict[str, int] = {}
        """Rows by the id of the prediction, of all that were answered."""
        self._connection, self._project, self._endpoint = connection, project, endpoint
        self._replay, self._due = replay, 0.0
        rows = len(replay.flights)
        self._predictions = np.full(rows, np.nan, dtype=np.float32)
        self._versions = np.full(rows, -1, dtype=np.int16)
        self._times = np.zeros(rows, dtype=np.float64)
        self._names: list[str] = []
        self._publishing = asyncio.Lock()
        self._ids: dict[int, asyncio.Task[str]] = {}
        self._producer_id, self._epoch, self._seq = str(uuid.uuid4()), time.time_ns(), np.zeros(256, dtype=np.int64)

    async def run(self, stopped: Callable[[], bool] = lambda: False) -> Answers:
        """Plays to the end, or until ``stopped`` says so.

        Raises:
            grpc.RpcError: A service refused, or was away for longer than ``PATIENCE_S``.
        """
        metadata = (("authorization", f"Bearer {self._connection.token}"),)
        serving = grpc.aio.insecure_channel(self._connection.address("serving"), options=STREAMS)
        monitor = grpc.aio.insecure_channel(self._connection.address("monitor"), options=STREAMS)
        async with serving, monitor:
            infer: Any = GRPCInferenceServiceStub(serving)  # type: ignore[no-untyped-call, unused-ignore]
            telemetry: Any = TelemetryServiceStub(monitor)
            window: deque[asyncio.Task[Any]] = deque()
            for step in self._replay.steps():
                if stopped():
                    break
                if isinstance(step, PredictRequest):
                    self._ids[step.number] = asyncio.create_task(self._ask(infer, step, metadata))
                    window.append(self._ids[step.number])
                    await self._keep_pace(len(step.features))
                else:
                    window.append(asyncio.create_task(self._report(telemetry, step, metadata)))
                if len(window) > IN_FLIGHT:
                    await window.popleft()
            while window:
                await window.popleft()
        return Answers(self._predictions, self._versions, self._names, self._times)

    async def _keep_pace(self, rows: int) -> None:
        """Waits until the next request is due; who fell behind may catch up a second."""
        if self.pace > 0:
            now = time.monotonic()
            self._due = max(self._due, now - 1.0) + rows / self.pace
            await asyncio.sleep(max(0.0, self._due - now))

    async def _ask(self, stub: Any, step: PredictRequest, metadata: Sequence[tuple[str, str]]) -> str:
        rows = len(step.features)
        request = oip.ModelInferRequest(
            model_name=f"{self._project}/{self._endpoint}",
            inputs=[oip.ModelInferRequest.InferInputTensor(name=INPUT, datatype="FP32", shape=[rows, len(FEATURES)])],
            raw_input_contents=[step.features.astype("<f4", copy=False).tobytes()],
        )
        request.parameters["event_time_us"].int64_param = step.event_us
        response = await self._patiently(stub.ModelInfer, request, metadata, rows=rows)
        predictions = np.frombuffer(response.raw_output_contents[0], "<f4")
        version = response.parameters["model_version"].string_param
        here = slice(step.first_row, step.first_row + rows)
        self._predictions[here], self._times[here] = predictions, time.time()
        self._versions[here] = self._index(version)
        self.progress.event_us = max(self.progress.event_us, step.event_us)
        self.progress.predictions += rows
        self.progress.versions[version] = self.progress.versions.get(version, 0) + rows
        prediction_id = str(response.parameters["prediction_id"].string_param)
        self.answered[prediction_id] = rows
        return prediction_id

    async def _report(self, stub: Any, step: LabelBatch, metadata: Sequence[tuple[str, str]]) -> None:
        numbers = step.requests.tolist()
        known = {number: await self._ids[number] for number in dict.fromkeys(numbers)}
        grouped = group_labels(
            self._project,
            self._endpoint,
            ids=[known[number] for number in numbers],
            values=ColumnData.of(TARGET, step.labels),
            times_us=step.label_us.tolist(),
            rows=step.rows.tolist(),
        )
        # One at a time: batches of a shard must arrive in the order of their numbers, or they count as lost.
        async with self._publishing:
            request = PublishLabelsRequest(batches=[self._numbered(labels) for labels in grouped])
            await self._patiently(stub.PublishLabels, request, metadata, rows=0)
        self.progress.labels += len(step.labels)

    async def _patiently(self, call: Any, request: Any, metadata: Sequence[tuple[str, str]], *, rows: int) -> Any:
        """Calls until there is an answer; the platform may be away for a while, and its parts may die."""
        give_up = time.monotonic() + PATIENCE_S
        while True:
            try:
                return await call(request, metadata=metadata, timeout=10)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _AWAY or time.monotonic() > give_up:
                    raise
                self.progress.repeated += rows
            await asyncio.sleep(0.1)

    def _numbered(self, labels: Labels) -> WireLabels:
        self._seq[labels.shard] += 1
        seq = int(self._seq[labels.shard])
        return encode_labels(labels, producer_id=self._producer_id, epoch=self._epoch, seq=seq)

    def _index(self, version: str) -> int:
        if version not in self._names:
            self._names.append(version)
        return self._names.index(version)


__all__ = ["OUTPUT", "Answers", "Application", "Progress"]
