"""Telemetry as it travels: batches of predictions and labels as columns, and the shard each one belongs to.

The codec needs NumPy alone. The producer (:mod:`headrace.kafka.producer`) needs the extra ``headrace[kafka]``.
"""

from headrace.kafka.batches import (
    MAX_BATCH_BYTES,
    MAX_BATCH_ROWS,
    Labels,
    Predictions,
    decode_labels,
    decode_predictions,
    encode_labels,
    encode_predictions,
    schema_digest,
)
from headrace.kafka.columns import ColumnData
from headrace.kafka.errors import InvalidBatch, TelemetryError, TelemetryQueueFull, TelemetryUnsent
from headrace.kafka.parts import group_labels
from headrace.kafka.shards import LABELS_TOPIC, PREDICTIONS_TOPIC, SHARDS, new_id, partition_of, shard_of

__all__ = [
    "LABELS_TOPIC",
    "MAX_BATCH_BYTES",
    "MAX_BATCH_ROWS",
    "PREDICTIONS_TOPIC",
    "SHARDS",
    "ColumnData",
    "InvalidBatch",
    "Labels",
    "Predictions",
    "TelemetryError",
    "TelemetryQueueFull",
    "TelemetryUnsent",
    "decode_labels",
    "decode_predictions",
    "encode_labels",
    "encode_predictions",
    "group_labels",
    "new_id",
    "partition_of",
    "schema_digest",
    "shard_of",
]
