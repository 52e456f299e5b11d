"""Batch scoring: a Parquet or CSV file through the runtime that answers requests, chunk by chunk.

pyarrow is known here. Memory holds one chunk, whatever the size of the file.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from headrace.kafka.columns import ColumnData
from headrace_kit.errors import InvalidArgument
from headrace_serving.contract import Contract, Spec
from headrace_serving.tensors import BYTES, DTYPES, Array, Tensor, tensor_of
from headrace_serving.versions import LoadedVersion

CHUNK_ROWS: Final = 8192
Progress = Callable[[int], None]
"""Called with the number of rows scored so far."""
Publish = Callable[[Sequence[ColumnData]], Awaitable[str]]
"""Sends the columns of a chunk as one prediction; returns its id."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What was scored."""

    rows: int
    chunks: int
    columns: tuple[str, ...]
    """Columns written, the id first."""


async def score_file(
    version: LoadedVersion,
    source: Path,
    target: Path,
    *,
    id_column: str = "",
    chunk_rows: int = CHUNK_ROWS,
    progress: Progress | None = None,
    publish: Publish | None = None,
) -> Scored:
    """Writes a prediction for each row of ``source`` beside its id, in the order of the rows.

    Each input of the signature is read from the columns it names, or from the one column of its name. The target
    appears when all is written, or not at all. With ``publish`` each chunk is one prediction, whose id and row, by
    which labels name it, are written beside each row.

    Args:
        version: What computes.
        source: ``.parquet`` or ``.csv``.
        target: ``.parquet`` or ``.csv``; replaced when there is one.
        id_column: Column that identifies rows; the number of the row, from 0, when empty.
        chunk_rows: Rows computed at once.
        progress: Told after each chunk.
        publish: Sends prediction events.

    Raises:
        InvalidArgument: A column is missing, a value is not of its type, or a name ends otherwise.
        ModelFailed: The model's fault.
    """
    partial = target.with_name(f".{target.name}.partial")
    rows = chunks = 0
    columns: tuple[str, ...] = ()
    writer: _Writer | None = None
    try:
        for table in _chunks(source, chunk_rows):
            ids = _ids(table, id_column, first=rows)
            inputs = _inputs(table, version.contract)
            outputs = await compute(version, inputs, rows=table.num_rows)
            data = version.contract.columns(inputs, (), outputs, rows=table.num_rows)
            scored = _table(id_column or "row", ids, outputs)
            if publish is not None:
                scored = _named(scored, await publish(data))
            if writer is None:
                writer, columns = _Writer(partial, target.suffix, scored.schema), tuple(scored.schema.names)
            writer.write(scored)
            rows, chunks = rows + table.num_rows, chunks + 1
            if progress is not None:
                progress(rows)
        if writer is None:
            raise InvalidArgument(f"{source.name} has no rows", field="source")
        writer.close()
        writer = None
        partial.replace(target)
    finally:
        if writer is not None:
            writer.close()
        partial.unlink(missing_ok=True)
    return Scored(rows, chunks, columns)


async def compute(version: LoadedVersion, inputs: Sequence[Tensor], *, rows: int) -> list[Tensor]:
    """Every output of a version. Raises InvalidArgument where inputs do not fit it, and ModelFailed."""
    version.contract.check_inputs(inputs)
    names = [each.name for each in version.contract.outputs]
    with version.in_use():
        computed = await version.run({each.name: each.array for each in inputs}, names, rows=rows)
    return [tensor_of(name, computed[name]) for name in names]


def _chunks(source: Path, rows: int) -> Iterator[Any]:  # Any: pyarrow has no types
    """Tables of at most ``rows`` rows."""
    for batch in _batches(source, rows):
        for start in range(0, batch.num_rows, rows):
            yield pa.Table.from_batches([batch.slice(start, rows)])


def _batches(source: Path, rows: int) -> Iterator[Any]:  # Any: as above
    try:
        match source.suffix:
            case ".parquet":
                with parquet.ParquetFile(source) as file:
                    yield from file.iter_batches(batch_size=rows)
            case ".csv":
                with csv.open_csv(source) as reader:
                    yield from reader
            case _:
                raise InvalidArgument("give a .parquet or a .csv file", field="source")
    except pa.ArrowInvalid as error:
        raise InvalidArgument(f"{source.name} can not be read: {error}"[:500], field="source") from error


def _ids(table: Any, column: str, *, first: int) -> Any:  # noqa: ANN401 - pyarrow has no types
    if not column:
        return pa.array(range(first, first + table.num_rows), pa.int64())
    return _column(table, column, field="id_column").combine_chunks()


def _inputs(table: Any, contract: Contract) -> list[Tensor]:  # noqa: ANN401 - as above
    return [Tensor(spec.name, spec.datatype, _matrix(table, spec)) for spec in contract.inputs]


def _matrix(table: Any, spec: Spec) -> Array:  # noqa: ANN401 - as above
    names = spec.columns or (spec.name,)
    parts = [_values(_column(table, name, field="source"), name, spec.datatype) for name in names]
    return parts[0] if len(spec.shape) == 1 else np.column_stack(parts)


def _column(table: Any, name: str, *, field: str) -> Any:  # noqa: ANN401 - as above
    if name not in table.schema.names:
        known = ", ".join(table.schema.names)
        raise InvalidArgument(f"there is no column {name!r}; there are {known}"[:500], field=field)
    return table.column(name)


def _values(column: Any, name: str, datatype: str) -> Array:  # noqa: ANN401 - as above
    """A column in the type of the model; missing floats are NaN, other missing values are refused."""
    if datatype == BYTES:
        words = np.empty(len(column), dtype=object)
        words[:] = [str("" if each is None else each).encode() for each in column.to_pylist()]
        return words
    dtype = DTYPES[datatype]
    if column.null_count and dtype.kind != "f":
        raise InvalidArgument(f"column {name} has missing values, and {datatype} has none", field="source")
    try:
        values = column.cast(pa.float64()) if dtype.kind == "f" else column
        return np.asarray(values.to_numpy()).astype(dtype, casting="unsafe" if dtype.kind == "f" else "same_kind")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, TypeError, ValueError) as error:
        raise InvalidArgument(f"column {name} is no {datatype}: {error}"[:500], field="source") from error


def _table(id_name: str, ids: Any, outputs: Sequence[Tensor]) -> Any:  # noqa: ANN401 - as above
    columns: dict[str, Any] = {id_name: ids}
    for tensor in outputs:
        array = tensor.array.reshape(len(tensor.array), -1)
        width = array.shape[1]
        for index in range(width):
            name = tensor.name if width == 1 else f"{tensor.name}[{index}]"
            values = array[:, index]
            plain = [each.decode(errors="replace") if isinstance(each, bytes) else each for each in values.tolist()]
            columns[name] = pa.array(plain) if tensor.datatype == BYTES else pa.array(values)
    return pa.table(_renamed(columns, id_name))


def _named(table: Any, prediction_id: str) -> Any:  # noqa: ANN401 - as above
    rows = pa.array(range(table.num_rows), pa.int64())
    named = table.append_column("prediction_id", pa.array([prediction_id] * table.num_rows))
    return named.append_column("prediction_row", rows)


def _renamed(columns: Mapping[str, Any], id_name: str) -> dict[str, Any]:
    """An output that is called as the id column gets another name."""
    return {
        (f"output:{name}" if index and name == id_name else name): each
        for index, (name, each) in enumerate(columns.items())
    }


class _Writer:
    """Writes tables of one schema to a Parquet or CSV file."""

    def __init__(self, path: Path, suffix: str, schema: Any) -> None:  # noqa: ANN401 - as above
        writers = {".parquet": parquet.ParquetWriter, ".csv": csv.CSVWriter}
        if suffix not in writers:
            raise InvalidArgument("give a .parquet or a .csv file", field="target")
        self._writer = writers[suffix](path, schema)

    def write(self, table: Any) -> None:  # noqa: ANN401 - as above
        """Appends a table."""
        self._writer.write_table(table)

    def close(self) -> None:
        """Ends the file."""
        self._writer.close()
