"""The files of an archived range: fetched, and held to their digests and to the range's root."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from collections.abc import Sequence
from http import HTTPStatus
from http.client import HTTPException
from typing import Final

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.monitor.v1.resources_pb2 import ArchivedFile, ArchivedRange
from headrace.archive.manifest import RECORDS
from headrace.archive.record import Record, leaf_of
from headrace.errors import InternalError, Unavailable
from headrace.merkle import root_over

_DOWNLOAD_S: Final = 60.0


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
    from headrace.archive.parquet import read_records  # noqa: PLC0415 - 30 MiB that an idle service does without

    records = read_records(data, topic=archived.topic, partition=archived.partition)
    if root_over(map(leaf_of, records)) != archived.root or len(records) != archived.records:
        raise InternalError(f"the records of {archived.name} are not those that were archived", reason="ARCHIVE_ROOT")
    return records


def download(url: str, reference: ObjectRef) -> bytes:
    """The bytes of an object, verified.

    Raises:
        InternalError: it is not there, or they are not those of its digest.
        Unavailable: the store does not give them.
    """
    try:
        with urllib.request.urlopen(url, timeout=_DOWNLOAD_S) as response:  # noqa: S310 - a URL the monitor signed
            data: bytes = response.read(reference.size_bytes + 1)
            ended_early = bool(response.length) and len(data) <= reference.size_bytes
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == HTTPStatus.NOT_FOUND:
            raise InternalError(f"{reference.uri} is missing", reason="ARCHIVE_FILE") from error
        raise _not_given(reference, str(error)) from error
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        raise _not_given(reference, str(error)) from error
    if ended_early:
        raise _not_given(reference, "the connection ended early")
    if hashlib.sha256(data).hexdigest() != reference.sha256:
        raise InternalError(f"{reference.uri} does not hold the bytes of its digest", reason="ARCHIVE_FILE")
    return data


def _not_given(reference: ObjectRef, cause: str) -> Unavailable:
    return Unavailable(f"the object store does not give {reference.uri}: {cause}", reason="ARCHIVE_UNAVAILABLE")
