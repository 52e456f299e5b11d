"""The intake of telemetry over gRPC: checked, sent to Kafka, acknowledged after Kafka did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import grpc

from headrace.api.common.v1.telemetry_pb2 import LabelBatch, PredictionBatch
from headrace.api.monitor.v1 import service_pb2 as service
from headrace.api.monitor.v1.service_pb2_grpc import TelemetryServiceServicer
from headrace.kafka import InvalidBatch, TelemetryQueueFull, TelemetryUnsent, decode_labels, decode_predictions
from headrace.kafka.producer import TelemetryProducer
from headrace_kit.errors import InvalidArgument, ResourceExhausted, Unavailable
from headrace_kit.names import parse_id, require_text
from headrace_kit.validate import require_size

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # Any: the messages of whichever method

MAX_BATCHES = 100


class TelemetryServicer(TelemetryServiceServicer):
    """Takes batches that applications numbered themselves, and sends them on as they are.

    A call that failed may be repeated with the same batches: repeats by (producer, epoch, shard, seq) are dropped
    downstream.
    """

    def __init__(self, producer: TelemetryProducer) -> None:
        self._producer = producer

    async def PublishPredictions(
        self, request: service.PublishPredictionsRequest, context: Context
    ) -> service.PublishPredictionsResponse:
        require_size(request.batches, field="batches", least=1, most=MAX_BATCHES)
        rows = 0
        for index, batch in enumerate(request.batches):
            _check_names(batch, field=f"batches[{index}]")
            require_text(batch.model_version, field=f"batches[{index}].model_version", most=500)
            try:
                rows += decode_predictions(batch, field=f"batches[{index}]").rows
            except InvalidBatch as error:
                raise InvalidArgument(error.message, field=error.field) from error
        await self._send(request.batches)
        return service.PublishPredictionsResponse(rows=rows)

    async def PublishLabels(
        self, request: service.PublishLabelsRequest, context: Context
    ) -> service.PublishLabelsResponse:
        require_size(request.batches, field="batches", least=1, most=MAX_BATCHES)
        rows = 0
        for index, batch in enumerate(request.batches):
            _check_names(batch, field=f"batches[{index}]")
            try:
                rows += len(decode_labels(batch, field=f"batches[{index}]").rows)
            except InvalidBatch as error:
                raise InvalidArgument(error.message, field=error.field) from error
        await self._send(request.batches)
        return service.PublishLabelsResponse(rows=rows)

    async def _send(self, batches: Sequence[PredictionBatch] | Sequence[LabelBatch]) -> None:
        try:
            await self._producer.send_batches(batches)
        except TelemetryQueueFull as error:
            raise ResourceExhausted(error.message, reason=error.reason, retry_after_s=1.0) from error
        except TelemetryUnsent as error:
            raise Unavailable(error.message, reason=error.reason) from error


def _check_names(batch: PredictionBatch | LabelBatch, *, field: str) -> None:
    parse_id(batch.project, field=f"{field}.project")
    parse_id(batch.endpoint, field=f"{field}.endpoint")
    require_text(batch.producer_id, field=f"{field}.producer_id", most=250)
