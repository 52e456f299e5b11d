from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from headrace.api.registry.v1.resources_pb2 import MODEL_FORMAT_ONNX, Version
from headrace.kafka.columns import ColumnData
from headrace_kit.errors import InvalidArgument
from headrace_serving.batch import score_file
from headrace_serving.loader import build_version
from headrace_serving.versions import LoadedVersion
from tests.support.serving import COLUMNS, package, signature

WRITERS: dict[str, Callable[[Any, Path], None]] = {
    ".parquet": parquet.write_table,
    ".csv": csv.write_csv,
}
READERS: dict[str, Callable[[Path], Any]] = {".parquet": parquet.read_table, ".csv": csv.read_csv}


@pytest.fixture
def version() -> LoadedVersion:
    described = Version(
        name="projects/p/models/m/versions/1", number=1, format=MODEL_FORMAT_ONNX, signature=signature()
    )
    return build_version(described, package(2.0), ThreadPoolExecutor(1))


def table(rows: int, **more: Any) -> Any:
    numbers = np.random.default_rng(7).normal(size=(rows, 3))
    return pa.table(
        {"flight": [f"f{index}" for index in range(rows)], **dict(zip(COLUMNS, numbers.T, strict=True)), **more}
    )


def _names(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]


@pytest.mark.parametrize("suffix", WRITERS)
async def test_each_row_gets_its_prediction_in_order(version: LoadedVersion, tmp_path: Path, suffix: str) -> None:
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    given = table(1000)
    WRITERS[suffix](given, source)
    seen: list[int] = []
    scored = await score_file(version, source, target, id_column="flight", chunk_rows=300, progress=seen.append)
    found = READERS[suffix](target)
    assert (scored.rows, scored.columns) == (1000, ("flight", "variable"))
    assert seen[-1] == 1000
    assert found.column("flight").to_pylist() == given.column("flight").to_pylist()
    expected = 2 * sum(given.column(name).to_numpy() for name in COLUMNS)
    np.testing.assert_allclose(found.column("variable").to_numpy(), expected, rtol=1e-5, atol=1e-5)


async def test_published_rows_name_their_prediction(version: LoadedVersion, tmp_path: Path) -> None:
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    parquet.write_table(table(5), source)
    sent: list[list[str]] = []

    async def publish(columns: Sequence[ColumnData]) -> str:
        sent.append([each.name for each in columns])
        return f"prediction-{len(sent)}"

    await score_file(version, source, target, chunk_rows=3, publish=publish)
    found = parquet.read_table(target)
    assert sent == [[*COLUMNS, "variable"]] * 2
    assert found.column("row").to_pylist() == [0, 1, 2, 3, 4]
    assert found.column("prediction_id").to_pylist() == ["prediction-1"] * 3 + ["prediction-2"] * 2
    assert found.column("prediction_row").to_pylist() == [0, 1, 2, 0, 1]


@pytest.mark.parametrize(
    ("given", "options", "field"),
    [
        (table(3).drop_columns("wind"), {}, "source"),
        (table(3).set_column(1, "distance", pa.array(["a", "b", "c"])), {}, "source"),
        (table(3), {"id_column": "nothing"}, "id_column"),
        (table(0), {}, "source"),
    ],
    ids=["missing column", "text", "unknown id", "empty"],
)
async def test_a_file_that_does_not_fit_is_refused_and_nothing_is_left(
    version: LoadedVersion, tmp_path: Path, given: Any, options: dict[str, str], field: str
) -> None:
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    parquet.write_table(given, source)
    with pytest.raises(InvalidArgument) as refused:
        await score_file(version, source, target, id_column=options.get("id_column", ""))
    assert refused.value.field == field
    assert _names(tmp_path) == ["in.parquet"]


async def test_a_broken_file_is_refused(version: LoadedVersion, tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    source.write_bytes(b"not parquet")
    with pytest.raises(InvalidArgument):
        await score_file(version, source, tmp_path / "out.parquet")


async def test_missing_numbers_are_nan(version: LoadedVersion, tmp_path: Path) -> None:
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    parquet.write_table(table(2).set_column(1, "distance", pa.array([None, 1.0])), source)
    await score_file(version, source, target)
    found = parquet.read_table(target).column("variable").to_numpy()
    assert np.isnan(found[0])
    assert not np.isnan(found[1])
