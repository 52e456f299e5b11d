"""Events too large for a record: the bytes go to an object store, the record carries a reference."""

from __future__ import annotations

from typing import Protocol

MAX_INLINE_BYTES = 256 * 1024
"""Largest value that travels in the record itself."""


class DataRefs(Protocol):
    """Where large values lie."""

    async def put(self, project: str, data: bytes) -> str:
        """Stores bytes, content-addressed; returns the reference. Repeats are harmless."""
        ...

    async def get(self, reference: str) -> bytes:
        """The bytes of a reference, verified.

        Raises:
            NotFound: there are none.
        """
        ...
