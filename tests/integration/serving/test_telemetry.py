"""Each answer becomes a prediction event in Kafka."""

from __future__ import annotations

import asyncio

import aiokafka
import pytest

from headrace.api.serving.v1 import resources_pb2 as serving
from headrace.kafka.batches import Predictions
from headrace.kafka.shards import PREDICTIONS_TOPIC, shard_of
from tests.support.serving import COLUMNS, Platform, infer_request, predictions_of

ROWS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]


async def _published(platform: Platform, endpoint: str, *, rows: int) -> list[Predictions]:
    """The endpoint's batches, once they have so many rows."""
    consumer = aiokafka.AIOKafkaConsumer(
        PREDICTIONS_TOPIC, bootstrap_servers=platform.stack.addresses.kafka_bootstrap, auto_offset_reset="earliest"
    )
    await consumer.start()
    records: list[bytes] = []
    try:
        async with asyncio.timeout(15):
            while True:
                found = predictions_of(records, endpoint)
                if sum(each.rows for each in found) >= rows:
                    return found
                polled = await consumer.getmany(timeout_ms=200)
                records += [bytes(each.value or b"") for some in polled.values() for each in some]
    finally:
        await consumer.stop()


@pytest.mark.parametrize("mode", [serving.TELEMETRY_MODE_ASYNC, serving.TELEMETRY_MODE_DURABLE])
async def test_an_answer_is_published_with_its_inputs_and_outputs(
    platform: Platform, mode: serving.TelemetryMode.ValueType
) -> None:
    name = await platform.serve(2.0, telemetry=mode)
    request = infer_request(name, ROWS)
    request.parameters["event_time_us"].int64_param = 1_357_000_000_000_000
    tensor = request.inputs.add(name="carrier", datatype="BYTES", shape=[2])
    tensor.parameters["segment"].bool_param = True
    request.raw_input_contents.append(b"\x02\x00\x00\x00UA\x02\x00\x00\x00AA")
    prediction_id = platform.inference.ModelInfer(request, timeout=10).parameters["prediction_id"].string_param

    [batch] = await _published(platform, name, rows=2)

    assert list(batch.ids) == [prediction_id]
    assert shard_of(prediction_id) == batch.shard
    assert batch.times_us.tolist() == [1_357_000_000_000_000]
    columns = {each.name: each for each in batch.columns}
    assert list(columns) == [*COLUMNS, "carrier", "variable"]
    assert columns["wind"].values.tolist() == [2.0, 5.0]
    assert columns["carrier"].strings() == ["UA", "AA"]
    assert columns["variable"].values.tolist() == [12.0, 30.0]


async def test_a_clients_own_id_names_the_prediction(platform: Platform) -> None:
    name = await platform.serve(2.0)
    request = infer_request(name, ROWS, id="request-7")
    request.parameters["prediction_id"].string_param = "flight-1545"
    response = platform.inference.ModelInfer(request, timeout=10)

    [batch] = await _published(platform, name, rows=2)

    assert response.id == "request-7"
    assert list(batch.ids) == ["flight-1545"]
    assert batch.shard == shard_of("flight-1545")
