"""The bytes of windows that a seal digests: of their counts alone, whatever form a database keeps them in."""

from __future__ import annotations

import hashlib
import struct

from headrace_monitor.slots import SlotCounts


class Seal:
    """SHA-256 over windows, given by start and, within one, by the version's name.

    A window's bytes are its start in microseconds since 1970 UTC, as 8 bytes; the version's UTF-8 name; rows, labels,
    correct, error sum (in units of 2^-20) and error square (in units of 2^-12), each in decimal ASCII; and its cells,
    8 bytes each. Name, decimals and cells stand behind their length as 4 bytes. Numbers are little-endian.
    """

    def __init__(self) -> None:
        self.count = 0
        """Windows so far."""
        self._sha256 = hashlib.sha256()

    def add(self, start_us: int, version: str, counts: SlotCounts) -> None:
        """The next window."""
        self.count += 1
        self._sha256.update(struct.pack("<q", start_us))
        numbers = (counts.rows, counts.labels, counts.correct, counts.error_sum, counts.error_square)
        for part in (version.encode(), *(b"%d" % each for each in numbers), counts.cells.astype("<i8").tobytes()):
            self._sha256.update(struct.pack("<I", len(part)) + part)

    def digest(self) -> bytes:
        """32 bytes over the windows so far."""
        return self._sha256.digest()
