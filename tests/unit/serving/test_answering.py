"""Logged requests become inputs again, and answers are compared: floats by distance, labels by equality."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from headrace.api.common.v1 import resources_pb2 as common
from headrace.api.common.v1.telemetry_pb2 import COLUMN_ROLE_OUTPUT
from headrace.api.registry.v1 import resources_pb2 as registry
from headrace.kafka.batches import Predictions
from headrace.kafka.columns import ColumnData
from headrace_kit.errors import InvalidArgument
from headrace_serving.answering import Differences, answer_again, compare, inputs_of
from headrace_serving.contract import Contract
from headrace_serving.loader import build_version
from headrace_serving.logged import LoggedBatch
from headrace_serving.runtime import ModelFailed
from headrace_serving.tensors import Array, Tensor
from headrace_serving.versions import LoadedVersion
from tests.support.serving import package, signature

VERSION = "projects/default/models/m/versions/1"


def output(name: str, values: Sequence[Any]) -> ColumnData:
    return ColumnData.of(
        name, np.asarray(values) if values and not isinstance(values[0], str) else values, COLUMN_ROLE_OUTPUT
    )


def seen(logged: Sequence[Any], answered: Sequence[Any], counts: Sequence[int] = ()) -> Differences:
    found = Differences()
    compare({"y": output("y", logged)}, {"y": output("y", answered)}, counts or [1] * len(logged), found)
    return found


def test_floats_differ_by_their_distance() -> None:
    found = seen([1.0, 2.0, 3.0], [1.0, 2.5, 1.0])

    assert (found.requests, found.rows, found.errors, found.changed) == (3, 3, 0, 0)
    assert found.greatest == 2.0
    assert math.isclose(found.mean, 2.5 / 3)


@pytest.mark.parametrize(
    ("logged", "answered"), [(["a", "b", "c"], ["a", "x", "c"]), ([1, 2, 3], [1, 5, 3]), ([True, False], [True, True])]
)
def test_labels_differ_or_not(logged: Sequence[Any], answered: Sequence[Any]) -> None:
    found = seen(logged, answered)

    assert (found.changed, found.numbers, found.errors) == (1, 0, 0)
    assert found.changed_share == 1 / len(logged)


@pytest.mark.parametrize("other", [math.nan, math.inf])
def test_a_number_that_is_none_on_one_side_is_an_error_of_its_request(other: float) -> None:
    found = seen([1.0, other, 3.0, other], [1.0, other, other, 2.0], counts=[1, 1, 2])

    assert (found.requests, found.errors) == (3, 1)
    assert found.greatest == 0.0
    assert seen([math.inf], [-math.inf]).errors == 1


def test_what_can_not_be_compared_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="no output 'y'"):
        compare({"y": output("y", [1.0])}, {"z": output("z", [1.0])}, [1], Differences())
    with pytest.raises(InvalidArgument, match="nothing to compare"):
        compare({}, {"z": output("z", [1.0])}, [1], Differences())


SPECS = [
    common.TensorSpec(name="X", datatype=common.DATA_TYPE_FP32, shape=[-1, 3], columns=["a", "b", "c"]),
    common.TensorSpec(name="Y", datatype=common.DATA_TYPE_FP64, shape=[-1, 2]),
    common.TensorSpec(name="Z", datatype=common.DATA_TYPE_INT64, shape=[-1]),
    common.TensorSpec(name="W", datatype=common.DATA_TYPE_BYTES, shape=[-1, 1]),
    common.TensorSpec(name="V", datatype=common.DATA_TYPE_BOOL, shape=[-1, -1]),
]


def test_inputs_are_what_they_were_before_they_were_logged() -> None:
    contract = Contract(common.Signature(inputs=SPECS))
    words = np.array([["one"], ["two"]], dtype=object)
    words[:] = [[b"one"], [b"two"]]
    arrays: Mapping[str, Array] = {
        "X": np.arange(6, dtype=np.float32).reshape(2, 3),
        "Y": np.array([[0.1, np.nan], [0.3, 0.4]]),
        "Z": np.array([1 << 53, -7]),
        "W": words,
        "V": np.array([[True, False, True], [False, False, True]]),
    }
    given = [Tensor(each.name, each.datatype, arrays[each.name]) for each in contract.inputs]

    back = inputs_of(contract, contract.columns(given, (), (), rows=2))

    for tensor in back:
        before = arrays[tensor.name]
        assert tensor.array.dtype == before.dtype
        assert tensor.array.shape == before.shape
        np.testing.assert_array_equal(tensor.array, before)


def test_what_was_not_logged_can_not_be_answered() -> None:
    contract = Contract(common.Signature(inputs=SPECS[:1]))
    columns = [ColumnData.of("a", np.zeros(1)), ColumnData.of("b", np.zeros(1))]
    with pytest.raises(InvalidArgument, match="without 'c'"):
        inputs_of(contract, columns)
    with pytest.raises(InvalidArgument, match="as text"):
        inputs_of(contract, [*columns, ColumnData.of("c", ["x"])])
    cube = Contract(
        common.Signature(inputs=[common.TensorSpec(name="X", datatype=common.DATA_TYPE_FP32, shape=[-1, 3, 3])])
    )
    with pytest.raises(InvalidArgument, match="by rows and columns"):
        inputs_of(cube, [])


@pytest.fixture
def version() -> LoadedVersion:
    threads = ThreadPoolExecutor(1)
    found = registry.Version(name=VERSION, number=1, format=registry.MODEL_FORMAT_ONNX, signature=signature())
    return build_version(found, package(2.0), threads)


def logged(weight: float, counts: Sequence[int]) -> LoggedBatch:
    """Requests that a model of that weight answered."""
    rows = np.arange(3 * sum(counts), dtype=np.float32).reshape(-1, 3)
    columns = [ColumnData.of(name, rows[:, index]) for index, name in enumerate(("distance", "wind", "hour"))]
    columns.append(output("variable", list(weight * rows.sum(axis=1))))
    batch = Predictions(
        project="default",
        endpoint="e",
        model_version=VERSION,
        shard=0,
        ids=[str(each) for each in range(len(counts))],
        row_counts=np.array(counts, np.uint32),
        times_us=np.zeros(len(counts), np.int64),
        columns=columns,
    )
    return LoggedBatch(0, 0, "0" * 64, batch, range(len(counts)))


def test_a_model_answers_logged_requests_again(version: LoadedVersion) -> None:
    same, other = Differences(), Differences()
    asyncio.run(answer_again(version, logged(2.0, [1, 3, 2]), same))
    asyncio.run(answer_again(version, logged(3.0, [1, 3, 2]), other))

    assert (same.requests, same.rows, same.errors) == (3, 6, 0)
    assert same.greatest < 1e-4
    assert other.greatest == pytest.approx(48.0)  # of the last row, 15 + 16 + 17


def test_some_requests_of_a_record_have_their_own_rows(version: LoadedVersion) -> None:
    whole = logged(3.0, [1, 3, 2])
    seen_now = Differences()
    first = LoggedBatch(0, 0, "0" * 64, whole.predictions, [0])
    asyncio.run(answer_again(version, first, seen_now))

    assert (seen_now.requests, seen_now.rows) == (1, 1)
    assert seen_now.greatest == pytest.approx(3.0)
    assert first.ids == ["0"]


def test_each_request_that_fails_is_one_error(version: LoadedVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = version.run

    async def failing(inputs: Mapping[str, Array], outputs: Sequence[str], *, rows: int) -> dict[str, Array]:
        if (inputs["X"][:, 0] == 3).any():  # the second request begins so
            raise ModelFailed("no threes")
        return await runs(inputs, outputs, rows=rows)

    monkeypatch.setattr(version, "run", failing)
    found = Differences()
    asyncio.run(answer_again(version, logged(2.0, [1, 3, 2]), found))

    assert (found.requests, found.rows, found.errors) == (3, 3, 1)
