"""What steps write: one file for each attempt, in this service's data folder."""

import os
from dataclasses import dataclass
from pathlib import Path

from headrace.api.orchestrator.v1.service_pb2 import LogChunk

MAX_LOG_BYTES = 64 * 1024 * 1024
MAX_CHUNK_BYTES = 256 * 1024
MAX_READ_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class LogText:
    """Some of a log: ``end`` when nothing is stored behind it."""

    text: str
    next_offset: int
    end: bool


class StepLogs:
    """Logs of steps by run, step and attempt. Names must have been checked: they become paths.

    Args:
        folder: Where the files lie.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def append(self, chunk: LogChunk) -> int:
        """Stores the bytes of a chunk that are new; returns how many are stored of the attempt. A hole is not filled.

        What goes over ``MAX_LOG_BYTES`` is taken and dropped.
        """
        path = self._path(chunk.run, chunk.step, chunk.attempt)
        stored = path.stat().st_size if path.exists() else 0
        if stored >= MAX_LOG_BYTES:
            return chunk.offset + len(chunk.data)
        new = chunk.data[max(0, stored - chunk.offset) :]
        if chunk.offset > stored or not new:
            return stored
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(new)
        return stored + len(new)

    def read(self, run: str, step: str, *, attempt: int, offset: int) -> LogText:
        """At most ``MAX_READ_BYTES`` from an offset on, in whole characters; what is no UTF-8 is replaced."""
        path = self._path(run, step, attempt)
        if not path.exists():
            return LogText("", offset, end=True)
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(offset)
            data = file.read(MAX_READ_BYTES)
        if offset + len(data) < size:
            data = _whole(data)
        end = offset + len(data)
        return LogText(data.decode(errors="replace"), end, end=end >= size)

    def _path(self, run: str, step: str, attempt: int) -> Path:
        _, project, _, run_id = run.split("/")
        return self._folder / project / run_id / step / f"{attempt}.log"


def _whole(data: bytes) -> bytes:
    """Without the beginning of a character at the end, which is at most three bytes."""
    for back in range(1, min(3, len(data)) + 1):
        first = data[-back]
        if first & 0xC0 != 0x80:
            length = 1 if first < 0xC0 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4
            return data[:-back] if back < length else data
    return data
