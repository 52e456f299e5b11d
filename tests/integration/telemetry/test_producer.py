"""The producer on real Kafka."""

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer

from headrace.api.common.v1 import telemetry_pb2
from headrace.kafka import ColumnData, TelemetryQueueFull, decode_labels, decode_predictions, group_labels, shard_of
from headrace.kafka.ledger import Kind
from headrace.kafka.producer import Prediction, ProducerConfig, TelemetryProducer
from headrace_local.testing import Infrastructure, Topics

Batches = list[telemetry_pb2.PredictionBatch]


def prediction(value: float, *, rows: int = 1, own_id: str = "") -> Prediction:
    return Prediction(
        project="default",
        endpoint="e",
        model_version="projects/default/models/m/versions/1",
        time_us=1_000_000,
        columns=[
            ColumnData.of("x", np.full(rows, value)),
            ColumnData.of("y", np.full(rows, -value), telemetry_pb2.COLUMN_ROLE_OUTPUT),
        ],
        id=own_id,
    )


async def telemetry_topics(topics: Topics) -> dict[Kind, str]:
    return {kind: await topics.create(kind.name.lower(), partitions=4) for kind in Kind}


async def read_all(bootstrap: str, topic: str, until: Callable[[Batches], bool]) -> Batches:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    batches: Batches = []
    try:
        async with asyncio.timeout(20):
            while not until(batches):
                for partition, records in (await consumer.getmany(timeout_ms=200)).items():
                    for record in records:
                        batch = telemetry_pb2.PredictionBatch.FromString(record.value or b"")
                        assert batch.shard % 4 == partition.partition
                        batches.append(batch)
    finally:
        await consumer.stop()
    return batches


async def test_every_prediction_arrives_once_batched_by_shard_with_dense_numbers(topics: Topics) -> None:
    names = await telemetry_topics(topics)
    producer = TelemetryProducer(topics.bootstrap, topics=names, config=ProducerConfig(batch_rows=50))

    ids = [producer.put(prediction(float(index))) for index in range(2000)]
    ids += [producer.put(prediction(float(index), own_id=f"own-{index}")) for index in range(100)]
    await producer.stop()

    batches = await read_all(
        topics.bootstrap, names[Kind.PREDICTIONS], lambda got: sum(len(each.ids) for each in got) >= len(ids)
    )
    arrived = [each for batch in batches for each in decode_predictions(batch).ids]
    assert sorted(arrived) == sorted(ids)
    assert len(batches) < 400
    numbers: dict[int, list[int]] = {}
    for batch in batches:
        numbers.setdefault(batch.shard, []).append(batch.seq)
    assert all(seqs == list(range(1, len(seqs) + 1)) for seqs in numbers.values())
    assert (producer.counts.offered, producer.counts.acknowledged) == (2100, 2100)


async def test_labels_go_to_the_shard_of_their_prediction(topics: Topics) -> None:
    names = await telemetry_topics(topics)
    producer = TelemetryProducer(topics.bootstrap, topics=names)
    ids = [producer.put(prediction(float(index), rows=2)) for index in range(60)]

    await producer.send_labels(
        group_labels(
            "default",
            "e",
            ids=ids * 2,
            rows=[0] * 60 + [1] * 60,
            values=ColumnData.of("y", np.arange(120.0)),
            times_us=[7] * 120,
        )
    )
    await producer.stop()

    consumer = AIOKafkaConsumer(names[Kind.LABELS], bootstrap_servers=topics.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    seen = 0
    async with asyncio.timeout(20):
        while seen < 120:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    labels = decode_labels(telemetry_pb2.LabelBatch.FromString(record.value or b""))
                    assert {shard_of(each) for each in labels.ids} == {labels.shard}
                    seen += len(labels.rows)
    await consumer.stop()
    assert seen == 120


async def test_what_does_not_fit_the_queue_is_dropped_and_counted() -> None:
    nowhere = TelemetryProducer("127.0.0.1:1", config=ProducerConfig(queue_rows=10, timeout_s=0.5))

    for index in range(15):
        nowhere.put(prediction(float(index)))
    with pytest.raises(TelemetryQueueFull):
        await nowhere.send(prediction(1.0))

    assert nowhere.counts.dropped == 6
    await nowhere.stop(drain_s=0.1)
    assert nowhere.counts.failed == 10
    assert nowhere.counts.offered == 16


async def test_a_broker_that_dies_loses_nothing(infrastructure: Infrastructure, topics: Topics) -> None:
    names = await telemetry_topics(topics)
    producer = TelemetryProducer(topics.bootstrap, topics=names, config=ProducerConfig(timeout_s=3))
    ids = [await producer.send(prediction(0.0))]

    killed = infrastructure.kill("kafka")
    ids += [producer.put(prediction(float(index))) for index in range(100)]
    infrastructure.wait_ready("kafka", other_than=killed)
    ids.append(await producer.send(prediction(1.0)))
    await producer.stop()

    batches = await read_all(
        topics.bootstrap, names[Kind.PREDICTIONS], lambda got: {i for each in got for i in each.ids} >= set(ids)
    )
    by_number = {(batch.shard, batch.seq): tuple(batch.ids) for batch in batches}
    assert sorted(each for some in by_number.values() for each in some) == sorted(ids)


async def test_what_a_killed_producer_lost_is_told_by_the_next(topics: Topics, tmp_path: Path) -> None:
    names = await telemetry_topics(topics)
    script = textwrap.dedent("""
        import os, sys
        from pathlib import Path
        from headrace.kafka.ledger import Kind, Ledger
        ledger = Ledger(Path(sys.argv[1]))
        for shard in range(24):
            ledger.hand_out(Kind.PREDICTIONS, shard)
        os.kill(os.getpid(), 9)
    """)
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "ledger")], check=False)  # noqa: ASYNC221

    producer = TelemetryProducer(topics.bootstrap, topics=names, ledger_path=tmp_path / "ledger")
    await producer.send(prediction(1.0))
    await producer.stop()

    batches = await read_all(topics.bootstrap, names[Kind.PREDICTIONS], lambda got: len(got) >= 2)
    told, sent = batches
    assert (len(told.ids), told.seq) == (0, 2)
    assert (len(sent.ids), sent.seq) == (1, 1)
    assert told.producer_id == sent.producer_id
    assert told.epoch < sent.epoch
    assert decode_predictions(told).rows == 0
