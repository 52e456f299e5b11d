"""Monitor: predictions a second from Kafka into counts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from uuid import uuid4

import numpy as np

from headrace.api.common.v1 import telemetry_pb2 as telemetry
from headrace.api.monitor.v1 import resources_pb2 as resources
from headrace.api.monitor.v1 import service_pb2 as service
from headrace.kafka import ColumnData
from headrace.kafka.producer import Prediction, ProducerConfig, TelemetryProducer
from tests.bench.figures import Figure
from tests.support.eventually import eventually
from tests.support.platform import Platform

ROWS = 1000
FEATURES = 10
ENDPOINT = "watched"


def measure(platform: Platform, *, quick: bool) -> Iterator[Figure]:
    """Predictions of ten inputs, in requests of a thousand rows, published at once and then counted."""
    requests = 50 if quick else 500
    with platform.client() as client:
        config = resources.MonitorConfig(
            task=resources.TASK_KIND_REGRESSION, prediction_column="prediction", slot_s=60, minimum_samples=1
        )
        client.monitor.CreateMonitor(
            service.CreateMonitorRequest(
                command_id=str(uuid4()), name="projects/default/monitors/watched", endpoint=ENDPOINT, config=config
            )
        )
        asyncio.run(_publish(platform, 1))
        _wait(platform, ROWS)
        began = time.monotonic()
        asyncio.run(_publish(platform, requests))
        published = time.monotonic() - began
        _wait(platform, ROWS * (requests + 1))
        taken = time.monotonic() - began
    yield Figure(
        "predictions published to Kafka by one producer",
        f"{ROWS * requests / published:,.0f}/s",
        "",
        "the client's core",
    )
    yield Figure(
        "predictions through the monitor (10 inputs, one process), publishing included",
        f"{ROWS * requests / taken:,.0f}/s",
        "100,000/s",
        "requests of 1,000 rows: the fewer the rows, the more one PostgreSQL row a request costs",
    )


async def _publish(platform: Platform, requests: int) -> None:
    random = np.random.default_rng(1)
    names = [f"x{index}" for index in range(FEATURES)]
    columns = [ColumnData.of(name, random.normal(size=ROWS).astype(np.float32)) for name in names]
    columns.append(
        ColumnData.of("prediction", random.normal(size=ROWS).astype(np.float32), telemetry.COLUMN_ROLE_OUTPUT)
    )
    producer = TelemetryProducer(platform.connection.kafka_bootstrap, config=ProducerConfig(queue_rows=ROWS * 600))
    now_us = time.time_ns() // 1000
    for index in range(requests):
        producer.put(
            Prediction(
                project="default",
                endpoint=ENDPOINT,
                model_version="projects/default/models/watched/versions/1",
                time_us=now_us + index,
                columns=columns,
                id="",
            )
        )
        if index % 20 == 0:
            await asyncio.sleep(0)
    await producer.stop()


def _wait(platform: Platform, rows: int) -> None:
    request = service.GetCountsRequest(endpoint=f"projects/default/endpoints/{ENDPOINT}")
    with platform.client() as client:
        eventually(lambda: client.monitor.GetCounts(request).predictions, lambda count: count >= rows, within_s=120)
