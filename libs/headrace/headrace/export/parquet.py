"""Parquet files of events. The one module that knows pyarrow.

Settings are fixed and groups of rows are cut by the events alone, so that the same events and the same pyarrow give the
same bytes; the files hold no time of writing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from headrace.api.audit.v1.resources_pb2 import EventMeta
from headrace.client import Client
from headrace.export.leaves import columns_of
from headrace.export.ranges import LogRange, read_leaves

GROUP_ROWS: Final = 65_536
GROUP_BYTES: Final = 64 * 1024 * 1024
"""A group of rows ends with the row that fills either; bytes are those of the leaves."""
LEAF: Final = 32
"""Bytes of a leaf."""
_META_FIELDS: Final = (
    "actor",
    "on_behalf_of",
    "causation_id",
    "correlation_id",
    "command_id",
    "traceparent",
    "project",
)
_of_meta: Final = attrgetter(*_META_FIELDS)
_FEW: Final = 500
"""Messages that are held at once: thousands would keep Python's collector busy."""
_DIGITS: Final = [place for place in range(36) if place not in {8, 13, 18, 23}]
_HEX: Final = np.frombuffer(b"".join(b"%02x" % value for value in range(256)), np.uint8).reshape(256, 2)
_MOMENT: Final = pa.timestamp("us", tz="UTC")
SCHEMA: Final = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("position", pa.int64(), nullable=False),
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("stream_id", pa.string(), nullable=False),
        pa.field("version", pa.int64(), nullable=False),
        pa.field("type", pa.string(), nullable=False),
        pa.field("occurred_at", _MOMENT, nullable=False),
        pa.field("recorded_at", _MOMENT, nullable=False),
        pa.field("sequenced_at", _MOMENT, nullable=False),
        pa.field("hlc", pa.int64(), nullable=False),
        pa.field("actor", pa.string(), nullable=False),
        pa.field("on_behalf_of", pa.string(), nullable=False),
        pa.field("causation_id", pa.string(), nullable=False),
        pa.field("correlation_id", pa.string(), nullable=False),
        pa.field("command_id", pa.string(), nullable=False),
        pa.field("traceparent", pa.string(), nullable=False),
        pa.field("project", pa.string(), nullable=False),
        pa.field("data", pa.binary(), nullable=False),
        pa.field("leaf", pa.binary(), nullable=False),
    ]
)
_SETTINGS: Final[dict[str, Any]] = {
    "version": "2.6",
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": ["source", "stream_id", "type", "actor", "on_behalf_of", "project"],
    "write_statistics": ["position", "sequenced_at", "type", "stream_id"],
    "data_page_version": "1.0",
    "data_page_size": 1024 * 1024,
    "store_schema": False,
}


class ParquetWriter:
    """As ``Writer``, fed with leaves: all fields of an entry are in them, and PostgreSQL puts them together."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self._writer: Any = pq.ParquetWriter(self._file, SCHEMA, **_SETTINGS)  # Any: pyarrow has no types
        self._contents: list[bytes] = []
        self._leaves = bytearray()
        self._bytes = 0
        self._worker = ThreadPoolExecutor(1, "parquet")
        self._writing: Future[None] | None = None  # one group at most, while the next one is read

    def copy(self, client: Client, wanted: LogRange) -> Iterator[tuple[int, bytes]]:
        """As ``Writer.copy``."""
        for part in read_leaves(client, wanted):
            self.write(part.leaf_bytes, part.leaves)
            yield len(part.positions), part.leaves[-LEAF:]

    def write(self, contents: Sequence[bytes], leaves: bytes) -> None:
        """Adds a row for each entry.

        Args:
            contents: The leaf bytes of each.
            leaves: The leaves that were stored, one after the other.
        """
        for content, end in zip(contents, range(LEAF, len(leaves) + 1, LEAF), strict=True):
            self._contents.append(content)
            self._leaves += leaves[end - LEAF : end]
            self._bytes += len(content)
            if len(self._contents) >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
                self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
                self._await_written()
        finally:
            self._worker.shutdown()
            self._writer.close()
            self._file.close()

    def _flush(self) -> None:
        self._await_written()
        if self._contents:
            self._writing = self._worker.submit(self._write_group, self._contents, bytes(self._leaves))
        self._contents, self._leaves, self._bytes = [], bytearray(), 0

    def _await_written(self) -> None:
        if self._writing is not None:
            self._writing.result()
        self._writing = None

    def _write_group(self, contents: Sequence[bytes], leaves: bytes) -> None:
        self._writer.write_table(_table(contents, leaves), row_group_size=GROUP_ROWS)


def _table(contents: Sequence[bytes], leaves: bytes) -> Any:  # noqa: ANN401 - pyarrow has no types
    columns = columns_of(contents)
    values: list[Any] = [
        columns.source,
        columns.position,
        _hyphenated(columns.event_id),
        columns.stream_id,
        columns.version,
        columns.type,
        columns.occurred_at,
        columns.recorded_at,
        columns.sequenced_at,
        columns.hlc,
        *_meta_columns(columns.meta),
        columns.data,
        [leaves[at : at + LEAF] for at in range(0, len(leaves), LEAF)],
    ]
    arrays = [pa.array(value, type=field.type) for value, field in zip(values, SCHEMA, strict=True)]
    return pa.table(arrays, schema=SCHEMA)


def _meta_columns(metas: Sequence[bytes]) -> Sequence[Sequence[str]]:
    """Actor, on behalf of, causation, correlation, command, trace, project."""
    columns = [list[str]() for _ in range(len(_META_FIELDS))]
    for at in range(0, len(metas), _FEW):
        rows = zip(*(_of_meta(EventMeta.FromString(each)) for each in metas[at : at + _FEW]), strict=True)
        for column, values in zip(columns, rows, strict=True):
            column.extend(values)
    return columns


def _hyphenated(ids: NDArray[np.uint8]) -> Sequence[bytes]:
    """UUIDs as they are written, from (n, 16) bytes."""
    text = np.full((len(ids), 36), ord("-"), np.uint8)
    text[:, _DIGITS] = _HEX[ids].reshape(len(ids), 32)
    return text.view("S36").ravel().tolist()
