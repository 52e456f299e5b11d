"""What a version takes and gives, compiled from its signature: checks requests, names the columns of telemetry."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from headrace.api.common.v1 import resources_pb2 as common
from headrace.api.common.v1 import telemetry_pb2 as telemetry
from headrace.kafka.batches import MAX_BATCH_ROWS
from headrace.kafka.columns import ColumnData, Role
from headrace_kit.errors import InvalidArgument
from headrace_serving.tensors import BYTES, DTYPES, OBJECT, Array, Tensor, as_bytes, datatype_name

MAX_ROWS: Final = MAX_BATCH_ROWS
"""Rows of one request: those of a telemetry batch."""
MAX_COLUMNS: Final = 4096
_VARIABLE: Final = -1


@dataclass(frozen=True, slots=True)
class Spec:
    """One tensor of a signature."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    columns: tuple[str, ...]

    @property
    def batched(self) -> bool:
        """Whether its first dimension counts rows."""
        return bool(self.shape) and self.shape[0] == _VARIABLE

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether an array of that shape is one of these."""
        return len(shape) == len(self.shape) and all(
            want in (_VARIABLE, have) for want, have in zip(self.shape, shape, strict=True)
        )

    def example(self) -> Array:
        """One row of zeros, or of empty texts."""
        shape = tuple(1 if each == _VARIABLE else each for each in self.shape)
        return np.full(shape, b"", dtype=object) if self.datatype == BYTES else np.zeros(shape, DTYPES[self.datatype])


class Contract:
    """The signature of a version."""

    def __init__(self, signature: common.Signature) -> None:
        self.inputs = tuple(_spec(each) for each in signature.inputs)
        self.outputs = tuple(_spec(each) for each in signature.outputs)
        self._by_name = {each.name: each for each in self.inputs}
        self._output_names = frozenset(each.name for each in self.outputs)
        self._output_specs = {each.name: each for each in self.outputs}

    def check_outputs(self, names: Sequence[str]) -> Sequence[str]:
        """The outputs to compute: those wanted, or all. Raises InvalidArgument for one the model does not have."""
        for index, name in enumerate(names):
            if name not in self._output_names:
                raise InvalidArgument(
                    f"there is no output {name!r}; there are {', '.join(sorted(self._output_names))}",
                    field=f"outputs[{index}].name",
                )
        return list(dict.fromkeys(names)) or [each.name for each in self.outputs]

    def check_inputs(self, tensors: Sequence[Tensor]) -> int:
        """The number of rows of a request that has every input once, in its type and shape.

        Raises:
            InvalidArgument: Names the input at fault.
        """
        rows: int | None = None
        seen: set[str] = set()
        for index, tensor in enumerate(tensors):
            spec = self._by_name.get(tensor.name)
            at = f"inputs[{index}]"
            if spec is None:
                known = ", ".join(self._by_name)
                raise InvalidArgument(f"there is no input {tensor.name!r}; there are {known}", field=f"{at}.name")
            if tensor.name in seen:
                raise InvalidArgument(f"input {tensor.name} is there twice", field=f"{at}.name")
            seen.add(tensor.name)
            self._check_tensor(tensor, spec, at)
            if spec.batched:
                if rows is not None and rows != len(tensor.array):
                    raise InvalidArgument(f"other inputs have {rows} rows", field=f"{at}.shape")
                rows = len(tensor.array)
        missing = [name for name in self._by_name if name not in seen]
        if missing:
            raise InvalidArgument(f"input {missing[0]} is missing", field="inputs")
        return 1 if rows is None else rows

    def columns(
        self, request: Iterable[Tensor], segments: Iterable[Tensor], answer: Iterable[Tensor], *, rows: int
    ) -> list[ColumnData]:
        """The columns of telemetry: each named once; what has no column for each row is left out."""
        roles: tuple[tuple[Iterable[Tensor], Mapping[str, Spec], Role], ...] = (
            (request, self._by_name, telemetry.COLUMN_ROLE_INPUT),
            (segments, {}, telemetry.COLUMN_ROLE_SEGMENT),
            (answer, self._output_specs, telemetry.COLUMN_ROLE_OUTPUT),
        )
        found: dict[str, ColumnData] = {}
        for tensors, specs, role in roles:
            for tensor in tensors:
                for name, values in _split(tensor, specs.get(tensor.name), rows=rows):
                    if len(found) < MAX_COLUMNS:
                        unique = _unique(name, found, role)
                        found[unique] = _column(unique, values, role)
        return list(found.values())

    @staticmethod
    def _check_tensor(tensor: Tensor, spec: Spec, at: str) -> None:
        if tensor.datatype != spec.datatype:
            raise InvalidArgument(f"{spec.name} is {spec.datatype}, not {tensor.datatype}", field=f"{at}.datatype")
        shape = tensor.array.shape
        if not spec.fits(shape):
            raise InvalidArgument(f"{spec.name} has shape {list(spec.shape)}, not {list(shape)}", field=f"{at}.shape")
        if spec.batched and shape[0] > MAX_ROWS:
            raise InvalidArgument(f"a request has at most {MAX_ROWS} rows", field=f"{at}.shape")


def check_segments(tensors: Sequence[Tensor], *, rows: int) -> None:
    """Segments have one value a row. Raises InvalidArgument."""
    for tensor in tensors:
        if tensor.array.shape not in ((rows,), (rows, 1)):
            raise InvalidArgument(f"segment {tensor.name} needs one value for each of {rows} rows", field="inputs")


def _spec(tensor: common.TensorSpec) -> Spec:
    return Spec(tensor.name, datatype_name(tensor.datatype), tuple(tensor.shape), tuple(tensor.columns))


def _split(tensor: Tensor, spec: Spec | None, *, rows: int) -> Iterator[tuple[str, Array]]:
    """Columns of ``(rows,)`` with their names."""
    array = tensor.array
    if spec is not None and not spec.batched and rows == 1:
        array = array.reshape(1, -1)
    if array.ndim == 1:
        array = array.reshape(-1, 1)
    if array.ndim != 2 or len(array) != rows:
        return
    width = array.shape[1]
    names = spec.columns if spec is not None and len(spec.columns) == width else ()
    for index in range(width):
        plain = tensor.name if width == 1 else f"{tensor.name[:240]}[{index}]"
        yield (names[index] if names else plain), array[:, index]


def _unique(name: str, taken: Mapping[str, ColumnData], role: Role) -> str:
    prefix = "output" if role == telemetry.COLUMN_ROLE_OUTPUT else "segment"
    unique, count = name, 0
    while unique in taken:
        count += 1
        unique = f"{prefix}{count if count > 1 else ''}:{name}"[:250]
    return unique


def _column(name: str, values: Array, role: Role) -> ColumnData:
    if values.dtype == OBJECT:
        return ColumnData.of(name, [as_bytes(each).decode(errors="replace") for each in values.tolist()], role)
    return ColumnData(name, values, role)
