"""Parquet files of events. The one module that knows pyarrow.

Settings are fixed and groups of rows are cut by the events alone, so that the same events and the same pyarrow give the
same bytes; the files hold no time of writing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.api.audit.v1.resources_pb2 import LogEntry

GROUP_ROWS: Final = 65_536
GROUP_BYTES: Final = 64 * 1024 * 1024
"""A group of rows ends with the row that fills either."""
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
    """As ``Writer``."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self._writer: Any = pq.ParquetWriter(self._file, SCHEMA, **_SETTINGS)  # Any: pyarrow has no types
        self._rows: list[LogEntry] = []
        self._bytes = 0

    def write(self, entries: Iterable[LogEntry]) -> None:
        """Adds a row for each entry."""
        for entry in entries:
            self._rows.append(entry)
            self._bytes += len(entry.data)
            if len(self._rows) >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
                self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._flush()
            self._writer.close()
        finally:
            self._file.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(_table(self._rows), row_group_size=GROUP_ROWS)
        self._rows, self._bytes = [], 0


def _table(rows: Sequence[LogEntry]) -> Any:  # noqa: ANN401 - pyarrow has no types
    metas = [row.meta for row in rows]
    columns: list[list[Any]] = [
        [row.source for row in rows],
        [row.position for row in rows],
        [row.event_id for row in rows],
        [row.stream_id for row in rows],
        [row.version for row in rows],
        [row.type for row in rows],
        [(at := row.occurred_at).seconds * 1_000_000 + at.nanos // 1000 for row in rows],
        [(at := row.recorded_at).seconds * 1_000_000 + at.nanos // 1000 for row in rows],
        [(at := row.sequenced_at).seconds * 1_000_000 + at.nanos // 1000 for row in rows],
        [row.hlc for row in rows],
        [meta.actor for meta in metas],
        [meta.on_behalf_of for meta in metas],
        [meta.causation_id for meta in metas],
        [meta.correlation_id for meta in metas],
        [meta.command_id for meta in metas],
        [meta.traceparent for meta in metas],
        [meta.project for meta in metas],
        [row.data for row in rows],
        [row.leaf for row in rows],
    ]
    arrays = [pa.array(values, type=field.type) for values, field in zip(columns, SCHEMA, strict=True)]
    return pa.table(arrays, schema=SCHEMA)
