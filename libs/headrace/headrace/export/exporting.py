"""Writes ranges of logs into a new folder: one file for each service, and a manifest."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

import orjson

from headrace.api.audit.v1 import service_pb2 as service
from headrace.client import Client
from headrace.errors import AlreadyExists
from headrace.events.cursor import sync_folder
from headrace.export.ranges import LogRange
from headrace.export.writers import Format, open_writer
from headrace.verifier import EMPTY_ROOT

MANIFEST: Final = "manifest.json"
VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """What the manifest says of a file.

    Attributes:
        file: Its name in the folder.
        service: Whose log.
        source: The log's own name.
        first_position: Of the range.
        last_position: Of the range, included; below the first when the range is empty.
        count: Events in the file.
        bytes: Size of the file.
        sha256: Of the file, in hex.
        last_leaf: Merkle leaf of the last event, in hex; empty when there is none.
        root: Merkle root of the log up to ``last_position``, in hex: what a checkpoint of that size signs.
    """

    file: str
    service: str
    source: str
    first_position: int
    last_position: int
    count: int
    bytes: int
    sha256: str
    last_leaf: str
    root: str


def export_logs(
    client: Client,
    ranges: Sequence[LogRange],
    folder: Path,
    *,
    kind: Format,
    advance: Callable[[int], object] = lambda _: None,
) -> list[ExportedFile]:
    """Exports ranges of logs; the folder appears under its name when everything in it is whole and on disk.

    The same ranges give the same bytes, manifest included (Parquet: with the same pyarrow).

    Args:
        client: The platform.
        ranges: What is exported.
        folder: Made here; it must not exist, or be empty.
        kind: The format.
        advance: Called with how many events were written since the last call.

    Raises:
        AlreadyExists: the folder has something in it.
        FailedPrecondition: the format needs what is not installed.
        InternalError: a log has a hole.
        grpc.RpcError: a service can not be reached.
    """
    _require_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.parent / f".{folder.name}.partial-{uuid4().hex[:12]}"
    partial.mkdir()
    try:
        files = [_export(client, each, partial, kind=kind, advance=advance) for each in ranges]
        content = {"version": VERSION, "format": str(kind), "files": [asdict(each) for each in files]}
        options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
        (partial / MANIFEST).write_bytes(orjson.dumps(content, option=options))
        _sync(partial / MANIFEST)
        sync_folder(partial)
        _rename(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return files


def _export(
    client: Client, wanted: LogRange, folder: Path, *, kind: Format, advance: Callable[[int], object]
) -> ExportedFile:
    path = folder / f"{wanted.service}{kind.suffix}"
    count, leaf = 0, b""
    with open_writer(kind, path) as writer:
        for more, last in writer.copy(client, wanted):
            count, leaf = count + more, last
            advance(more)
    _sync(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ExportedFile(
        file=path.name,
        service=wanted.service,
        source=wanted.source,
        first_position=wanted.first,
        last_position=wanted.last,
        count=count,
        bytes=path.stat().st_size,
        sha256=digest,
        last_leaf=leaf.hex(),
        root=_root(client, wanted),
    )


def _root(client: Client, wanted: LogRange) -> str:
    if not wanted.last:
        return EMPTY_ROOT.hex()
    return client.log(wanted.service).GetTree(service.GetTreeRequest(size=wanted.last)).root.hex()


def _require_free(folder: Path) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise AlreadyExists(f"{folder} has something in it: an export is never written over another", field="output")


def _rename(partial: Path, folder: Path) -> None:
    try:
        partial.rename(folder)  # takes the place of an empty folder, and of nothing else
    except OSError as error:
        raise AlreadyExists(f"{folder} was taken meanwhile: {error.strerror}", field="output") from error
    sync_folder(folder.parent)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
