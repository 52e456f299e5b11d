"""Holds the archive of telemetry to the log: every range is what its last event says; what was erased, the log says.

``headrace log verify`` has it as a part, ``headrace telemetry verify`` alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from google.protobuf.message import DecodeError

from headrace.api.audit.v1 import service_pb2 as audit
from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.monitor.v1 import service_pb2 as service
from headrace.api.monitor.v1.events_pb2 import ArchiveRewritten, TelemetryArchived
from headrace.api.monitor.v1.resources_pb2 import ArchivedRange
from headrace.api.monitor.v1.service_pb2 import GetArchivedRangeResponse
from headrace.archive.files import download, verified_records
from headrace.archive.manifest import RECORDS, Manifest, ManifestFile
from headrace.client import Client
from headrace.errors import HeadraceError, NotFound, rpc_errors

_ARCHIVED: Final = "headrace.monitor.v1.TelemetryArchived"
_REWRITTEN: Final = "headrace.monitor.v1.ArchiveRewritten"
_PAGE: Final = 1000
_LOOKS: Final = 5
"""How often a range is looked at that is rewritten again and again meanwhile."""


@dataclass(frozen=True, slots=True)
class ErasedRoot:
    """A root that stands in the log, and whose records were erased.

    Attributes:
        old_root: What is proved by it was erased.
        new_root: What the range is since.
        reason: Why.
        person: Whom it was about; an opaque id, or empty.
        rows: Rows that are gone.
        time: When.
        event_id: The event that says so.
    """

    old_root: bytes
    new_root: bytes
    reason: str
    person: str
    rows: int
    time: datetime
    event_id: str


@dataclass(frozen=True, slots=True)
class RangeReport:
    """What was found of an archived range.

    Attributes:
        name: The range.
        topic: Of its records.
        partition: Likewise.
        first_offset: Of the range.
        last_offset: Of the range, included.
        root: What the log says last.
        erased: Roots that the log had before, oldest first.
        faults: What is not as the log says, a sentence each that names the file; empty when all is.
    """

    name: str
    topic: str
    partition: int
    first_offset: int
    last_offset: int
    root: bytes
    erased: tuple[ErasedRoot, ...]
    faults: tuple[str, ...]


@dataclass(slots=True)
class _Told:
    """What the events of a range say of it."""

    name: str
    events: int = 0
    archived: TelemetryArchived = field(default_factory=TelemetryArchived)
    root: bytes = b""
    manifest: ObjectRef = field(default_factory=ObjectRef)
    erased: list[ErasedRoot] = field(default_factory=list[ErasedRoot])
    faults: list[str] = field(default_factory=list[str])

    @property
    def lane(self) -> tuple[str, int]:
        return self.archived.topic, self.archived.partition

    def take(self, entry: LogEntry) -> None:
        """Goes on by one event. One that can not be read, or can not follow, is a fault of the range."""
        self.events += 1
        try:
            if entry.type == _ARCHIVED:
                self._take_archived(entry)
            else:
                self._take_rewritten(entry)
        except DecodeError:
            self.faults.append(f"event {entry.event_id} can not be read")

    def _take_archived(self, entry: LogEntry) -> None:
        if self.root:
            self.faults.append(f"event {entry.event_id} archives it once more")
        self.archived = TelemetryArchived.FromString(entry.data)
        self.root, self.manifest = self.archived.root, self.archived.manifest

    def _take_rewritten(self, entry: LogEntry) -> None:
        rewritten = ArchiveRewritten.FromString(entry.data)
        if rewritten.old_root != self.root:
            self.faults.append(f"event {entry.event_id} rewrites another root than the one before it")
        self.root, self.manifest = rewritten.new_root, rewritten.manifest
        erased = ErasedRoot(
            old_root=rewritten.old_root,
            new_root=rewritten.new_root,
            reason=rewritten.reason,
            person=rewritten.person,
            rows=rewritten.rows_erased,
            time=rewritten.time.ToDatetime(tzinfo=UTC),
            event_id=entry.event_id,
        )
        self.erased.append(erased)


def verify_archive(client: Client, *, first: int = 1, last: int | None = None) -> Iterator[RangeReport]:
    """Every archived range in the order of the log: its manifest, its files and their root are read and compared.

    Last come those that are served without an event of the log, unless only a part of it is looked at.

    What the events say is believed: that nobody changed them, ``headrace.evidence.verify_log`` shows.

    Args:
        client: The platform.
        first: Only ranges with an event at this position of the monitor's log or after it.
        last: Only ranges with an event at this position or before it; by default all.

    A file that the store does not give is a fault as well, be it missing or the store away.

    Raises:
        grpc.RpcError: the monitor does not answer.
        HeadraceError: likewise.
    """
    ends: dict[tuple[str, int], int] = {}
    ranges = _told(client)
    for told, positions in ranges:
        if told.lane in ends and told.archived.first_offset != ends[told.lane]:
            told.faults.append("the range does not follow the one before it")
        ends[told.lane] = told.archived.last_offset + 1
        if any(first <= each and (last is None or each <= last) for each in positions):
            yield _report(client, told)
    if first == 1:
        yield from _strangers(client, {told.name for told, _ in ranges})


def _strangers(client: Client, known: Collection[str]) -> Iterator[RangeReport]:
    """Ranges that are served and that no event of the log speaks of."""
    for served in _served(client):
        if served.name in known or _has_events(client, served.name):  # as when it was archived since
            continue
        yield RangeReport(
            name=served.name,
            topic=served.topic,
            partition=served.partition,
            first_offset=served.first_offset,
            last_offset=served.last_offset,
            root=served.root,
            erased=(),
            faults=("it is served, and no event of the log speaks of it",),
        )


def _has_events(client: Client, name: str) -> bool:
    try:
        with rpc_errors():
            client.log("monitor").ReadStream(audit.ReadStreamRequest(stream_id=name, page_size=1))
    except NotFound:
        return False
    return True


def _served(client: Client) -> Iterator[ArchivedRange]:
    for each in client.archive.GetArchiveStatus(service.GetArchiveStatusRequest()).partitions:
        request = service.ListArchivedRangesRequest(topic=each.topic, partition=each.partition, page_size=_PAGE)
        while True:
            page = client.archive.ListArchivedRanges(request)
            yield from page.ranges
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token


def _report(client: Client, told: _Told) -> RangeReport:
    faults = _faults(client, told)
    for _ in range(_LOOKS):
        if not faults:
            break
        now = _told_of(client, told.name)
        if now.events == told.events:
            break
        # An erasure rewrote it while it was read, or its event has no position yet.
        now.faults = list(dict.fromkeys([*told.faults, *now.faults]))
        told, faults = now, _faults(client, now)
    return RangeReport(
        name=told.name,
        topic=told.archived.topic,
        partition=told.archived.partition,
        first_offset=told.archived.first_offset,
        last_offset=told.archived.last_offset,
        root=told.root,
        erased=tuple(told.erased),
        faults=(*told.faults, *faults),
    )


def _told(client: Client) -> list[tuple[_Told, list[int]]]:
    """Every range by its first event, and the positions of its events."""
    found: dict[str, tuple[_Told, list[int]]] = {}
    for entry in _entries(client):
        told, positions = found.setdefault(entry.stream_id, (_Told(entry.stream_id), []))
        told.take(entry)
        positions.append(entry.position)
    return list(found.values())


def _entries(client: Client) -> Iterator[LogEntry]:
    position = 1
    while True:
        request = audit.ReadLogRequest(from_position=position, page_size=_PAGE, types=[_ARCHIVED, _REWRITTEN])
        page = client.log("monitor").ReadLog(request)
        yield from page.entries
        if page.end_of_log:
            return
        position = page.next_position


def _told_of(client: Client, name: str) -> _Told:
    """What the stream of a range says now, with events that have no position yet."""
    told = _Told(name)
    request = audit.ReadStreamRequest(stream_id=name, page_size=_PAGE)
    while True:
        page = client.log("monitor").ReadStream(request)
        for entry in page.entries:
            told.take(entry)
        if not page.next_version:
            return told
        request.from_version = page.next_version


def _faults(client: Client, told: _Told) -> list[str]:
    """What of a range is not as the log says."""
    try:
        with rpc_errors():
            found = client.archive.GetArchivedRange(service.GetArchivedRangeRequest(name=told.name))
        manifest = _manifest(found, told)
    except HeadraceError as error:
        if error.retryable and error.reason != "OBJECTS_UNAVAILABLE":
            raise
        return [f"its manifest {told.manifest.uri}: {error.message}"]
    if manifest is None:
        return [f"what is served is not the manifest {told.manifest.uri} of the log"]
    if (found.range.root, manifest.root) != (told.root, told.root.hex()):
        return ["its root is not the one in the log"]
    urls = {file.object.uri: file.url for file in found.files}
    faults = [_fault(found, file, urls.get(file.uri, "")) for file in manifest.files]
    return [each for each in faults if each]


def _manifest(found: GetArchivedRangeResponse, told: _Told) -> Manifest | None:
    """The manifest, when it is the one in the log."""
    same = hashlib.sha256(found.manifest).hexdigest() == told.manifest.sha256
    return Manifest.decode(found.manifest) if same else None


def _fault(found: GetArchivedRangeResponse, file: ManifestFile, url: str) -> str:
    """What is wrong with a file; empty when nothing is."""
    if not url:
        return f"{file.uri} is not served"
    try:
        content = download(url, ObjectRef(uri=file.uri, sha256=file.sha256, size_bytes=file.size_bytes))
        if file.kind == RECORDS:
            verified_records(content, found.range)
    except HeadraceError as error:
        return error.message  # also where the store gives none: some do not tell missing files from faults of theirs
    return ""
