"""Two ways by which an application tells the platform what its own model answered: over gRPC, or straight to Kafka."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Protocol, Self, TypeVar

import numpy as np

import headrace
from headrace.api.monitor.v1.service_pb2 import PublishLabelsRequest, PublishPredictionsRequest
from headrace.kafka import Labels, Predictions, encode_labels, encode_predictions, shard_of
from headrace.kafka.producer import Prediction, TelemetryProducer

MAX_BATCHES: Final = 100
"""Batches that one call takes."""
T = TypeVar("T")


class Publisher(Protocol):
    """Publishes in order. What a method returned from is in Kafka; what it raised of may be, and may be sent again."""

    async def predictions(self, answered: Sequence[Prediction]) -> None:
        """Publish answers, each with an id of the application's own making."""
        ...

    async def labels(self, known: Sequence[Labels]) -> None:
        """Publish outcomes, grouped by ``headrace.kafka.group_labels``."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class GrpcPublisher:
    """Over gRPC: needs the monitor's address and a token, and numbers its batches itself.

    A call is tried again while the monitor is away; a repeat carries the same numbers, and is counted once.
    """

    def __init__(self, client: headrace.Client) -> None:
        self._client = client
        self._producer_id, self._epoch = str(uuid.uuid4()), time.time_ns()
        self._handed_out: Counter[tuple[str, int]] = Counter()

    async def predictions(self, answered: Sequence[Prediction]) -> None:
        """As ``Publisher.predictions``."""
        batches = [
            encode_predictions(
                _batch_of(each),
                producer_id=self._producer_id,
                epoch=self._epoch,
                seq=self._next("predictions", shard_of(each.id)),
            )
            for each in answered
        ]
        for some in _chunks(batches):
            await asyncio.to_thread(self._client.telemetry.PublishPredictions, PublishPredictionsRequest(batches=some))

    async def labels(self, known: Sequence[Labels]) -> None:
        """As ``Publisher.labels``."""
        batches = [
            encode_labels(each, producer_id=self._producer_id, epoch=self._epoch, seq=self._next("labels", each.shard))
            for each in known
        ]
        for some in _chunks(batches):
            await asyncio.to_thread(self._client.telemetry.PublishLabels, PublishLabelsRequest(batches=some))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left behind."""

    def _next(self, kind: str, shard: int) -> int:
        """Numbers are dense for each kind and shard, from 1: a hole would count as a loss."""
        self._handed_out[kind, shard] += 1
        return self._handed_out[kind, shard]


class KafkaPublisher:
    """Straight to Kafka, as an application does that has a place near the brokers: batched, numbered, acknowledged."""

    def __init__(self, bootstrap: str) -> None:
        self._producer = TelemetryProducer(bootstrap)

    async def predictions(self, answered: Sequence[Prediction]) -> None:
        """As ``Publisher.predictions``."""
        await asyncio.gather(*(self._producer.send(each) for each in answered))

    async def labels(self, known: Sequence[Labels]) -> None:
        """As ``Publisher.labels``."""
        await self._producer.send_labels(known)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Sends what is left."""
        await self._producer.stop()


def _batch_of(answered: Prediction) -> Predictions:
    return Predictions(
        project=answered.project,
        endpoint=answered.endpoint,
        model_version=answered.model_version,
        shard=shard_of(answered.id),
        ids=[answered.id],
        row_counts=np.array([len(answered.columns[0].values)], dtype="<u4"),
        times_us=np.array([answered.time_us], dtype="<i8"),
        columns=answered.columns,
    )


def _chunks(batches: Sequence[T]) -> list[Sequence[T]]:
    return [batches[start : start + MAX_BATCHES] for start in range(0, len(batches), MAX_BATCHES)]
