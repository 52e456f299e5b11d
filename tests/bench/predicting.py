"""Serving: requests a second and latency, over gRPC and REST, one row a request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc
import httpx2
import numpy as np

from flights.data import FEATURES
from flights.model import INPUT
from headrace.channel import CALLS
from headrace.inference import grpc_service_pb2 as oip
from headrace.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from tests.bench.figures import Figure
from tests.support.platform import Platform

AT_ONCE = 32


def measure(platform: Platform, *, quick: bool) -> Iterator[Figure]:
    """32 requests under way at once, on the endpoint that the example left."""
    seconds = 2.0 if quick else 6.0
    for title, run in (("gRPC", _grpc), ("REST", _rest)):
        latencies, taken = asyncio.run(run(platform, seconds))
        p50, p99 = np.percentile(latencies, [50, 99]) * 1000
        value = f"{len(latencies) / taken:,.0f}/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms"
        yield Figure(
            f"predict over {title}, 32 at once, each answer durable in Kafka",
            value,
            "",
            "client and server share the cores",
        )


async def _grpc(platform: Platform, seconds: float) -> tuple[list[float], float]:
    row = np.zeros((1, len(FEATURES)), dtype="<f4")
    tensor = oip.ModelInferRequest.InferInputTensor(name=INPUT, datatype="FP32", shape=[1, len(FEATURES)])
    request = oip.ModelInferRequest(model_name="default/delays", inputs=[tensor], raw_input_contents=[row.tobytes()])
    metadata = (("authorization", f"Bearer {platform.connection.token}"),)
    async with grpc.aio.insecure_channel(platform.connection.address("serving"), options=CALLS) as channel:
        stub: Any = GRPCInferenceServiceStub(channel)  # Any: typed by grpc as blocking

        async def once() -> None:
            await stub.ModelInfer(request, metadata=metadata, timeout=10)

        return await _load(once, seconds)


async def _rest(platform: Platform, seconds: float) -> tuple[list[float], float]:
    tensor = {"name": INPUT, "datatype": "FP32", "shape": [1, len(FEATURES)], "data": [0.0] * len(FEATURES)}
    headers = {"authorization": f"Bearer {platform.connection.token}"}
    limits = httpx2.Limits(max_connections=AT_ONCE)
    async with httpx2.AsyncClient(base_url=platform.connection.serving_url, headers=headers, limits=limits) as client:

        async def once() -> None:
            response = await client.post("/v2/models/delays/infer", json={"inputs": [tensor]})
            response.raise_for_status()

        return await _load(once, seconds)


async def _load(once: Callable[[], Awaitable[None]], seconds: float) -> tuple[list[float], float]:
    """Latencies in seconds, and how long it took."""
    await once()
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def caller() -> None:
        while (began := time.perf_counter()) < end:
            await once()
            latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    return latencies, time.perf_counter() - began
