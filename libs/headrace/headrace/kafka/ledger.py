"""What a producer has numbered, in a memory-mapped file that a killed process leaves behind.

Layout, little-endian: 8 bytes magic, 16 bytes producer id, 8 bytes epoch, 32 reserved; then four tables of 2 kinds x 24
shards of 8 bytes: last seq handed out, last seq acknowledged, and epoch and last seq of an unfinished earlier epoch.
"""

from __future__ import annotations

import enum
import fcntl
import mmap
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from headrace.kafka.errors import TelemetryError
from headrace.kafka.shards import SHARDS

_MAGIC = b"HRTELEM1"
_HEAD = 64
_TABLES = (4, 2, SHARDS)
_SIZE = _HEAD + 4 * 2 * SHARDS * 8


class Kind(enum.IntEnum):
    """What a batch holds; each kind is numbered by itself."""

    PREDICTIONS = 0
    LABELS = 1


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of an earlier epoch of which some batches may never have reached Kafka."""

    epoch: int
    seq: int


class Ledger:
    """Numbers batches densely per kind and shard.

    With a file, the producer keeps its id over restarts, its epoch grows, and what was handed out but not acknowledged
    when it died is known as a :class:`Tail`. Without one it is a new producer each time. Not thread-safe.

    Raises:
        TelemetryError: the file is in use by another process, or is no ledger.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._file: IO[bytes] | None = None
        self._memory: mmap.mmap | bytearray = bytearray(_SIZE)
        if path is not None:
            self._file, self._memory = _open(path)
        if bytes(self._memory[:8]) != _MAGIC:
            self._memory[:8] = _MAGIC
            self._memory[8:24] = uuid.uuid4().bytes
        self.producer_id = str(uuid.UUID(bytes=bytes(self._memory[8:24])))
        before = int.from_bytes(self._memory[24:32], "little")
        self.epoch = max(before + 1, time.time_ns() // 1000)
        tables: NDArray[np.uint64] = np.frombuffer(self._memory, dtype="<u8", offset=_HEAD).reshape(_TABLES)
        self._handed, self._acked, self._tail_epoch, self._tail_seq = tables
        unfinished = self._handed > self._acked
        self._tail_epoch[unfinished] = before
        self._tail_seq[unfinished] = self._handed[unfinished]
        self._handed[:] = 0
        self._acked[:] = 0
        self._memory[24:32] = self.epoch.to_bytes(8, "little")

    def hand_out(self, kind: Kind, shard: int) -> int:
        """The next seq; from 1."""
        self._handed[kind, shard] += np.uint64(1)
        return int(self._handed[kind, shard])

    def acknowledge(self, kind: Kind, shard: int, seq: int) -> None:
        """The batch is in Kafka."""
        self._acked[kind, shard] = seq

    def tail(self, kind: Kind, shard: int) -> Tail | None:
        """What an earlier epoch left unfinished."""
        seq = int(self._tail_seq[kind, shard])
        return Tail(int(self._tail_epoch[kind, shard]), seq) if seq else None

    def finish_tail(self, kind: Kind, shard: int) -> None:
        """The end of the earlier epoch was told."""
        self._tail_seq[kind, shard] = 0

    def close(self) -> None:
        """Releases the file."""
        empty: NDArray[np.uint64] = np.zeros(_TABLES, dtype="<u8")
        self._handed, self._acked, self._tail_epoch, self._tail_seq = empty
        if self._file is not None:
            if isinstance(self._memory, mmap.mmap):
                self._memory.close()
            self._file.close()
            self._file = None


def _open(path: Path) -> tuple[IO[bytes], mmap.mmap]:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        size = file.seek(0, 2)
        if size == 0:
            file.truncate(_SIZE)
        elif size != _SIZE:
            raise TelemetryError(f"{path} is no ledger of a telemetry producer")
        return file, mmap.mmap(file.fileno(), _SIZE)
    except BlockingIOError as error:
        file.close()
        raise TelemetryError(f"{path} is in use by another producer") from error
    except BaseException:
        file.close()
        raise
