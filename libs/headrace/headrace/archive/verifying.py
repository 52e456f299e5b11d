"""Holds the archive of telemetry to the log: every range is what its last event says; what was erased, the log says.

``headrace telemetry verify`` prints it; whoever verifies a whole log calls :func:`verify_archive`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from headrace.api.audit.v1 import service_pb2 as audit
from headrace.api.audit.v1.resources_pb2 import LogEntry
from headrace.api.monitor.v1 import service_pb2 as service
from headrace.api.monitor.v1.events_pb2 import ArchiveRewritten, TelemetryArchived
from headrace.api.monitor.v1.service_pb2 import GetArchivedRangeResponse
from headrace.archive.manifest import Manifest
from headrace.archive.reading import download, records_file, verified_records
from headrace.client import Client
from headrace.errors import HeadraceError, InternalError, rpc_errors

_TYPES: Final = ("headrace.monitor.v1.TelemetryArchived", "headrace.monitor.v1.ArchiveRewritten")
_PAGE: Final = 1000


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
        fault: Why it is not what the log says; empty when it is.
    """

    name: str
    topic: str
    partition: int
    first_offset: int
    last_offset: int
    root: bytes
    erased: tuple[ErasedRoot, ...]
    fault: str


@dataclass(slots=True)
class _Told:
    """What the log says of a range, up to an event."""

    archived: TelemetryArchived
    root: bytes
    manifest: str
    erased: list[ErasedRoot]
    fault: str = ""


def verify_archive(client: Client) -> Iterator[RangeReport]:
    """Every archived range in the order of the log: its manifest, its records and their root are read and compared.

    Raises:
        grpc.RpcError: the monitor does not answer.
        Unavailable: the object store does not.
    """
    ends: dict[tuple[str, int], int] = {}
    for name, told in _told(client).items():
        archived = told.archived
        lane = archived.topic, archived.partition
        gap = lane in ends and archived.first_offset != ends[lane]
        ends[lane] = archived.last_offset + 1
        if gap:
            told.fault = told.fault or "the range does not follow the one before it"
        fault = told.fault or _fault(client, name, told)
        yield RangeReport(
            name=name,
            topic=archived.topic,
            partition=archived.partition,
            first_offset=archived.first_offset,
            last_offset=archived.last_offset,
            root=told.root,
            erased=tuple(told.erased),
            fault=fault,
        )


def _told(client: Client) -> dict[str, _Told]:
    found: dict[str, _Told] = {}
    for entry in _entries(client):
        if entry.type == _TYPES[0]:
            archived = TelemetryArchived.FromString(entry.data)
            found[archived.range] = _Told(archived, archived.root, archived.manifest.sha256, [])
            continue
        rewritten = ArchiveRewritten.FromString(entry.data)
        told = found[rewritten.range]
        if rewritten.old_root != told.root:
            told.fault = f"event {entry.event_id} rewrites another root than the one before it"
        told.root, told.manifest = rewritten.new_root, rewritten.manifest.sha256
        told.erased.append(
            ErasedRoot(
                old_root=rewritten.old_root,
                new_root=rewritten.new_root,
                reason=rewritten.reason,
                person=rewritten.person,
                rows=rewritten.rows_erased,
                time=rewritten.time.ToDatetime(tzinfo=UTC),
                event_id=entry.event_id,
            )
        )
    return found


def _entries(client: Client) -> Iterator[LogEntry]:
    position = 1
    while True:
        request = audit.ReadLogRequest(from_position=position, page_size=_PAGE, types=_TYPES)
        page = client.log("monitor").ReadLog(request)
        yield from page.entries
        if page.end_of_log:
            return
        position = page.next_position


def _fault(client: Client, name: str, told: _Told) -> str:
    """Why a range is not what the log says of it; empty when it is."""
    try:
        with rpc_errors():
            _require_as_told(client.archive.GetArchivedRange(service.GetArchivedRangeRequest(name=name)), told)
    except HeadraceError as error:
        if error.retryable:
            raise
        return error.message
    return ""


def _require_as_told(found: GetArchivedRangeResponse, told: _Told) -> None:
    if found.range.root != told.root:
        raise InternalError("its root is not the one in the log")
    if hashlib.sha256(found.manifest).hexdigest() != told.manifest:
        raise InternalError("its manifest is not the one in the log")
    manifest = Manifest.decode(found.manifest)
    digests = [(file.kind, file.object.sha256) for file in found.files]
    if digests != [(file.kind, file.sha256) for file in manifest.files] or manifest.root != told.root.hex():
        raise InternalError("its files are not those of its manifest")
    records = records_file(found.files)
    verified_records(download(records.url, records.object), found.range)
    for file in found.files:
        if file is not records:
            download(file.url, file.object)
