"""Thousands of runs in a tracker, made by its own API, many at a time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import grpc

from headrace.api.tracking.v1 import resources_pb2 as runs
from headrace.api.tracking.v1 import service_pb2 as tracking
from headrace.api.tracking.v1.service_pb2_grpc import TrackingServiceStub
from headrace.connection import Connection

AT_ONCE = 48
MODELS = ("forest", "linear", "boosted")


async def record_runs(
    connection: Connection, experiment: str, count: int, *, points: int = 3, seed: int = 1, whole: int | None = None
) -> list[str]:
    """Records runs of known ids, named ``r00000`` and so on, and returns their ids.

    Each has the tag ``team``; the first ``whole`` of them (all by default) have the parameters ``depth`` and ``model``
    and the metrics ``val/loss`` and ``val/f1``.
    """
    random_of = random.Random(seed)
    ids = [str(UUID(int=random_of.getrandbits(128), version=4)) for _ in range(count)]
    gate = asyncio.Semaphore(AT_ONCE)
    headers = (("authorization", f"Bearer {connection.token}"),)
    async with grpc.aio.insecure_channel(connection.address("tracking")) as channel:
        stub: Any = TrackingServiceStub(channel)  # Any: an awaited stub, typed by grpc as a blocking one

        async def record(place: int, draws: Sequence[float]) -> None:
            name = f"projects/default/runs/{ids[place]}"
            model = MODELS[place % len(MODELS)]
            async with gate:
                await stub.StartRun(
                    tracking.StartRunRequest(
                        command_id=str(uuid4()),
                        name=name,
                        experiment=f"projects/default/experiments/{experiment}",
                        display_name=f"r{place:05}",
                        tags={"team": ("ops", "lab")[place % 2]},
                    ),
                    metadata=headers,
                )
                if whole is not None and place >= whole:
                    return
                await stub.LogParams(
                    tracking.LogParamsRequest(
                        command_id=str(uuid4()), run=name, params={"depth": str(2 + place % 7), "model": model}
                    ),
                    metadata=headers,
                )
                values = [
                    runs.MetricPoint(key=key, value=value * (1 + draws[0]) / (step + 1 + draws[1]), step=step)
                    for step in range(points)
                    for key, value in (("val/loss", 1 + place % 3), ("val/f1", 0.5))
                ]
                await stub.LogMetrics(
                    tracking.LogMetricsRequest(command_id=str(uuid4()), run=name, points=values), metadata=headers
                )

        draws = [(random_of.random(), random_of.random()) for _ in range(count)]
        async with asyncio.TaskGroup() as tasks:
            for place, each in enumerate(draws):
                tasks.create_task(record(place, each))
    return ids
