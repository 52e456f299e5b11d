"""What a run records goes to disk first, and from there to the tracker: once, in order, however often either dies.

A spool is two files in the spool folder. ``<run>.spool`` holds records, each ``length, crc32, kind`` (little-endian
uint32, uint32, uint8) and the payload; a torn last record is dropped. ``<run>.sent`` says how far the tracker
acknowledged, and the end of the batch being sent: a batch keeps its borders, and so its command id, over any crash.
``blobs/`` holds bytes to upload by their SHA-256.
"""

import fcntl
import os
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import orjson

_HEAD: Final = struct.Struct("<IIB")


@dataclass(frozen=True, slots=True)
class Record:
    """One record: ``start`` and ``end`` are its offsets in the spool; ``kind`` says how to read the payload."""

    start: int
    end: int
    kind: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Progress:
    """How far sending has come.

    Attributes:
        sent: Offset up to which the tracker has acknowledged.
        sending: End of the batch that may be under way; equal to ``sent`` when none is.
    """

    sent: int = 0
    sending: int = 0


class SpoolBusyError(Exception):
    """Another process writes or sends this spool."""


class Spool:
    """The spool of one run, held by one process at a time (an advisory lock on the file).

    ``append`` may be called from any thread. Raises SpoolBusyError when another process holds it.
    """

    def __init__(self, folder: Path, run_id: str) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.run_id = run_id
        self._path = folder / f"{run_id}.spool"
        self._progress_path = folder / f"{run_id}.sent"
        self._lock = threading.Lock()
        self._file: BinaryIO = self._path.open("ab", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise SpoolBusyError(str(self._path)) from error
        if not self._path.exists():  # whoever held it sent all and removed it
            self._file.close()
            raise SpoolBusyError(str(self._path))
        self._size = _whole_length(self._path)
        self._file.truncate(self._size)
        self.progress = self._read_progress()

    @property
    def size(self) -> int:
        """Bytes written."""
        return self._size

    @property
    def is_sent(self) -> bool:
        """Whether the tracker has acknowledged everything."""
        return self.progress.sent >= self._size

    def append(self, kind: int, payload: bytes) -> None:
        """Writes a record; it survives the death of this process."""
        record = _HEAD.pack(len(payload), zlib.crc32(payload), kind) + payload
        with self._lock:
            self._file.write(record)
            self._size += len(record)

    def records(self, start: int) -> Iterator[Record]:
        """Whole records from an offset on."""
        with self._path.open("rb") as file:
            yield from _records(file, start)

    def mark(self, progress: Progress) -> None:
        """Remembers how far sending has come."""
        temporary = self._progress_path.with_suffix(".sent.new")
        temporary.write_bytes(orjson.dumps({"sent": progress.sent, "sending": progress.sending}))
        temporary.replace(self._progress_path)
        self.progress = progress

    def remove(self) -> None:
        """Forgets the run: everything was sent."""
        self._path.unlink(missing_ok=True)
        self._progress_path.unlink(missing_ok=True)
        self._file.close()

    def close(self) -> None:
        """Gives the spool up for a later sender."""
        self._file.close()

    def _read_progress(self) -> Progress:
        with suppress(FileNotFoundError, orjson.JSONDecodeError, KeyError, TypeError):
            stored = orjson.loads(self._progress_path.read_bytes())
            return Progress(int(stored["sent"]), int(stored["sending"]))
        return Progress()


def pending_runs(folder: Path) -> list[str]:
    """Ids of the runs with a spool in the folder, oldest first."""
    if not folder.is_dir():
        return []
    files = sorted(folder.glob("*.spool"), key=lambda path: path.stat().st_mtime)
    return [path.stem for path in files]


def blob_path(folder: Path, run_id: str, sha256: str) -> Path:
    """Where bytes of a run wait for their upload."""
    return folder / "blobs" / f"{run_id}-{sha256}"


def keep_blob(folder: Path, run_id: str, source: Path | bytes, sha256: str) -> None:
    """Keeps bytes until they are uploaded."""
    target = blob_path(folder, run_id, sha256)
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = target.with_name(f"{target.name}.{os.getpid()}.{threading.get_ident()}")
    if isinstance(source, bytes):
        temporary.write_bytes(source)
    else:
        _copy(source, temporary)
    temporary.replace(target)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reading, target.open("wb") as writing:
        while chunk := reading.read(1 << 20):
            writing.write(chunk)


def _whole_length(path: Path) -> int:
    end = 0
    with path.open("rb") as file:
        for record in _records(file, 0):
            end = record.end
    return end


def _records(file: BinaryIO, start: int) -> Iterator[Record]:
    file.seek(start)
    at = start
    while len(head := file.read(_HEAD.size)) == _HEAD.size:
        length, checksum, kind = _HEAD.unpack(head)
        payload = file.read(length)
        if len(payload) < length or zlib.crc32(payload) != checksum:
            return
        end = at + _HEAD.size + length
        yield Record(at, end, kind, payload)
        at = end
