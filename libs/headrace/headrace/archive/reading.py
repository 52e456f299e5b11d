"""A telemetry topic and its archive as one stream: what is archived from the object store, the rest from Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final, Protocol

from headrace.api.monitor.v1 import service_pb2 as service
from headrace.api.monitor.v1.resources_pb2 import ArchivedRange
from headrace.archive.files import download, records_file, verified_records
from headrace.archive.record import Record
from headrace.client import Client
from headrace.errors import InternalError
from headrace.kafka.reading import Bounds, RecordsGone, TopicReader

CHUNK_BYTES: Final = 8 * 1024 * 1024
"""Most bytes of records that are read from Kafka at once."""
_PAGE: Final = 100


class Archive(Protocol):
    """Where archived ranges are found: a platform's monitor, or the monitor's own tables."""

    async def ranges(self, topic: str, partition: int, *, from_offset: int) -> Sequence[ArchivedRange]:
        """Some ranges that end at an offset or later, by offset; empty when there are none."""
        ...

    async def records(self, archived: ArchivedRange) -> list[Record]:
        """The records of a range, verified."""
        ...


class RemoteArchive:
    """The archive of a platform, by its monitor and presigned URLs."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def ranges(self, topic: str, partition: int, *, from_offset: int) -> Sequence[ArchivedRange]:
        """As ``Archive.ranges``. Raises grpc.RpcError when the monitor does not answer."""
        request = service.ListArchivedRangesRequest(
            topic=topic, partition=partition, from_offset=from_offset, page_size=_PAGE
        )
        return (await asyncio.to_thread(self._client.archive.ListArchivedRanges, request)).ranges

    async def records(self, archived: ArchivedRange) -> list[Record]:
        """As ``Archive.records``.

        Raises:
            InternalError: the store does not hold what the log says.
            Unavailable: the store can not be reached.
        """
        return await asyncio.to_thread(self._records, archived.name)

    def _records(self, name: str) -> list[Record]:
        found = self._client.archive.GetArchivedRange(service.GetArchivedRangeRequest(name=name))
        file = records_file(found.files)
        return verified_records(download(file.url, file.object), found.range)


async def read_stream(
    archive: Archive, reader: TopicReader, partition: int, *, offset: int = 0, end: int | None = None
) -> AsyncIterator[list[Record]]:
    """Every record of a partition from an offset on, in order, none twice: from the archive, then from Kafka.

    While it reads, ranges may be archived and dropped from Kafka: what Kafka lost is sought in the archive again.

    Args:
        archive: Where archived ranges are.
        reader: Entered already.
        partition: Of the reader's topic.
        offset: First offset wanted.
        end: First offset no longer wanted; by default where Kafka ends now.

    Raises:
        InternalError: records are missing that neither has; their offsets are named.
        TelemetryError: Kafka does not answer.
    """
    stop = (await _bounds(reader, partition)).end if end is None else end
    at = offset
    while at < stop:
        ranges = await archive.ranges(reader.topic, partition, from_offset=at)
        for each in ranges:
            if each.first_offset >= stop:
                return
            _require_no_gap(reader.topic, partition, at, each.first_offset, wanted=offset)
            records = await archive.records(each)
            yield [record for record in records if at <= record.offset < stop]
            at = each.last_offset + 1
        if ranges:
            continue
        bounds = await _bounds(reader, partition)
        stop = min(stop, bounds.end)
        if at >= stop:
            return
        if at < bounds.first and not await archive.ranges(reader.topic, partition, from_offset=at):
            _require_no_gap(reader.topic, partition, at, bounds.first, wanted=offset)
            at = bounds.first
        try:
            records = await reader.read(partition, offset=at, end=stop, max_bytes=CHUNK_BYTES)
        except RecordsGone:
            continue  # archived and dropped meanwhile
        yield records
        at = records[-1].offset + 1


async def _bounds(reader: TopicReader, partition: int) -> Bounds:
    return (await reader.bounds()).get(partition, Bounds(0, 0))


def _require_no_gap(topic: str, partition: int, at: int, found: int, *, wanted: int) -> None:
    """The stream may begin later than what was asked for; from then on nothing may be missing."""
    if found > at > wanted:
        raise InternalError(f"offsets {at} to {found - 1} of {topic}/{partition} are gone", reason="ARCHIVE_HOLE")
