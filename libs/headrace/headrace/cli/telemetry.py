"""``headrace telemetry``: predictions and labels, archived and not, as one stream."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from headrace.api.monitor.v1 import service_pb2 as service
from headrace.cli.output import Json, print_json, print_table, short, when
from headrace.client import Client, connect
from headrace.connection import find
from headrace.errors import FailedPrecondition, InternalError, NotConnected, Unavailable, rpc_errors

if TYPE_CHECKING:
    from headrace.archive.record import Record
    from headrace.archive.verifying import RangeReport

_EXTRAS = "this needs pyarrow and aiokafka: install headrace[export,kafka]"
app = typer.Typer(help="Predictions and labels: what is archived, and all of it as one stream.", no_args_is_help=True)


class Kind(StrEnum):
    """Telemetry topics."""

    PREDICTIONS = "predictions"
    LABELS = "labels"

    @property
    def topic(self) -> str:
        """Name of the topic."""
        return f"headrace.telemetry.{self}.v1"


@app.command()
def status(as_json: Json = False) -> None:
    """Print how far each partition is counted and archived."""
    with connect() as client:
        found = client.archive.GetArchiveStatus(service.GetArchiveStatusRequest()).partitions
    if as_json:
        print_json(list(found))
        return
    rows = [
        (
            f"{each.topic}/{each.partition}",
            each.counted_offset,
            each.next_offset,
            each.ranges,
            each.rows,
            each.size_bytes,
            when(each.last_time),
        )
        for each in found
    ]
    columns = ("partition", "counted to", "archived to", "ranges", "rows", "bytes", "until")
    print_table("telemetry", columns, rows, empty="There is no telemetry yet.")


@app.command()
def ranges(
    kind: Annotated[Kind, typer.Argument(help="predictions or labels.")],
    partition: Annotated[int, typer.Argument(min=0, help="Partition.")],
    start: Annotated[int, typer.Option("--from", min=0, help="First offset.")] = 0,
    as_json: Json = False,
) -> None:
    """Print the archived ranges of a partition, with their roots."""
    request = service.ListArchivedRangesRequest(
        topic=kind.topic, partition=partition, from_offset=start, page_size=1000
    )
    with connect() as client:
        found = client.archive.ListArchivedRanges(request).ranges
    if as_json:
        print_json(list(found))
        return
    rows = [
        (short(each.name), each.last_offset, each.records, each.rows, len(each.rewrites), each.root.hex())
        for each in found
    ]
    columns = ("first", "last", "records", "rows", "rewritten", "root")
    print_table(f"{kind} {partition}", columns, rows, empty="Nothing is archived.")


@app.command()
def verify(as_json: Json = False) -> None:
    """Read every archived range and hold it to the log; exit status 1 when one is not what the log says."""
    try:
        from headrace.archive.verifying import verify_archive
    except ImportError as error:
        raise FailedPrecondition(_EXTRAS, reason="EXTRAS_MISSING") from error
    with connect() as client:
        found = list(verify_archive(client))
    if as_json:
        print_json([_report(each) for each in found])
    else:
        rows = [
            (
                f"{each.topic}/{each.partition}",
                each.first_offset,
                each.last_offset,
                "; ".join(each.faults) or ("erased" if each.erased else "whole"),
                "; ".join(
                    f"{root.old_root.hex()[:16]} {root.reason} {root.person} {root.rows} rows" for root in each.erased
                ),
            )
            for each in found
        ]
        columns = ("partition", "first", "last", "is", "erased since")
        print_table("archived ranges", columns, rows, empty="Nothing is archived.")
    if any(each.faults for each in found):
        raise typer.Exit(1)


@app.command()
def read(
    kind: Annotated[Kind, typer.Argument(help="predictions or labels.")],
    partition: Annotated[list[int] | None, typer.Option(min=0, help="Only this; may be repeated.")] = None,
    start: Annotated[int, typer.Option("--from", min=0, help="First offset, of each partition.")] = 0,
    end: Annotated[int | None, typer.Option("--to", min=0, help="First offset no longer wanted.")] = None,
    project: Annotated[str, typer.Option(help="Only rows of this project.")] = "",
    endpoint: Annotated[str, typer.Option(help="Only rows of this endpoint.")] = "",
    raw: Annotated[bool, typer.Option("--raw", help="Print records as they lay in Kafka, values in base64.")] = False,
    bootstrap: Annotated[str, typer.Option(help="Another Kafka than the platform's.")] = "",
) -> None:
    """Print telemetry as JSON, a row a line: what is archived from the object store, the rest from Kafka.

    Rows come once each, without what producers sent again. Partitions come one after the other.
    """
    try:
        from headrace.archive.reading import RemoteArchive, read_stream
        from headrace.kafka.errors import TelemetryError
        from headrace.kafka.reading import TopicReader
    except ImportError as error:
        raise FailedPrecondition(_EXTRAS, reason="EXTRAS_MISSING") from error
    connection = find()
    where = bootstrap or connection.kafka_bootstrap
    if not where:
        raise NotConnected("nothing is known of Kafka: give --bootstrap", reason="KAFKA_UNKNOWN")

    async def records(client: Client) -> AsyncIterator[list[Record]]:
        async with TopicReader(where, kind.topic) as reader:
            for each in partition or sorted(await reader.bounds()):
                async for found in read_stream(RemoteArchive(client), reader, each, offset=start, end=end):
                    yield found

    async def work(client: Client) -> None:
        rows = _Rows(project, endpoint)
        async for found in records(client):
            for record in found:
                _write([_as_object(record)] if raw else rows.of(record))

    try:
        with Client(connection) as client, rpc_errors():
            asyncio.run(work(client))
    except TelemetryError as error:
        kinds = Unavailable if error.retryable else InternalError
        raise kinds(error.message, reason=error.reason) from error


def _report(found: RangeReport) -> Mapping[str, object]:
    erased = [
        {
            "old_root": each.old_root.hex(),
            "new_root": each.new_root.hex(),
            "reason": each.reason,
            "person": each.person,
            "rows": each.rows,
            "time": each.time,
            "event_id": each.event_id,
        }
        for each in found.erased
    ]
    return {
        "range": found.name,
        "topic": found.topic,
        "partition": found.partition,
        "first_offset": found.first_offset,
        "last_offset": found.last_offset,
        "root": found.root.hex(),
        "erased": erased,
        "faults": list(found.faults),
    }


class _Rows:
    """Rows of records that come in order, each once: what a producer sent again is passed over, as the monitor does."""

    def __init__(self, project: str, endpoint: str) -> None:
        self._project, self._endpoint = project, endpoint
        self._last: dict[tuple[int, int, str, int], int] = {}

    def of(self, record: Record) -> list[Mapping[str, object]]:
        """Rows of a record; empty for what is filtered, repeated, or can not be read."""
        from headrace.archive.decoding import decoded
        from headrace.archive.parquet import rows_of

        batch = decoded(record)
        if batch is None:
            return []
        head = batch.head
        producer = record.partition, head.shard, head.producer_id, head.epoch
        repeated = self._last.get(producer, 0) >= head.seq
        self._last[producer] = max(self._last.get(producer, 0), head.seq)
        if (
            repeated
            or (self._project or head.project) != head.project
            or (self._endpoint or head.endpoint) != head.endpoint
        ):
            return []
        return [{"partition": record.partition, **row} for row in rows_of(batch)]


def _as_object(record: Record) -> Mapping[str, object]:
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        "key": None if record.key is None else b64encode(record.key).decode("ascii"),
        "value": None if record.value is None else b64encode(record.value).decode("ascii"),
        "headers": [[name, None if each is None else b64encode(each).decode("ascii")] for name, each in record.headers],
    }


def _write(rows: list[Mapping[str, object]]) -> None:
    for row in rows:
        typer.echo(orjson.dumps(row, option=orjson.OPT_UTC_Z | orjson.OPT_SERIALIZE_NUMPY).decode())
