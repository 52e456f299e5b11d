"""Records and rows as Parquet. Settings are fixed: the same records and the same pyarrow give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.archive.decoding import Batch, decoded
from headrace.archive.record import Record
from headrace.errors import InternalError
from headrace.kafka.batches import Labels, Predictions
from headrace.kafka.columns import MISSING_CODE, ColumnData

GROUP_ROWS: Final = 65_536
_GROUP_RECORDS: Final = 256
_SETTINGS: Final[dict[str, Any]] = {
    "version": "2.6",
    "compression": "zstd",
    "compression_level": 3,
    "data_page_version": "1.0",
    "data_page_size": 1024 * 1024,
    "store_schema": False,
}
_MOMENT_MS: Final = pa.timestamp("ms", tz="UTC")
_MOMENT_US: Final = pa.timestamp("us", tz="UTC")
_HEADERS: Final = pa.list_(pa.struct([pa.field("name", pa.string(), nullable=False), pa.field("value", pa.binary())]))
RECORDS_SCHEMA: Final = pa.schema(
    [
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp", _MOMENT_MS, nullable=False),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("headers", _HEADERS, nullable=False),
        # What the value says, for queries; null where it can not be read.
        pa.field("project", pa.string()),
        pa.field("endpoint", pa.string()),
        pa.field("shard", pa.int32()),
        pa.field("producer_id", pa.string()),
        pa.field("epoch", pa.int64()),
        pa.field("seq", pa.int64()),
        pa.field("rows", pa.int64()),
    ]
)
_HEAD: Final = [
    pa.field("offset", pa.int64(), nullable=False),
    pa.field("producer_id", pa.string(), nullable=False),
    pa.field("epoch", pa.int64(), nullable=False),
    pa.field("seq", pa.int64(), nullable=False),
    pa.field("project", pa.string(), nullable=False),
    pa.field("endpoint", pa.string(), nullable=False),
    pa.field("prediction_id", pa.string(), nullable=False),
    pa.field("row", pa.int64(), nullable=False),
    pa.field("time", _MOMENT_US, nullable=False),
]
_PREFIXES: Final = {1: "input_", 2: "output_", 3: "segment_"}


@dataclass(frozen=True, slots=True)
class RowsFile:
    """Rows of one endpoint and one set of columns, decoded.

    Attributes:
        project: Project id.
        endpoint: Endpoint id.
        schema_digest: Digest of the columns; empty for labels.
        rows: Rows of the file.
        content: Its bytes.
    """

    project: str
    endpoint: str
    schema_digest: str
    rows: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Encoded:
    """A range of records as files.

    Attributes:
        records: The file of all records, as they are.
        rows: Files of what could be decoded, by project, endpoint and columns.
        count: Rows in them.
    """

    records: bytes
    rows: tuple[RowsFile, ...]
    count: int


def encode(records: Sequence[Record]) -> Encoded:
    """Records of one partition, in order, as Parquet files.

    A file of rows has one row for each predicted row (or label): where it lies (``offset``, ``producer_id``, ``epoch``,
    ``seq``), ``project``, ``endpoint``, ``prediction_id``, ``row``, ``time``, then ``model_version`` and the columns,
    named ``input_``, ``output_`` or ``segment_`` and their own name; or ``label``. A batch that was sent twice is there
    twice, under the same producer, epoch and seq.
    """
    # No two ranges have a file in common, whatever is in them: one may be deleted without the other.
    about = {"headrace.topic": records[0].topic, "headrace.partition": str(records[0].partition)} if records else {}
    batches = [decoded(record) for record in records]
    groups: dict[tuple[str, str, str, int], list[Batch]] = {}
    for batch in batches:
        if batch is not None and batch.rows:
            groups.setdefault(batch.group, []).append(batch)
    files = tuple(
        RowsFile(
            project=project,
            endpoint=endpoint,
            schema_digest=digest,
            rows=sum(each.rows for each in members),
            content=_write(_rows_table(members), GROUP_ROWS, about),
        )
        for (project, endpoint, digest, _), members in sorted(groups.items())
    )
    content = _write(_records_table(records, batches), _GROUP_RECORDS, about)
    return Encoded(content, files, sum(file.rows for file in files))


def read_records(data: bytes, *, topic: str, partition: int) -> list[Record]:
    """The records of a file, as they lay in Kafka.

    Raises:
        InternalError: it is no such file.
    """
    try:
        # Without threads: some would still let go of the bytes while the interpreter ends, which aborts the process.
        with pq.ParquetFile(pa.BufferReader(data), pre_buffer=False) as file:
            table = file.read(columns=["offset", "timestamp", "key", "value", "headers"], use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise InternalError("the archived records can not be read", reason="ARCHIVE_FILE") from error
    times = table["timestamp"].cast(pa.int64()).to_pylist()
    columns = (table[name].to_pylist() for name in ("offset", "key", "value", "headers"))
    return [
        Record(topic, partition, offset, time, key, value, tuple((each["name"], each["value"]) for each in headers))
        for time, offset, key, value, headers in zip(times, *columns, strict=True)
    ]


def rows_of(batch: Batch) -> list[dict[str, Any]]:  # Any: whatever the columns hold
    """The rows of a batch by column, as a file of rows has them."""
    found: list[dict[str, Any]] = _rows(batch).to_pylist()
    return found


def _records_table(records: Sequence[Record], batches: Sequence[Batch | None]) -> Any:  # noqa: ANN401 - pyarrow has no types
    def heads(name: str) -> list[Any]:
        return [None if batch is None else getattr(batch.head, name) for batch in batches]

    columns: list[list[Any]] = [
        [record.offset for record in records],
        [record.timestamp_ms for record in records],
        [record.key for record in records],
        [record.value for record in records],
        [[{"name": name, "value": value} for name, value in record.headers] for record in records],
        heads("project"),
        heads("endpoint"),
        heads("shard"),
        heads("producer_id"),
        heads("epoch"),
        heads("seq"),
        [None if batch is None else batch.rows for batch in batches],
    ]
    arrays = [pa.array(values, type=field.type) for values, field in zip(columns, RECORDS_SCHEMA, strict=True)]
    return pa.table(arrays, schema=RECORDS_SCHEMA)


def _rows_table(batches: Sequence[Batch]) -> Any:  # noqa: ANN401 - as above
    parts = [_rows(batch) for batch in batches]
    return pa.concat_tables(parts).combine_chunks()


def _rows(batch: Batch) -> Any:  # noqa: ANN401 - as above
    body, rows = batch.body, batch.rows
    counts = body.row_counts.astype(np.int64)
    ids = np.repeat(np.asarray(body.ids, dtype=object), counts)
    if isinstance(body, Labels):
        numbers: Any = body.rows.astype(np.int64)
        times, own = body.times_us, [("label", body.values)]
    else:
        numbers = np.arange(rows, dtype=np.int64) - np.repeat(np.cumsum(counts) - counts, counts)
        times, own = (
            np.repeat(body.times_us, counts),
            [(f"{_PREFIXES[each.role]}{each.name}", each) for each in body.columns],
        )
    head = batch.head
    where: list[Any] = [
        np.full(rows, batch.offset, dtype=np.int64),
        [head.producer_id] * rows,
        np.full(rows, head.epoch, dtype=np.int64),
        np.full(rows, head.seq, dtype=np.int64),
        [body.project] * rows,
        [body.endpoint] * rows,
        ids,
        numbers,
        times,
    ]
    arrays = [pa.array(values, type=field.type) for values, field in zip(where, _HEAD, strict=True)]
    fields = list(_HEAD)
    if isinstance(body, Predictions):
        arrays.append(pa.array([body.model_version] * rows, type=pa.string()))
        fields.append(pa.field("model_version", pa.string(), nullable=False))
    for name, column in own:
        array = _array(column)
        arrays.append(array)
        fields.append(pa.field(name, array.type))
    return pa.table(arrays, schema=pa.schema(fields))


def _array(column: ColumnData) -> Any:  # noqa: ANN401 - as above
    if column.dictionary is not None:
        codes = pa.array(column.values, mask=column.values == MISSING_CODE)
        return pa.array(column.dictionary, type=pa.string()).take(codes)
    values = column.values
    if values.dtype == np.dtype("<f2"):  # every half is a single, and more tools read those
        values = values.astype("<f4")
    return pa.array(values)


def _write(table: Any, group_rows: int, about: dict[str, str]) -> bytes:  # noqa: ANN401 - pyarrow has no types
    target = io.BytesIO()
    writer: Any
    with pq.ParquetWriter(target, table.schema, **_SETTINGS) as writer:
        writer.write_table(table, row_group_size=group_rows)
        writer.add_key_value_metadata(about)
    return target.getvalue()
