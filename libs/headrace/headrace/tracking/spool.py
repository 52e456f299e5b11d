"""What a run records goes to disk first, and from there to the tracker: once, in order, however often either dies.

A spool is two files in the spool folder. ``<run>.spool`` begins with ``headrace``, ``format`` (uint32, 1) and holds
records, each ``length, crc32 of the payload, kind, crc32 of these three`` (little-endian uint32, uint32, uint8, uint32)
and the payload. A torn last record is dropped; a record that was changed is damage, and the spool is refused. Those of
before there were formats have neither head nor second checksum. ``<run>.sent`` says how far the tracker
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

FORMAT: Final = 1
_MAGIC: Final = b"headrace"
_FILE_HEAD: Final = struct.Struct("<8sI")
_FIELDS: Final = struct.Struct("<IIB")
_CHECKSUM: Final = struct.Struct("<I")


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


class SpoolDamagedError(Exception):
    """A spool was changed since it was written, or a newer headrace wrote it; it stays as it is."""


class Spool:
    """The spool of one run, held by one process at a time (an advisory lock on the file).

    ``append`` may be called from any thread. Raises SpoolBusyError when another process holds it, SpoolDamagedError
    when it can not be read.
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
        try:
            self._format, self._size = _measured(self._path)
        except SpoolDamagedError:
            self._file.close()
            raise
        self._file.truncate(self._size)
        if self._size == 0:
            self._file.write(_FILE_HEAD.pack(_MAGIC, FORMAT))
            self._format, self._size = FORMAT, _FILE_HEAD.size
        self.progress = self._read_progress()

    @property
    def size(self) -> int:
        """Bytes written."""
        return self._size

    @property
    def is_sent(self) -> bool:
        """Whether the tracker has acknowledged everything."""
        return self.progress.sent >= self._size

    def append(self, kind: int, *payloads: bytes) -> None:
        """Writes a record for each payload, all at once; they survive the death of this process."""
        parts: list[bytes] = []
        for payload in payloads:
            head = _FIELDS.pack(len(payload), zlib.crc32(payload), kind)
            checksum = _CHECKSUM.pack(zlib.crc32(head)) if self._format else b""
            parts += (head, checksum, payload)
        records = b"".join(parts)
        with self._lock:
            self._file.write(records)
            self._size += len(records)

    def records(self, start: int) -> Iterator[Record]:
        """Whole records from an offset on."""
        with self._path.open("rb") as file:
            yield from _records(file, max(start, self._start), self._format)

    @property
    def _start(self) -> int:
        return _FILE_HEAD.size if self._format else 0

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
            return Progress(max(int(stored["sent"]), self._start), max(int(stored["sending"]), self._start))
        return Progress(self._start, self._start)


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


def _measured(path: Path) -> tuple[int, int]:
    """Format of a spool, and where its last whole record ends. Raises SpoolDamagedError."""
    with path.open("rb") as file:
        head = file.read(_FILE_HEAD.size)
        if not head.startswith(_MAGIC[: len(head)]):
            found, end = 0, 0
        elif len(head) < _FILE_HEAD.size:
            return FORMAT, 0  # torn while it was begun
        else:
            found, end = int(_FILE_HEAD.unpack(head)[1]), _FILE_HEAD.size
        if found > FORMAT:
            raise SpoolDamagedError(f"{path} has format {found}, this headrace reads up to {FORMAT}: update headrace")
        try:
            for record in _records(file, end, found):
                end = record.end
        except SpoolDamagedError as error:
            raise SpoolDamagedError(f"{path} is damaged: {error}") from error
    return found, end


def _records(file: BinaryIO, start: int, format_: int) -> Iterator[Record]:
    size = _FIELDS.size + (_CHECKSUM.size if format_ else 0)
    file.seek(start)
    at = start
    while len(head := file.read(size)) == size:
        length, checksum, kind = _FIELDS.unpack(head[: _FIELDS.size])
        if format_ and head[_FIELDS.size :] != _CHECKSUM.pack(zlib.crc32(head[: _FIELDS.size])):
            if not any(head) and not file.read().strip(b"\0"):
                return  # room that was taken and never written, as a crash of the machine leaves it
            raise SpoolDamagedError(f"the record at byte {at} was changed")
        payload = file.read(length)
        if len(payload) < length:
            return
        if zlib.crc32(payload) != checksum:
            if file.read(1) == b"":
                return
            raise SpoolDamagedError(f"the payload of the record at byte {at} was changed")
        end = at + size + length
        yield Record(at, end, kind, payload)
        at = end
