"""Columns of a batch: NumPy arrays to and from little-endian bytes, without a copy where the machine allows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from headrace.api.common.v1 import resources_pb2, telemetry_pb2
from headrace.kafka.errors import InvalidBatch

Role: TypeAlias = "telemetry_pb2.ColumnRole.ValueType"
DataType: TypeAlias = "resources_pb2.DataType.ValueType"

Array = NDArray[Any]  # the element type is the column's own

MISSING_CODE = 0xFFFFFFFF
"""Code of a missing string."""

_DTYPES: Mapping[DataType, np.dtype[Any]] = {
    resources_pb2.DATA_TYPE_BOOL: np.dtype("?"),
    resources_pb2.DATA_TYPE_INT8: np.dtype("i1"),
    resources_pb2.DATA_TYPE_INT16: np.dtype("<i2"),
    resources_pb2.DATA_TYPE_INT32: np.dtype("<i4"),
    resources_pb2.DATA_TYPE_INT64: np.dtype("<i8"),
    resources_pb2.DATA_TYPE_UINT8: np.dtype("u1"),
    resources_pb2.DATA_TYPE_UINT16: np.dtype("<u2"),
    resources_pb2.DATA_TYPE_UINT32: np.dtype("<u4"),
    resources_pb2.DATA_TYPE_UINT64: np.dtype("<u8"),
    resources_pb2.DATA_TYPE_FP16: np.dtype("<f2"),
    resources_pb2.DATA_TYPE_FP32: np.dtype("<f4"),
    resources_pb2.DATA_TYPE_FP64: np.dtype("<f8"),
    resources_pb2.DATA_TYPE_BYTES: np.dtype("<u4"),
}
_DATATYPES = {dtype: datatype for datatype, dtype in _DTYPES.items() if datatype != resources_pb2.DATA_TYPE_BYTES}


@dataclass(frozen=True, slots=True, eq=False)
class ColumnData:
    """One column: ``(n,)`` values in a type that travels; strings are ``uint32`` codes into ``dictionary``.

    Floats say missing by NaN, strings by ``MISSING_CODE``.
    """

    name: str
    values: Array
    role: Role = telemetry_pb2.COLUMN_ROLE_INPUT
    dictionary: tuple[str, ...] | None = None

    @classmethod
    def of(
        cls,
        name: str,
        values: Array | Sequence[Any],
        role: Role = telemetry_pb2.COLUMN_ROLE_INPUT,
    ) -> ColumnData:
        """A column of any one-dimensional numbers, booleans or strings; None among strings is missing.

        Raises:
            InvalidBatch: the values have another shape or type.
        """
        array = np.asarray(values)
        if array.ndim != 1:
            raise InvalidBatch(f"column {name} has {array.ndim} dimensions, not 1", field="columns")
        if array.dtype.kind in "OSU":
            codes, dictionary = _encode_strings(name, array.tolist())
            return cls(name, codes, role, dictionary)
        little = array.dtype.newbyteorder("<")
        if little not in _DATATYPES:
            raise InvalidBatch(f"column {name} has type {array.dtype}, which does not travel", field="columns")
        return cls(name, array.astype(little, copy=False), role)

    @property
    def datatype(self) -> DataType:
        """Element type on the wire."""
        if self.dictionary is not None:
            return resources_pb2.DATA_TYPE_BYTES
        return _DATATYPES[self.values.dtype]

    def strings(self) -> list[str | None]:
        """The strings of a string column."""
        words: list[str | None] = [*(self.dictionary or ()), None]
        last = len(words) - 1
        return [words[min(code, last)] for code in self.values.tolist()]

    def take(self, rows: NDArray[np.intp]) -> ColumnData:
        """The same column with these rows."""
        return ColumnData(self.name, self.values[rows], self.role, self.dictionary)


def concatenate(parts: Sequence[ColumnData]) -> ColumnData:
    """One column of the parts in order; name, role and type are those of the first, which all share."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if first.dictionary is None:
        return ColumnData(first.name, np.concatenate([part.values for part in parts]), first.role)
    codes, dictionary = _encode_strings(first.name, [word for part in parts for word in part.strings()])
    return ColumnData(first.name, codes, first.role, dictionary)


def encode_column(column: ColumnData) -> telemetry_pb2.Column:
    """The column on the wire."""
    return telemetry_pb2.Column(
        name=column.name,
        role=column.role,
        datatype=column.datatype,
        values=np.ascontiguousarray(column.values).tobytes(),
        dictionary=column.dictionary or (),
    )


def decode_column(column: telemetry_pb2.Column, *, rows: int, field: str) -> ColumnData:
    """The column as a read-only view of the message's bytes.

    Raises:
        InvalidBatch: unknown type, another length than ``rows``, or a code outside the dictionary.
    """
    if not 1 <= len(column.name) <= 250:
        raise InvalidBatch("a column's name has 1 to 250 characters", field=f"{field}.name")
    dtype = _DTYPES.get(column.datatype)
    if dtype is None:
        raise InvalidBatch(f"column {column.name}: unknown type {column.datatype}", field=f"{field}.datatype")
    values = decode_array(column.values, dtype, rows=rows, field=f"{field}.values")
    if column.datatype != resources_pb2.DATA_TYPE_BYTES:
        if column.dictionary:
            raise InvalidBatch("only a BYTES column has a dictionary", field=f"{field}.dictionary")
        return ColumnData(column.name, values, column.role)
    if rows and bool(np.any((values >= len(column.dictionary)) & (values != MISSING_CODE))):
        raise InvalidBatch(f"column {column.name}: a code lies outside the dictionary", field=f"{field}.values")
    return ColumnData(column.name, values, column.role, tuple(column.dictionary))


def decode_array(data: bytes, dtype: np.dtype[Any], *, rows: int, field: str) -> Array:
    """``(rows,)`` read-only view of little-endian bytes.

    Raises:
        InvalidBatch: the bytes are not ``rows`` elements.
    """
    if len(data) != rows * dtype.itemsize:
        raise InvalidBatch(f"{len(data)} bytes are not {rows} elements of {dtype.itemsize} bytes", field=field)
    if dtype.kind == "b" and data.translate(None, b"\x00\x01"):
        raise InvalidBatch("a boolean is 0 or 1", field=field)
    return np.frombuffer(data, dtype=dtype)


def _encode_strings(name: str, words: Iterable[Any]) -> tuple[NDArray[np.uint32], tuple[str, ...]]:
    codes: dict[str, int] = {}
    encoded: list[int] = []
    for word in words:
        text = word.decode() if isinstance(word, bytes) else word
        if text is None or (isinstance(text, float) and text != text):  # noqa: PLR0124 - NaN is missing
            encoded.append(MISSING_CODE)
        elif isinstance(text, str):
            encoded.append(codes.setdefault(text, len(codes)))
        else:
            raise InvalidBatch(f"column {name} mixes strings with {type(text).__name__}", field="columns")
    return np.array(encoded, dtype="<u4"), tuple(codes)
