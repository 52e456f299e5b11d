"""The bytes that leaves are made of, put together by the database: one column of bytes instead of a dozen of values.

This is a second encoder of decision 0003. A test holds it to ``headrace_kit.leaf`` byte for byte; it is here because a
log is verified as fast as its entries can be read, and Python takes ten times as long to encode one.
"""
# Statements are put together from constants; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from headrace_kit.postgres import Database


def _text(column: str) -> str:
    return f"int4send(octet_length({column})) || convert_to({column}, 'UTF8')"


def _number(column: str) -> str:
    return rf"'\x00000008'::bytea || int8send({column})"


def _time(column: str) -> str:
    return _number(f"(extract(epoch FROM {column}) * 1000000)::bigint")


def _bytes(column: str) -> str:
    return f"int4send(length({column})) || {column}"


_LEAF: Final = " || ".join(
    (
        r"'\x01'::bytea",
        _text("$1::text"),
        _number("l.position"),
        r"'\x00000010'::bytea || uuid_send(e.event_id)",
        _text("e.stream_id"),
        _number("e.version"),
        _text("e.type"),
        _time("e.occurred_at"),
        _time("e.recorded_at"),
        _time("l.sequenced_at"),
        _number("e.hlc"),
        _bytes("e.meta"),
        _bytes("e.data"),
    )
)
_READ: Final = f"""
SELECT l.position, {_LEAF} AS content, l.leaf
FROM log_entries l JOIN events e USING (local_id)
WHERE l.position BETWEEN $2 AND $3 ORDER BY l.position
"""


@dataclass(frozen=True, slots=True)
class StoredLeaf:
    """A leaf before it is hashed, as its entry is stored now, and the hash that was stored when it was sequenced."""

    position: int
    content: bytes
    hash: bytes


async def read_leaves(database: Database, source: str, first: int, last: int) -> list[StoredLeaf]:
    """The leaves of positions ``first`` to ``last``, in order; what is missing is left out."""
    rows = await database.fetch(_READ, source, first, last)
    return [StoredLeaf(*row) for row in rows]
