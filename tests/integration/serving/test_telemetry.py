"""Each answer becomes a prediction event in Kafka."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

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


async def test_a_file_is_scored_by_the_command_line_and_published(platform: Platform, tmp_path: Path) -> None:
    name = await platform.serve(2.0)
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("flight,distance,wind,hour\nUA1,1,2,3\nAA2,4,5,6\n")
    version = f"projects/default/models/{name}@production"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from headrace.cli import main; main()",
        "score",
        version,
        str(source),
        str(target),
        "--id-column=flight",
        f"--publish={name}",
        env={**os.environ, "HEADRACE_DATA": str(platform.stack.stack.folder.path)},
    )
    assert await asyncio.wait_for(process.wait(), 30) == 0

    [batch] = await _published(platform, name, rows=2)

    lines = target.read_text().splitlines()
    assert lines[0] == '"flight","variable","prediction_id","prediction_row"'
    assert lines[1:] == [f'"UA1",12,"{batch.ids[0]}",0', f'"AA2",30,"{batch.ids[0]}",1']
    assert batch.model_version == f"projects/default/models/{name}/versions/1"
