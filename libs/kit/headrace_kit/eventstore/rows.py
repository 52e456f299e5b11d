"""Read-model rows -> SQL that runs inside the statement of the append.

All rows of one shape (table, key columns, value columns) travel as one JSON parameter, which PostgreSQL takes apart
by the table's own row type. So the text of a statement depends on the shapes alone and is prepared once.
"""
# Statements are put together from checked names; values are always parameters.
# ruff: noqa: S608

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import lru_cache
from uuid import UUID

from headrace_kit.errors import InvalidArgument
from headrace_kit.eventstore.aggregate import Row

_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


@dataclass(frozen=True, slots=True)
class _Shape:
    table: str
    key: tuple[str, ...]
    values: tuple[str, ...] | None


def last_of_each(rows: Iterable[Row]) -> list[Row]:
    """The last change of each row; earlier values that a later upsert does not name are kept."""
    latest: dict[tuple[str, tuple[tuple[str, object], ...]], Row] = {}
    for row in rows:
        identity = (row.table, tuple(sorted(row.key.items())))
        before = latest.pop(identity, None)
        if before is not None and before.values is not None and row.values is not None:
            latest[identity] = Row(row.table, row.key, {**before.values, **row.values})
        else:
            latest[identity] = row
    return list(latest.values())


def compile_rows(rows: Sequence[Row], *, first_parameter: int) -> tuple[list[str], list[str]]:
    """The common table expressions that apply the rows once ``gate`` let the command in, and their parameters.

    Raises:
        InvalidArgument: a value cannot be stored (NUL in a text, NaN inside a jsonb value).
    """
    shapes: dict[_Shape, list[dict[str, object]]] = {}
    for row in last_of_each(rows):
        values = None if row.values is None else tuple(row.values)
        shapes.setdefault(_Shape(row.table, tuple(row.key), values), []).append({**row.key, **(row.values or {})})
    expressions: list[str] = []
    parameters: list[str] = []
    for shape, members in shapes.items():
        expressions.append(f"rows_{len(expressions)} AS ({_sql(shape, first_parameter + len(expressions))})")
        parameters.append(encode_rows(members))
    return expressions, parameters


def writes_to(schema: str, rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Statements with their one parameter that bring rows into the tables of a schema, as an append does into its own.

    What a table holds of these keys goes first, so that a column no row names gets its default.

    Raises:
        InvalidArgument: a value cannot be stored.
    """
    gone: dict[tuple[str, tuple[str, ...]], list[Mapping[str, object]]] = {}
    new: dict[_Shape, list[Mapping[str, object]]] = {}
    for row in rows:
        gone.setdefault((row.table, tuple(row.key)), []).append(row.key)
        if row.values is not None:
            shape = _Shape(row.table, tuple(row.key), tuple(row.values))
            new.setdefault(shape, []).append({**row.key, **row.values})
    statements: list[tuple[str, str]] = []
    for (table, key), members in gone.items():
        place = f"{_name(schema)}.{_name(table)}"
        matches = " AND ".join(f"t.{_name(each)} = r.{each}" for each in key)
        source = f"jsonb_populate_recordset(NULL::{place}, $1::text::jsonb) AS r"
        statements.append((f"DELETE FROM {place} AS t USING {source} WHERE {matches}", encode_rows(members)))
    for shape, members in new.items():
        place = f"{_name(schema)}.{_name(shape.table)}"
        columns = ", ".join(_name(each) for each in (*shape.key, *(shape.values or ())))
        source = f"jsonb_populate_recordset(NULL::{place}, $1::text::jsonb)"
        statements.append((f"INSERT INTO {place} ({columns}) SELECT {columns} FROM {source}", encode_rows(members)))
    return statements


@lru_cache(maxsize=1024)
def _sql(shape: _Shape, parameter: int) -> str:
    table, key = _name(shape.table), [_name(each) for each in shape.key]
    source = f"gate, jsonb_populate_recordset(NULL::{table}, ${parameter}::text::jsonb) AS r"
    if shape.values is None:
        matches = " AND ".join(f"t.{each} = r.{each}" for each in key)
        return f"DELETE FROM {table} AS t USING {source} WHERE {matches}"
    values = [_name(each) for each in shape.values]
    columns = ", ".join([*key, *values])
    selected = ", ".join(f"r.{each}" for each in [*key, *values])
    change = ", ".join(f"{each} = EXCLUDED.{each}" for each in values)
    action = f"UPDATE SET {change}" if change else "NOTHING"
    return f"INSERT INTO {table} ({columns}) SELECT {selected} FROM {source} ON CONFLICT ({', '.join(key)}) DO {action}"


def _name(identifier: str) -> str:
    if not _IDENTIFIER.fullmatch(identifier):
        raise ValueError(f"{identifier!r} is not a plain SQL identifier")
    return identifier


def encode_rows(members: Sequence[Mapping[str, object]]) -> str:
    """Rows as JSON text for ``jsonb_populate_recordset``.

    Raises:
        InvalidArgument: a value cannot be stored.
    """
    plain = [{name: _scalar(value) for name, value in member.items()} for member in members]
    try:
        text = json.dumps(plain, allow_nan=False, default=_scalar)
    except ValueError as error:
        raise InvalidArgument(f"a value cannot be stored: {error}") from error
    if _ESCAPED_NUL.search(text):
        raise InvalidArgument("text may not contain the character NUL")
    return text


def _scalar(value: object) -> object:
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, UUID | Decimal):
        return str(value)
    if isinstance(value, date):  # datetime is one
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] - any JSON
    if isinstance(value, tuple | set | frozenset):
        return list(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] - any JSON
    if value is None or isinstance(value, str | int | float | list):
        return value  # pyright: ignore[reportUnknownVariableType] - any JSON
    raise TypeError(f"a read-model row cannot hold a {type(value).__name__}")
