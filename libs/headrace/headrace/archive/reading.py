"""A telemetry topic and its archive as one stream: what is archived from the object store, the rest from Kafka."""

from __future__ import annotations

import asyncio
import hashlib
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Sequence
from typing import Final, Protocol

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.monitor.v1 import service_pb2 as service
from headrace.api.monitor.v1.resources_pb2 import ArchivedFile, ArchivedRange
from headrace.archive.manifest import RECORDS
from headrace.archive.parquet import read_records
from headrace.archive.record import Record, leaf_of
from headrace.client import Client
from headrace.errors import InternalError, Unavailable
from headrace.kafka.reading import Bounds, RecordsGone, TopicReader
from headrace.merkle import root_over

CHUNK_BYTES: Final = 8 * 1024 * 1024
"""Most bytes of records that are read from Kafka at once."""
_PAGE: Final = 100
_DOWNLOAD_S: Final = 60.0


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


def records_file(files: Sequence[ArchivedFile]) -> ArchivedFile:
    """The file of all records among a range's files. Raises InternalError when there is none."""
    for file in files:
        if file.kind == RECORDS:
            return file
    raise InternalError("the archived range has no file of records", reason="ARCHIVE_MANIFEST")


def verified_records(data: bytes, archived: ArchivedRange) -> list[Record]:
    """The records of a range, when they are those its root is over.

    Raises:
        InternalError: they are not.
    """
    records = read_records(data, topic=archived.topic, partition=archived.partition)
    if root_over(map(leaf_of, records)) != archived.root or len(records) != archived.records:
        raise InternalError(f"the records of {archived.name} are not those that were archived", reason="ARCHIVE_ROOT")
    return records


def download(url: str, reference: ObjectRef) -> bytes:
    """The bytes of an object, verified.

    Raises:
        InternalError: they are not those of its digest.
        Unavailable: the store does not give them.
    """
    try:
        with urllib.request.urlopen(url, timeout=_DOWNLOAD_S) as response:  # noqa: S310 - a URL the monitor signed
            data: bytes = response.read(reference.size_bytes + 1)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise Unavailable("the object store does not give an archived file", reason="ARCHIVE_UNAVAILABLE") from error
    if hashlib.sha256(data).hexdigest() != reference.sha256:
        raise InternalError(f"{reference.uri} does not hold the bytes of its digest", reason="ARCHIVE_FILE")
    return data


async def _bounds(reader: TopicReader, partition: int) -> Bounds:
    return (await reader.bounds()).get(partition, Bounds(0, 0))


def _require_no_gap(topic: str, partition: int, at: int, found: int, *, wanted: int) -> None:
    """The stream may begin later than what was asked for; from then on nothing may be missing."""
    if found > at > wanted:
        raise InternalError(f"offsets {at} to {found - 1} of {topic}/{partition} are gone", reason="ARCHIVE_HOLE")
