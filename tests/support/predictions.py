"""Predictions by their ids: what was answered, what Kafka holds, what the monitor counted. Sets, not sums."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from headrace.api.common.v1.telemetry_pb2 import PredictionBatch
from headrace_kit.log import PREDICTIONS
from headrace_kit.postgres import connected
from headrace_local.blueprint import Addresses
from headrace_monitor.joining import key_of
from tests.support.topics import whole_topic

Key = bytes


@dataclass(frozen=True, slots=True)
class Found:
    """Rows by prediction, whose key is that of the monitor's tables.

    Attributes:
        published: What Kafka holds, each batch once, by its producer, epoch and number.
        published_twice: Predictions that stand in more than one batch.
        counted: What the monitor took into its counts.
    """

    published: Mapping[Key, int]
    published_twice: int
    counted: Mapping[Key, int]


def find(where: Addresses, *, project: str, endpoint: str) -> Found:
    """All that a platform at rest has of one endpoint."""
    return asyncio.run(_find(where, project, endpoint))


def by_key(answered: Mapping[str, int]) -> dict[Key, int]:
    """Rows by prediction id -> rows by key."""
    return {key_of(prediction_id): rows for prediction_id, rows in answered.items()}


async def _find(where: Addresses, project: str, endpoint: str) -> Found:
    batches: dict[tuple[str, int, int, int], PredictionBatch] = {}
    for record in await whole_topic(where.kafka_bootstrap, PREDICTIONS):
        batch = PredictionBatch.FromString(record.value)
        if (batch.project, batch.endpoint) == (project, endpoint):
            batches[batch.producer_id, batch.epoch, batch.shard, batch.seq] = batch
    published, times = dict[Key, int](), Counter[Key]()
    for batch in batches.values():
        for prediction_id, rows in zip(batch.ids, np.frombuffer(batch.row_counts, "<u4").tolist(), strict=True):
            published[key_of(prediction_id)] = rows
            times[key_of(prediction_id)] += 1
    async with connected(where.postgres_dsn.rpartition("/")[0] + "/headrace_monitor") as connection:
        counted = await connection.fetch(
            "SELECT w.key, length(w.predicted) / 8 AS rows FROM waiting_predictions w "
            "JOIN watched_endpoints e ON e.id = w.endpoint_id WHERE e.project = $1 AND e.endpoint = $2",
            project,
            endpoint,
        )
    return Found(published, sum(each > 1 for each in times.values()), {row["key"]: row["rows"] for row in counted})
