from __future__ import annotations

import numpy as np
import pytest

from headrace.api.common.v1 import resources_pb2 as common
from headrace.api.common.v1 import telemetry_pb2 as telemetry
from headrace_kit.errors import InvalidArgument
from headrace_serving.contract import MAX_ROWS, Contract, check_segments
from headrace_serving.tensors import Array, Tensor
from tests.support.serving import COLUMNS, signature


def f32(name: str, *shape: int) -> Tensor:
    return Tensor(name, "FP32", np.zeros(shape, dtype="<f4"))


def test_a_request_that_fits_has_rows() -> None:
    assert Contract(signature()).check_inputs([f32("X", 7, 3)]) == 7


@pytest.mark.parametrize(
    ("tensors", "field"),
    [
        ([], "inputs"),
        ([f32("X", 7, 4)], "inputs[0].shape"),
        ([f32("X", 3)], "inputs[0].shape"),
        ([f32("Y", 7, 3)], "inputs[0].name"),
        ([f32("X", 7, 3), f32("X", 7, 3)], "inputs[1].name"),
        ([Tensor("X", "FP64", np.zeros((7, 3)))], "inputs[0].datatype"),
        ([f32("X", MAX_ROWS + 1, 3)], "inputs[0].shape"),
    ],
)
def test_a_request_that_does_not_fit_names_the_field(tensors: list[Tensor], field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        Contract(signature()).check_inputs(tensors)
    assert refused.value.field == field


def test_as_many_rows_as_the_limit_fit() -> None:
    assert Contract(signature()).check_inputs([f32("X", MAX_ROWS, 3)]) == MAX_ROWS


def test_inputs_have_one_number_of_rows() -> None:
    spec = common.Signature(
        inputs=[common.TensorSpec(name=name, datatype=common.DATA_TYPE_FP32, shape=[-1]) for name in "ab"],
        outputs=[common.TensorSpec(name="o", datatype=common.DATA_TYPE_FP32, shape=[-1])],
    )
    with pytest.raises(InvalidArgument):
        Contract(spec).check_inputs([f32("a", 2), f32("b", 3)])


def test_columns_are_named_by_the_signature_each_once() -> None:
    answer: Array = np.arange(4, dtype="<f4").reshape(2, 2)
    segment = Tensor("wind", "BYTES", np.array([b"low", b"\xff"], dtype=object))
    columns = Contract(signature()).columns([f32("X", 2, 3)], [segment], [Tensor("variable", "FP32", answer)], rows=2)
    assert [(each.name, each.role) for each in columns] == [
        *((name, telemetry.COLUMN_ROLE_INPUT) for name in COLUMNS),
        ("segment:wind", telemetry.COLUMN_ROLE_SEGMENT),
        ("variable[0]", telemetry.COLUMN_ROLE_OUTPUT),
        ("variable[1]", telemetry.COLUMN_ROLE_OUTPUT),
    ]
    assert columns[3].strings() == ["low", "\ufffd"]
    assert columns[5].values.tolist() == [1.0, 3.0]


def test_a_segment_has_one_value_a_row() -> None:
    check_segments([f32("s", 2), f32("t", 2, 1)], rows=2)
    with pytest.raises(InvalidArgument):
        check_segments([f32("s", 3)], rows=2)


def test_an_unknown_output_is_refused_and_none_means_all() -> None:
    contract = Contract(signature())
    assert contract.check_outputs([]) == ["variable"]
    assert contract.check_outputs(["variable", "variable"]) == ["variable"]
    with pytest.raises(InvalidArgument):
        contract.check_outputs(["nothing"])
