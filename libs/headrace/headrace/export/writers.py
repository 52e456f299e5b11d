"""Files of events. The same events give the same bytes, however they come in."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import orjson
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError

from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.client import Client
from headrace.errors import FailedPrecondition
from headrace.export.envelope import rfc3339, structured
from headrace.export.ranges import LogRange, read_range
from headrace.story import decode


class Format(StrEnum):
    """Formats of exports."""

    PARQUET = "parquet"
    JSONL = "jsonl"
    CLOUDEVENTS = "cloudevents"

    @property
    def suffix(self) -> str:
        """What its files' names end in."""
        return {"parquet": ".parquet", "jsonl": ".jsonl", "cloudevents": ".cloudevents.jsonl"}[self]


class Writer(Protocol):
    """Writes one file; a context manager that finishes the file at its end."""

    def copy(self, client: Client, wanted: LogRange) -> Iterator[tuple[int, bytes]]:
        """Reads a range and adds it; says each time how many events that were, and the leaf of the last of them.

        Raises:
            InternalError: the log has a hole.
            grpc.RpcError: the service can not be reached.
        """
        ...

    def __enter__(self) -> Self:
        """Begins."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends."""
        ...


class JsonLinesWriter:
    """One JSON object a line.

    Args:
        path: The file.
        render: An entry as an object.
    """

    def __init__(self, path: Path, render: Callable[[LogEntry], object]) -> None:
        self._file = path.open("xb")
        self._render = render

    def copy(self, client: Client, wanted: LogRange) -> Iterator[tuple[int, bytes]]:
        """As ``Writer.copy``: a line for each event."""
        options = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SORT_KEYS
        for entries in read_range(client, wanted):
            self._file.writelines(orjson.dumps(self._render(entry), option=options) for entry in entries)
            yield len(entries), entries[-1].leaf

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def open_writer(kind: Format, path: Path) -> Writer:
    """A writer of a new file.

    Raises:
        FailedPrecondition: pyarrow is missing, which Parquet needs.
        FileExistsError: there is such a file.
    """
    if kind is Format.PARQUET:
        try:
            from headrace.export.parquet import ParquetWriter  # noqa: PLC0415 - pyarrow is an extra
        except ImportError as error:
            message = "Parquet needs pyarrow: install headrace[export], or choose jsonl or cloudevents"
            raise FailedPrecondition(message, field="format", reason="PYARROW_MISSING") from error
        return ParquetWriter(path)
    return JsonLinesWriter(path, structured if kind is Format.CLOUDEVENTS else as_object)


def as_object(entry: LogEntry) -> dict[str, object]:
    """Everything of an entry; ``message`` is the event decoded, null when its type is not known here."""
    meta = entry.meta
    try:
        message = decode(entry)
    except DecodeError:
        message = None
    return {
        "source": entry.source,
        "position": entry.position,
        "event_id": entry.event_id,
        "stream_id": entry.stream_id,
        "version": entry.version,
        "type": entry.type,
        "occurred_at": rfc3339(entry.occurred_at),
        "recorded_at": rfc3339(entry.recorded_at),
        "sequenced_at": rfc3339(entry.sequenced_at),
        "hlc": entry.hlc,
        "actor": meta.actor,
        "on_behalf_of": meta.on_behalf_of,
        "causation_id": meta.causation_id,
        "correlation_id": meta.correlation_id,
        "command_id": meta.command_id,
        "traceparent": meta.traceparent,
        "project": meta.project,
        "message": None if message is None else MessageToDict(message, preserving_proto_field_name=True),
        "data_base64": b64encode(entry.data).decode("ascii"),
        "leaf": entry.leaf.hex(),
    }
