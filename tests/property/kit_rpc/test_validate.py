"""Checks of requests, at each limit and one past it; and whatever comes, a refusal names a field."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from headrace.api.common.v1 import resources_pb2 as common
from headrace_kit import validate
from headrace_kit.errors import InvalidArgument
from headrace_kit.rpc import parse_uuid

DIGEST = "0123456789abcdef" * 4
KEY = f"p/sha256/{DIGEST[:2]}/{DIGEST}"
TENSOR = common.TensorSpec(name="x", datatype=common.DATA_TYPE_FP32, shape=[-1, 3])
FLOATS = st.floats(allow_nan=True, allow_infinity=True)
INT64 = st.integers(-(2**63), 2**63 - 1)


def field_of(call: Callable[[], object]) -> str | None:
    """The field a refusal names; None when there is none."""
    try:
        call()
    except InvalidArgument as refusal:
        return refusal.field
    return None


@pytest.mark.parametrize(
    ("count", "least", "most", "taken"), [(0, 0, 3, True), (3, 0, 3, True), (4, 0, 3, False), (0, 1, 3, False)]
)
def test_a_list_has_limits(count: int, least: int, most: int, taken: bool) -> None:
    found = field_of(lambda: validate.require_size([0] * count, field="runs", least=least, most=most))
    assert found == (None if taken else "runs")


@given(value=FLOATS | st.integers(), least=st.integers(-5, 0), most=st.integers(1, 5))
def test_a_number_is_within_its_limits_and_never_nan(value: float, least: int, most: int) -> None:
    found = field_of(lambda: validate.require_range(value, field="n", least=least, most=most))
    assert (found is None) == (not math.isnan(value) and least <= value <= most)


@given(seconds=INT64, nanos=st.integers(-(2**31), 2**31 - 1))
def test_whatever_a_timestamp_holds_it_is_a_time_or_refused(seconds: int, nanos: int) -> None:
    stamp = Timestamp(seconds=seconds, nanos=nanos)
    found = field_of(lambda: validate.require_time(stamp, field="start_time"))
    fine = 0 <= nanos < 10**9 and -2208988800 <= seconds < 7258118400
    assert (found is None) == fine or (seconds, nanos) == (7258118400, 0)
    assert found in (None, "start_time")


@given(st.lists(st.tuples(st.text(max_size=4), FLOATS), max_size=4))
def test_named_values_are_finite_and_named_once(pairs: list[tuple[str, float]]) -> None:
    values = [common.NamedValue(name=_utf8(name), value=value) for name, value in pairs]
    found = field_of(lambda: validate.require_numbers(values, field="metrics", most=3))
    names = [each.name for each in values]
    if len(values) > 3:
        assert found == "metrics"
    elif len(set(names)) < len(names) or not all(math.isfinite(each.value) for each in values) or "" in names:
        assert found is not None
        assert found.startswith("metrics[")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({}, None),
        ({"size_bytes": 1 << 40}, None),
        ({"size_bytes": (1 << 40) + 1}, "artifact.size_bytes"),
        ({"size_bytes": -1}, "artifact.size_bytes"),
        ({"sha256": DIGEST.upper()}, "artifact.sha256"),
        ({"sha256": DIGEST + "\n"}, "artifact.sha256"),
        ({"uri": f"q/sha256/{DIGEST[:2]}/{DIGEST}"}, "artifact.uri"),
        ({"uri": f"../p/sha256/{DIGEST[:2]}/{DIGEST}"}, "artifact.uri"),
        ({"media_type": "x" * 200}, None),
        ({"media_type": "x" * 201}, "artifact.media_type"),
        ({"media_type": "text/html\r\nx-evil: 1"}, "artifact.media_type"),
    ],
)
def test_an_object_is_of_its_project_and_its_digest(changes: dict[str, object], field: str | None) -> None:
    reference = common.ObjectRef(uri=KEY, sha256=DIGEST, size_bytes=1)
    for name, value in changes.items():
        setattr(reference, name, value)
    assert field_of(lambda: validate.require_object(reference, project="p", field="artifact")) == field


@pytest.mark.parametrize(
    ("signature", "field"),
    [
        (common.Signature(inputs=[TENSOR], outputs=[TENSOR]), None),
        (common.Signature(outputs=[TENSOR]), "signature.inputs"),
        (common.Signature(inputs=[TENSOR, TENSOR], outputs=[TENSOR]), "signature.inputs[1].name"),
        (common.Signature(inputs=[TENSOR]), "signature.outputs"),
    ],
)
def test_a_signature_names_each_tensor_once(signature: common.Signature, field: str | None) -> None:
    assert field_of(lambda: validate.require_signature(signature, field="signature")) == field


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"datatype": 0}, "datatype"),
        ({"datatype": 99}, "datatype"),
        ({"name": ""}, "name"),
        ({"shape": [1] * 9}, "shape"),
        ({"shape": [-2]}, "shape[0]"),
        ({"columns": ["x"] * 4097}, "columns"),
        ({"columns": ["a", "b\n"]}, "columns[1]"),
    ],
)
def test_a_tensor_has_a_name_a_type_and_a_shape(changes: dict[str, object], field: str) -> None:
    given_ = {"name": "x", "datatype": common.DATA_TYPE_FP32, "shape": [1], **changes}
    signature = common.Signature(inputs=[common.TensorSpec(**given_)], outputs=[TENSOR])  # type: ignore[arg-type]
    assert field_of(lambda: validate.require_signature(signature, field="s")) == f"s.inputs[0].{field}"


@given(st.text(max_size=40) | st.uuids().map(str))
def test_an_id_is_a_uuid_in_its_usual_form_or_refused(text: str) -> None:
    if field_of(lambda: parse_uuid(text, field="command_id")) is None:
        assert str(parse_uuid(text, field="command_id")) == text.lower()


def _utf8(text: str) -> str:
    return text.encode(errors="replace").decode()
