"""Tensors as they travel and as NumPy has them: the names, types and limits of the Open Inference Protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from headrace.api.common.v1 import resources_pb2 as common
from headrace_kit.errors import InvalidArgument

Array = NDArray[Any]  # the element type is the tensor's own
Parameter = bool | int | float | str

BYTES: Final = "BYTES"
BOOL: Final = "BOOL"
DTYPES: Final[Mapping[str, np.dtype[Any]]] = {
    "BOOL": np.dtype("?"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""Types of fixed size. BYTES is the other one: an object array of ``bytes``."""
NAMES: Final[Mapping[np.dtype[Any], str]] = {dtype: name for name, dtype in DTYPES.items()}
OBJECT: Final = np.dtype("O")

MAX_RANK: Final = 8
MAX_TENSORS: Final = 1024
MAX_NAME: Final = 250
MAX_ELEMENTS: Final = 1 << 27
MAX_PARAMETERS: Final = 100


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """One tensor: ``array`` has the shape; BYTES are ``bytes`` objects in it."""

    name: str
    datatype: str
    array: Array


@dataclass(frozen=True, slots=True, eq=False)
class InferRequest:
    """An inference as asked for, whatever the transport."""

    model: str
    """``endpoint`` or ``project/endpoint``."""
    version: str
    """Number; empty to have the routes choose."""
    id: str
    parameters: Mapping[str, Parameter]
    inputs: Sequence[Tensor]
    outputs: Sequence[str]
    """Names; none means all."""
    segments: Sequence[Tensor] = field(default=())
    """Values for slicing only; the model does not see them."""


@dataclass(frozen=True, slots=True, eq=False)
class InferResponse:
    """An answer, whatever the transport."""

    model: str
    version: str
    id: str
    parameters: Mapping[str, str]
    outputs: Sequence[Tensor]


def datatype_name(datatype: common.DataType.ValueType) -> str:
    """The protocol's name of a type: ``FP32`` of ``DATA_TYPE_FP32``."""
    return common.DataType.Name(datatype).removeprefix("DATA_TYPE_")


def check_name(name: str, *, field: str) -> str:
    """A name within its limits. Raises InvalidArgument."""
    if not 1 <= len(name) <= MAX_NAME:
        raise InvalidArgument(f"a name has 1 to {MAX_NAME} characters", field=field)
    return name


def check_count(count: int, *, field: str, least: int = 0) -> None:
    """A number of tensors within its limits. Raises InvalidArgument."""
    if not least <= count <= MAX_TENSORS:
        raise InvalidArgument(f"give {least} to {MAX_TENSORS}, not {count}", field=field)


def check_datatype(datatype: str, *, field: str) -> str:
    """A known type. Raises InvalidArgument."""
    if datatype not in DTYPES and datatype != BYTES:
        known = ", ".join((*DTYPES, BYTES))
        raise InvalidArgument(f"{datatype[:40]!r} is not one of {known}", field=field)
    return datatype


def check_shape(shape: Sequence[int], *, field: str) -> int:
    """The number of elements of a shape, at least 1. Raises InvalidArgument."""
    if len(shape) > MAX_RANK:
        raise InvalidArgument(f"a shape has at most {MAX_RANK} dimensions", field=field)
    count = 1
    for dimension in shape:
        if dimension < 1:
            raise InvalidArgument(f"a dimension is at least 1, not {dimension}", field=field)
        count *= dimension
        if count > MAX_ELEMENTS:
            raise InvalidArgument(f"a tensor has at most {MAX_ELEMENTS} elements", field=field)
    return count


def from_raw(data: bytes, datatype: str, shape: Sequence[int], *, field: str) -> Array:
    """Elements of little-endian bytes; a read-only view where the type has a fixed size.

    Raises:
        InvalidArgument: The bytes are not the elements of that shape.
    """
    count = check_shape(shape, field=field)
    if datatype == BYTES:
        return _from_raw_bytes(data, count, field=field).reshape(shape)
    dtype = DTYPES[datatype]
    if len(data) != count * dtype.itemsize:
        raise InvalidArgument(f"{count * dtype.itemsize} bytes are needed, {len(data)} are there", field=field)
    if datatype == BOOL and data.translate(None, b"\x00\x01"):
        raise InvalidArgument("a BOOL is 0 or 1", field=field)
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def to_raw(tensor: Tensor) -> bytes:
    """Little-endian bytes of the elements."""
    if tensor.datatype == BYTES:
        words = (as_bytes(each) for each in tensor.array.ravel().tolist())
        return b"".join(len(word).to_bytes(4, "little") + word for word in words)
    return np.ascontiguousarray(tensor.array, dtype=DTYPES[tensor.datatype]).tobytes()


def as_bytes(word: object) -> bytes:
    """A string element as bytes."""
    return word if isinstance(word, bytes) else str(word).encode()


def tensor_of(name: str, array: Array) -> Tensor:
    """The tensor of a model's output. Raises TypeError for a type the protocol does not know."""
    if array.dtype.kind in "OSU":
        return Tensor(name, BYTES, array.astype(object))
    little = array.dtype.newbyteorder("<")
    if little not in NAMES:
        raise TypeError(f"output {name} has type {array.dtype}, which does not travel")
    return Tensor(name, NAMES[little], array)


def _from_raw_bytes(data: bytes, count: int, *, field: str) -> Array:
    words = np.empty(count, dtype=object)
    at = 0
    for index in range(count):
        start = at + 4
        end = start + int.from_bytes(data[at:start], "little")
        if start > len(data) or end > len(data):
            raise InvalidArgument(f"the bytes end within element {index} of {count}", field=field)
        words[index] = data[start:end]
        at = end
    if at != len(data):
        raise InvalidArgument(f"{len(data) - at} bytes follow the last element", field=field)
    return words
