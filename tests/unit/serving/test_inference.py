"""What surrounds an inference: limits, telemetry, counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from headrace.api.registry.v1.resources_pb2 import MODEL_FORMAT_ONNX, Version
from headrace.api.serving.v1 import resources_pb2 as resources
from headrace_kit.errors import InvalidArgument, ResourceExhausted
from headrace_serving.inference import Inference
from headrace_serving.loader import build_version
from headrace_serving.router import Router
from headrace_serving.telemetry import PredictionLog
from headrace_serving.tensors import InferRequest, Parameter, Tensor
from headrace_serving.versions import LoadedVersion
from tests.support.serving import package, signature

NAME = "projects/default/endpoints/e"
VERSION = "projects/default/models/m/versions/1"
NOWHERE = "127.0.0.1:9"


class OnnxLoader:
    """Loads the same ONNX model under any name."""

    async def load(self, name: str, *, allow_pickle: bool) -> LoadedVersion:
        version = Version(name=name, number=1, format=MODEL_FORMAT_ONNX, signature=signature())
        return build_version(version, package(2.0), ThreadPoolExecutor(1))


def request(rows: int, **parameters: Parameter) -> InferRequest:
    tensor = Tensor("X", "FP32", np.ones((rows, 3), dtype="<f4"))
    return InferRequest(model="e", version="", id="", parameters=parameters, inputs=[tensor], outputs=[])


@pytest.fixture
async def log() -> AsyncIterator[PredictionLog]:
    """Predictions on their way to a Kafka that is away."""
    log = PredictionLog(NOWHERE, ledger=None, queue_rows=10)
    yield log
    await log.stop(drain_s=0.05)


async def routed(mode: resources.TelemetryMode.ValueType) -> Router:
    router = Router(OnnxLoader())
    routes = [resources.Route(version=VERSION, weight=100)]
    await router.apply(resources.Endpoint(name=NAME, revision=1, routes=routes, telemetry=mode))
    return router


async def test_while_kafka_is_away_answers_go_on_and_what_is_dropped_is_counted(log: PredictionLog) -> None:
    inference = Inference(await routed(resources.TELEMETRY_MODE_ASYNC), log, most=10)
    answers = [await inference.infer(request(4)) for _ in range(3)]
    assert [each.outputs[0].array.shape for each in answers] == [(4, 1)] * 3
    assert (log.counts.offered, log.counts.dropped) == (12, 4)


async def test_a_durable_answer_is_refused_when_too_much_waits_for_kafka(log: PredictionLog) -> None:
    inference = Inference(await routed(resources.TELEMETRY_MODE_DURABLE), log, most=10)
    with pytest.raises(ResourceExhausted):
        await inference.infer(request(11))


async def test_too_many_at_once_are_refused(log: PredictionLog) -> None:
    inference = Inference(await routed(resources.TELEMETRY_MODE_DURABLE), log, most=1)
    waiting = asyncio.create_task(inference.infer(request(1)))
    while log.counts.offered == 0:
        await asyncio.sleep(0)
    with pytest.raises(ResourceExhausted) as refused:
        await inference.infer(request(1))
    assert refused.value.reason == "TOO_MANY_IN_FLIGHT"
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_without_telemetry_nothing_is_offered_and_an_id_is_given(log: PredictionLog) -> None:
    inference = Inference(await routed(resources.TELEMETRY_MODE_OFF), log, most=1)
    answer = await inference.infer(request(1))
    assert answer.id == answer.parameters["prediction_id"] != ""
    assert log.counts.offered == 0


async def test_answers_are_counted_by_version_and_bad_requests_are_not(log: PredictionLog) -> None:
    router = await routed(resources.TELEMETRY_MODE_OFF)
    inference = Inference(router, log, most=1)
    await inference.infer(request(3))
    await inference.infer(request(4))
    with pytest.raises(InvalidArgument):
        await inference.infer(InferRequest("e", "", "", {}, [], []))
    [counted] = [each.message() for each in router.traffic(NAME)]
    assert (counted.version, counted.requests, counted.rows, counted.failures) == (VERSION, 2, 7, 0)
    assert 0 < counted.p50_ms <= counted.p99_ms


@pytest.mark.parametrize(
    "parameters",
    [
        {"event_time_us": 1 << 60},
        {"event_time_us": True},
        {"event_time_us": "now"},
        {"event_time_us": 0.5},
        {"prediction_id": 7},
        {"prediction_id": "x" * 251},
    ],
)
async def test_parameters_of_another_type_or_range_are_refused(
    log: PredictionLog, parameters: dict[str, Parameter]
) -> None:
    inference = Inference(await routed(resources.TELEMETRY_MODE_OFF), log, most=1)
    with pytest.raises(InvalidArgument) as refused:
        await inference.infer(request(1, **parameters))
    assert refused.value.field == f"parameters.{next(iter(parameters))}"
