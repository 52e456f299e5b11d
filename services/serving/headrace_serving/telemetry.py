"""Each answer becomes part of a prediction batch, off the hot path unless the endpoint wants it durable."""

import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from headrace.api.serving.v1 import resources_pb2 as resources
from headrace.kafka.columns import ColumnData
from headrace.kafka.errors import InvalidBatch, TelemetryQueueFull, TelemetryUnsent
from headrace.kafka.producer import Prediction, ProducerConfig, ProducerCounts, TelemetryProducer
from headrace.kafka.shards import SHARDS, new_id
from headrace_kit.errors import InvalidArgument, ResourceExhausted, Unavailable


class PredictionLog:
    """Hands answers to Kafka.

    Args:
        bootstrap: Kafka's addresses.
        ledger: File in which the producer keeps its numbers over restarts.
        queue_rows: Rows that wait for Kafka, above which more are dropped and counted.
    """

    def __init__(self, bootstrap: str, *, ledger: Path | None, queue_rows: int) -> None:
        self._producer = TelemetryProducer(bootstrap, ledger_path=ledger, config=ProducerConfig(queue_rows=queue_rows))

    @property
    def counts(self) -> ProducerCounts:
        """Rows by what became of them."""
        return self._producer.counts

    async def record(
        self,
        mode: resources.TelemetryMode.ValueType,
        *,
        endpoint: str,
        version: str,
        prediction_id: str,
        time_us: int,
        columns: Sequence[ColumnData],
    ) -> str:
        """Takes an answer and returns the prediction's id, made here when it is empty.

        Args:
            mode: ``ASYNC`` returns at once, and drops what does not fit; ``DURABLE`` returns when Kafka has it.
            endpoint: Resource name.
            version: Resource name.
            prediction_id: The client's own, or empty.
            time_us: Event time, microseconds since 1970 UTC.
            columns: ``(rows,)`` each.

        Raises:
            ResourceExhausted: Durable, and too much waits for Kafka.
            Unavailable: Durable, and Kafka does not answer.
        """
        if mode == resources.TELEMETRY_MODE_OFF or not columns:
            return prediction_id or new_id(secrets.randbelow(SHARDS))
        _, project, _, name = endpoint.split("/")
        prediction = Prediction(
            project=project, endpoint=name, model_version=version, time_us=time_us, columns=columns, id=prediction_id
        )
        try:
            if mode == resources.TELEMETRY_MODE_DURABLE:
                return await self._producer.send(prediction)
            return self._producer.put(prediction)
        except InvalidBatch as error:
            raise InvalidArgument(str(error), field="inputs") from error
        except TelemetryQueueFull as error:
            raise ResourceExhausted("too many predictions wait for Kafka", reason="TELEMETRY_FULL") from error
        except TelemetryUnsent as error:
            raise Unavailable("Kafka did not take the prediction in time", reason="TELEMETRY_UNSENT") from error

    async def stop(self, *, drain_s: float = 8.0) -> None:
        """Sends what is left, for at most ``drain_s``; the rest is counted as failed."""
        await self._producer.stop(drain_s=drain_s)


def now_us() -> int:
    """This moment, microseconds since 1970 UTC."""
    return time.time_ns() // 1000
