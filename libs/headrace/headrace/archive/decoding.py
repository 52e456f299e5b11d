"""Records of telemetry topics as batches."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from headrace.api.common.v1.telemetry_pb2 import LabelBatch, PredictionBatch
from headrace.archive.record import Record
from headrace.kafka.batches import Labels, Predictions, decode_labels, decode_predictions
from headrace.kafka.errors import InvalidBatch
from headrace.kafka.shards import LABELS_TOPIC


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """A record that could be read.

    Attributes:
        offset: Of the record.
        head: The message.
        body: Its arrays.
        rows: Predicted rows, or labels.
    """

    offset: int
    head: PredictionBatch | LabelBatch
    body: Predictions | Labels
    rows: int

    @property
    def group(self) -> tuple[str, str, str, int]:
        """Project, endpoint, digest of the columns, type of the labels: what may lie in one table."""
        if isinstance(self.head, LabelBatch):
            return self.head.project, self.head.endpoint, "", int(self.head.values.datatype)
        return self.head.project, self.head.endpoint, self.head.schema_digest, 0


def decoded(record: Record) -> Batch | None:
    """The batch in a record; None when it can not be read, as the monitor would quarantine it."""
    try:
        if is_labels(record.topic):
            labels = LabelBatch.FromString(record.value or b"")
            known = decode_labels(labels)
            return Batch(record.offset, labels, known, len(known.rows))
        predictions = PredictionBatch.FromString(record.value or b"")
        body = decode_predictions(predictions)
    except (DecodeError, InvalidBatch):
        return None
    return Batch(record.offset, predictions, body, body.rows)


def is_labels(topic: str) -> bool:
    """Whether a topic has labels."""
    return topic == LABELS_TOPIC or topic.endswith(".labels.v1")
