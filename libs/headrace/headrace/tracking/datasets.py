"""Digest and schema of the data a run used: pandas, polars, pyarrow, NumPy, files and bytes."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

from headrace.api.common.v1.resources_pb2 import DatasetColumn, DatasetVersion

_MAX_COLUMNS: Final = 4096


@runtime_checkable
class _Frame(Protocol):
    """What pandas, polars and pyarrow tables have in common, as far as it is used here."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, key: str, /) -> Any: ...  # noqa: ANN401 - a column of whichever library


def describe_dataset(
    data: object, *, name: str, context: str = "training", source: str = "", description: str = ""
) -> DatasetVersion:
    """A dataset version with the digest of its content, its rows and its schema.

    Args:
        data: A table of pandas, polars or pyarrow; a mapping of names to one-dimensional arrays; a NumPy array; a path
            to a file; or bytes.
        name: Name people use.
        context: ``training``, ``validation`` or ``test``.
        source: Where it came from.
        description: Free text, such as the time range.

    Raises:
        TypeError: The data is of none of these kinds.
    """
    version = DatasetVersion(name=name, context=context, source=source, description=description)
    hashed = hashlib.sha256()
    match data:
        case bytes():
            hashed.update(data)
        case str() | Path():
            with Path(data).open("rb") as file:
                hashed = hashlib.file_digest(file, "sha256")
            version.source = source or str(data)
        case np.ndarray():
            columns = (
                {f"column_{index}": data[:, index] for index in range(data.shape[1])}
                if data.ndim == 2
                else {"values": data}
            )
            _add_columns(version, hashed, columns.items())
        case Mapping():
            _add_columns(version, hashed, ((str(key), np.asarray(value)) for key, value in data.items()))
        case _Frame():
            names = _column_names(data)
            _add_columns(version, hashed, ((each, np.asarray(data[each])) for each in names))
        case _:
            raise TypeError(
                f"a dataset is a table (pandas, polars, pyarrow), arrays, a path or bytes, not {type(data).__name__}"
            )
    version.digest = f"sha256:{hashed.hexdigest()}"
    return version


def _column_names(frame: _Frame) -> list[str]:
    names: Iterable[object] = getattr(
        frame, "column_names" if hasattr(frame, "column_names") else "columns", ()
    )  # pyarrow's first
    return [str(name) for name in names]


def _add_columns(version: DatasetVersion, hashed: Any, columns: Iterable[tuple[str, Any]]) -> None:  # noqa: ANN401 - hashlib's type has no public name
    for count, (name, values) in enumerate(columns):
        array = np.ascontiguousarray(values)
        kind = str(array.dtype)
        if count < _MAX_COLUMNS:
            version.columns.append(DatasetColumn(name=name, type=kind))
        version.rows = max(version.rows, int(array.shape[0]) if array.ndim else 1)
        hashed.update(f"{name}\x00{kind}\x00{array.shape}\x00".encode())
        if array.dtype.hasobject or array.dtype.kind in "US":
            for item in array.ravel().tolist():
                text = str(item).encode()
                hashed.update(len(text).to_bytes(8, "little") + text)
        else:
            hashed.update(array.view(np.uint8).data if array.size else b"")
