"""Batches of predictions and labels: arrays in memory, columns on the wire."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.api.common.v1 import telemetry_pb2
from headrace.kafka.columns import ColumnData, decode_array, decode_column, encode_column
from headrace.kafka.errors import InvalidBatch
from headrace.kafka.shards import SHARDS, shard_of

MAX_BATCH_BYTES = 4 * 1024 * 1024
MAX_BATCH_ROWS = 65_536
MAX_ID_CHARS = 250
EARLIEST_US = -2_208_988_800_000_000
"""1900-01-01 UTC, the least time of a request or label."""
LATEST_US = 7_258_118_400_000_000
"""2200-01-01 UTC, the greatest."""

_COUNTS = np.dtype("<u4")
_TIMES = np.dtype("<i8")

_ROLES = (
    telemetry_pb2.COLUMN_ROLE_INPUT,
    telemetry_pb2.COLUMN_ROLE_OUTPUT,
    telemetry_pb2.COLUMN_ROLE_SEGMENT,
)


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Requests of one endpoint and version on one shard: ``k`` requests with ``n`` rows in all, in request order."""

    project: str
    endpoint: str
    model_version: str
    shard: int
    ids: Sequence[str]
    row_counts: NDArray[np.uint32]
    """``(k,)``."""
    times_us: NDArray[np.int64]
    """``(k,)`` event time, microseconds since 1970 UTC."""
    columns: Sequence[ColumnData]
    """Each ``(n,)``."""

    @property
    def rows(self) -> int:
        """Rows in all."""
        return int(self.row_counts.sum())


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """True values for predictions of one endpoint on one shard: ``k`` ids with ``n`` labels in all."""

    project: str
    endpoint: str
    shard: int
    ids: Sequence[str]
    row_counts: NDArray[np.uint32]
    """``(k,)`` labels of each id."""
    rows: NDArray[np.uint32]
    """``(n,)`` row within its prediction of each label."""
    times_us: NDArray[np.int64]
    """``(n,)`` when each label became known."""
    values: ColumnData
    """``(n,)``."""


def schema_digest(columns: Sequence[ColumnData]) -> str:
    """SHA-256 over names, roles and types of the columns in their order: 64 hex digits.

    Hashed are, per column, the length of its UTF-8 name as 4 bytes, the name, its role and its type as 1 byte each.
    """
    digest = hashlib.sha256()
    for column in columns:
        name = column.name.encode()
        digest.update(len(name).to_bytes(4, "little") + name + bytes((column.role, column.datatype)))
    return digest.hexdigest()


def encode_predictions(
    predictions: Predictions, *, producer_id: str, epoch: int, seq: int
) -> telemetry_pb2.PredictionBatch:
    """The batch on the wire."""
    return telemetry_pb2.PredictionBatch(
        project=predictions.project,
        endpoint=predictions.endpoint,
        model_version=predictions.model_version,
        schema_digest=schema_digest(predictions.columns),
        shard=predictions.shard,
        producer_id=producer_id,
        epoch=epoch,
        seq=seq,
        ids=predictions.ids,
        row_counts=predictions.row_counts.astype(_COUNTS, copy=False).tobytes(),
        times_us=predictions.times_us.astype(_TIMES, copy=False).tobytes(),
        columns=[encode_column(column) for column in predictions.columns],
    )


def decode_predictions(batch: telemetry_pb2.PredictionBatch, *, field: str = "") -> Predictions:
    """The batch as arrays that view its bytes.

    Args:
        batch: As it came.
        field: Path of the batch within its request, for errors: ``batches[3]``.

    Raises:
        InvalidBatch: a length, type, shard or size is not what the protocol says.
    """
    at = f"{field}." if field else ""
    _check_head(batch, at)
    row_counts = decode_array(batch.row_counts, _COUNTS, rows=len(batch.ids), field=f"{at}row_counts")
    rows = _check_rows(row_counts, at)
    times_us = decode_array(batch.times_us, _TIMES, rows=len(batch.ids), field=f"{at}times_us")
    _check_times(times_us, at)
    columns = [
        decode_column(column, rows=rows, field=f"{at}columns[{index}]") for index, column in enumerate(batch.columns)
    ]
    _check_columns(columns, at)
    if batch.ids and batch.schema_digest != schema_digest(columns):
        raise InvalidBatch("schema_digest is not the digest of the columns", field=f"{at}schema_digest")
    return Predictions(
        project=batch.project,
        endpoint=batch.endpoint,
        model_version=batch.model_version,
        shard=batch.shard,
        ids=batch.ids,
        row_counts=row_counts,
        times_us=times_us,
        columns=columns,
    )


def encode_labels(labels: Labels, *, producer_id: str, epoch: int, seq: int) -> telemetry_pb2.LabelBatch:
    """The batch on the wire."""
    return telemetry_pb2.LabelBatch(
        project=labels.project,
        endpoint=labels.endpoint,
        shard=labels.shard,
        producer_id=producer_id,
        epoch=epoch,
        seq=seq,
        ids=labels.ids,
        row_counts=labels.row_counts.astype(_COUNTS, copy=False).tobytes(),
        rows=labels.rows.astype(_COUNTS, copy=False).tobytes(),
        times_us=labels.times_us.astype(_TIMES, copy=False).tobytes(),
        values=encode_column(labels.values),
    )


def decode_labels(batch: telemetry_pb2.LabelBatch, *, field: str = "") -> Labels:
    """The batch as arrays that view its bytes.

    Raises:
        InvalidBatch: as for predictions.
    """
    at = f"{field}." if field else ""
    _check_head(batch, at)
    row_counts = decode_array(batch.row_counts, _COUNTS, rows=len(batch.ids), field=f"{at}row_counts")
    count = _check_rows(row_counts, at)
    rows = decode_array(batch.rows, _COUNTS, rows=count, field=f"{at}rows")
    if count and int(rows.max()) >= MAX_BATCH_ROWS:
        raise InvalidBatch(f"a prediction has at most {MAX_BATCH_ROWS} rows", field=f"{at}rows")
    times_us = decode_array(batch.times_us, _TIMES, rows=count, field=f"{at}times_us")
    _check_times(times_us, at)
    if count or batch.HasField("values"):
        values = decode_column(batch.values, rows=count, field=f"{at}values")
    else:
        values = ColumnData("label", np.empty(0, dtype="<f8"))
    return Labels(
        project=batch.project,
        endpoint=batch.endpoint,
        shard=batch.shard,
        ids=batch.ids,
        row_counts=row_counts,
        rows=rows,
        times_us=times_us,
        values=values,
    )


def _check_head(batch: telemetry_pb2.PredictionBatch | telemetry_pb2.LabelBatch, at: str) -> None:
    if batch.ByteSize() > MAX_BATCH_BYTES:
        raise InvalidBatch(f"a batch has at most {MAX_BATCH_BYTES} bytes", field=at.rstrip("."))
    for name, value in (("project", batch.project), ("endpoint", batch.endpoint), ("producer_id", batch.producer_id)):
        if not 1 <= len(value) <= MAX_ID_CHARS:
            raise InvalidBatch(f"{name} has 1 to {MAX_ID_CHARS} characters", field=f"{at}{name}")
    if not 1 <= batch.seq < 2**63:
        raise InvalidBatch("seq counts from 1", field=f"{at}seq")
    if batch.epoch >= 2**63:
        raise InvalidBatch("epoch is below 2^63", field=f"{at}epoch")
    if batch.shard >= SHARDS:
        raise InvalidBatch(f"shard is 0 to {SHARDS - 1}", field=f"{at}shard")
    for index, each in enumerate(batch.ids):
        if not 1 <= len(each) <= MAX_ID_CHARS:
            raise InvalidBatch(f"an id has 1 to {MAX_ID_CHARS} characters", field=f"{at}ids[{index}]")
        if shard_of(each) != batch.shard:
            raise InvalidBatch(f"id is on shard {shard_of(each)}, not {batch.shard}", field=f"{at}ids[{index}]")


def _check_rows(row_counts: NDArray[np.uint32], at: str) -> int:
    rows = int(row_counts.sum(dtype=np.int64))
    if rows > MAX_BATCH_ROWS:
        raise InvalidBatch(f"a batch has at most {MAX_BATCH_ROWS} rows, not {rows}", field=f"{at}row_counts")
    return rows


def _check_times(times_us: NDArray[np.int64], at: str) -> None:
    if times_us.size and not EARLIEST_US <= times_us.min() <= times_us.max() <= LATEST_US:
        raise InvalidBatch("a time is not between 1900 and 2200, in microseconds since 1970", field=f"{at}times_us")


def _check_columns(columns: Sequence[ColumnData], at: str) -> None:
    seen: set[str] = set()
    for index, column in enumerate(columns):
        if column.role not in _ROLES:
            raise InvalidBatch(f"column {column.name} has no known role", field=f"{at}columns[{index}].role")
        if column.name in seen:
            raise InvalidBatch(f"column {column.name} appears twice", field=f"{at}columns[{index}].name")
        seen.add(column.name)
