"""Live tables and rebuilt ones: where they differ, byte by byte, and the digest of a canonical dump."""
# Statements are put together from names of the catalogue; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from headrace_kit.postgres import Connection, Database, Record

CHUNK: Final = 10_000
"""Rows compared by one statement."""
MAX_DIFFERENCES: Final = 1000
"""Most rows of a table that are told apart; when all differ, that says enough."""
_COLUMNS: Final = """
SELECT a.attname::text AS name, a.attname IN (SELECT b.attname FROM pg_attribute b WHERE b.attrelid = i.indrelid
       AND b.attnum = ANY(i.indkey)) AS in_key
FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum > 0 AND NOT a.attisdropped
WHERE i.indrelid = to_regclass($1) AND i.indisprimary
ORDER BY array_position(i.indkey::smallint[], a.attnum), a.attnum
"""


@dataclass(frozen=True, slots=True)
class Difference:
    """One row that is not the same in both.

    Attributes:
        table: The table.
        key: Column -> value of the primary key, as JSON.
        columns: Columns whose bytes differ; all of them where the row is on one side only.
        live: Whether the row is in the live table.
        rebuilt: Whether it is in the rebuilt one.
    """

    table: str
    key: str
    columns: tuple[str, ...]
    live: bool
    rebuilt: bool


class Comparison:
    """Compares one table of ``public`` with its namesake in ``rebuild``."""

    def __init__(self, table: str, key: Sequence[str], columns: Sequence[str]) -> None:
        self.table = table
        self._key = ", ".join(map(_quoted, key))
        self._first = _quoted(key[0])
        self._each = [_quoted(each) for each in key]
        pairs = ", ".join(f"'{each}', {_quoted(each)}" for each in key)
        unlike = ", ".join(
            f"CASE WHEN record_image_ne(ROW(l.{_quoted(each)}), ROW(r.{_quoted(each)})) THEN '{each}' END"
            for each in columns
        )
        self._selected = (
            f"SELECT jsonb_build_object({pairs})::text AS key, array_remove(ARRAY[{unlike}], NULL) AS columns,"
            f" l.{self._first} IS NOT NULL AS live, r.{self._first} IS NOT NULL AS rebuilt"
        )
        self._unlike = "record_image_ne(ROW(l.*), ROW(r.*))"

    @staticmethod
    async def of(database: Database | Connection, table: str) -> Comparison:
        """Learns the table's columns. Raises ValueError when it has no primary key."""
        found = await database.fetch(_COLUMNS, f"public.{_quoted(table)}")
        if not found:
            raise ValueError(f"{table} has no primary key")
        return Comparison(table, [row["name"] for row in found if row["in_key"]], [row["name"] for row in found])

    async def differences(self, database: Database) -> list[Difference]:
        """At most ``MAX_DIFFERENCES``, in the order of the key; rows that change meanwhile may be among them."""
        found: list[Difference] = []
        async for where, bounds in self._chunks(database, "public"):
            sql = (
                f"{self._selected} FROM (SELECT * FROM public.{self.table} {where}) l"
                f" FULL JOIN (SELECT * FROM rebuild.{self.table} {where}) r USING ({self._key})"
                f" WHERE {self._unlike} ORDER BY {self._key} LIMIT {MAX_DIFFERENCES - len(found)}"
            )
            found += map(self._difference, await database.fetch(sql, *bounds))
            if len(found) >= MAX_DIFFERENCES:
                break
        return found

    async def take(self, connection: Connection, condition: str) -> None:
        """Puts the live rows (``live``) of a condition in place of the rebuilt ones."""
        same = " AND ".join(f"r.{each} = live.{each}" for each in self._each)
        taken = f"public.{self.table} live WHERE {condition}"
        await connection.execute(f"DELETE FROM rebuild.{self.table} r USING {taken} AND {same}")
        await connection.execute(f"INSERT INTO rebuild.{self.table} SELECT live.* FROM {taken}")

    async def again(self, connection: Connection, suspects: Sequence[Difference]) -> list[Difference]:
        """Those of the suspects that differ now."""
        if not suspects:
            return []
        keys = ", ".join(f"c.{each}" for each in self._each)
        sql = (
            f"{self._selected} FROM (SELECT {keys} FROM"
            f" jsonb_populate_recordset(NULL::public.{self.table}, $1::text::jsonb) c) c"
            f" LEFT JOIN public.{self.table} l USING ({self._key}) LEFT JOIN rebuild.{self.table} r USING ({self._key})"
            f" WHERE {self._unlike} ORDER BY {self._key}"
        )
        text = json.dumps([json.loads(each.key) for each in suspects])
        return [self._difference(row) for row in await connection.fetch(sql, text)]

    async def digest(
        self, database: Database | Connection, schema: str = "public", seen: Callable[[int], None] | None = None
    ) -> tuple[int, bytes]:
        """Rows, and SHA-256 over the SHA-256 of each row's text in the order of the key: 32 bytes."""
        whole, count = hashlib.sha256(), 0
        async for where, bounds in self._chunks(database, schema):
            row = await database.fetchrow(
                f"SELECT count(*) AS count, coalesce(string_agg(sha256(convert_to(t::text, 'UTF8')), ''::bytea"
                f" ORDER BY {self._key}), ''::bytea) AS digests FROM {schema}.{self.table} t {where}",
                *bounds,
            )
            if row is not None:
                whole.update(row["digests"])
                count += row["count"]
                if seen is not None:
                    seen(row["count"])
        return count, whole.digest()

    async def _chunks(
        self, database: Database | Connection, schema: str
    ) -> AsyncIterator[tuple[str, tuple[object, ...]]]:
        """Conditions that part the key's range, each with its parameters; the first and the last are open."""
        low: tuple[object, ...] = ()
        while True:
            after = f"WHERE ({self._key}) >= ({self._numbers(1)})" if low else ""
            row = await database.fetchrow(
                f"SELECT {self._key} FROM {schema}.{self.table} {after} ORDER BY {self._key} OFFSET {CHUNK} LIMIT 1",
                *low,
            )
            if row is None:
                yield after, low
                return
            high = tuple(row)
            until = f"({self._key}) < ({self._numbers(1 + len(low))})"
            yield f"{after} AND {until}" if low else f"WHERE {until}", (*low, *high)
            low = high

    def _numbers(self, first: int) -> str:
        return ", ".join(f"${number}" for number in range(first, first + len(self._each)))

    def _difference(self, row: Record) -> Difference:
        return Difference(self.table, row["key"], tuple(row["columns"]), live=row["live"], rebuilt=row["rebuilt"])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
