"""Codecs: what was encoded comes back, and whatever comes in is an inference or an InvalidArgument with its field."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import orjson
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.inference import grpc_service_pb2 as oip
from headrace_kit.errors import InvalidArgument
from headrace_serving import grpc_codec, json_codec
from headrace_serving.tensors import BYTES, DTYPES, Array, InferRequest, InferResponse, Tensor

shapes = st.lists(st.integers(1, 4), min_size=0, max_size=3).map(tuple)


@st.composite
def tensors(draw: st.DrawFn, *, names: st.SearchStrategy[str]) -> Tensor:
    datatype = draw(st.sampled_from([*DTYPES, BYTES]))
    shape = draw(shapes)
    count = int(np.prod(shape))
    if datatype == BYTES:
        words = draw(st.lists(st.text(max_size=4), min_size=count, max_size=count))
        array: Array = np.array([each.encode() for each in words] or [b""], dtype=object)[:count].reshape(shape)
        return Tensor(draw(names), BYTES, array)
    dtype = DTYPES[datatype]
    raw = draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize))
    if datatype == "BOOL":
        raw = bytes(each & 1 for each in raw)
    return Tensor(draw(names), datatype, np.frombuffer(raw, dtype).reshape(shape))


def same(one: Array, other: Array) -> bool:
    if one.dtype == object:
        return bool(one.tolist() == other.tolist())
    return one.shape == other.shape and bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))


names = st.text("abc_-ß ", min_size=1, max_size=8)
some_tensors = st.lists(tensors(names=names), min_size=1, max_size=3, unique_by=lambda each: each.name)


@given(some_tensors, st.booleans())
def test_a_request_over_grpc_comes_back(inputs: list[Tensor], raw: bool) -> None:
    raw = raw or any(each.datatype == "FP16" for each in inputs)
    request = InferRequest("m", "1", "id", {"a": 1, "b": "x", "c": True, "d": 0.5}, inputs, ["o"])
    message = oip.ModelInferRequest.FromString(grpc_codec.encode_request(request, raw=raw).SerializeToString())
    decoded = grpc_codec.decode_request(message)
    assert (decoded.model, decoded.version, decoded.id, decoded.outputs) == ("m", "1", "id", ["o"])
    assert decoded.parameters == request.parameters
    assert [(each.name, each.datatype) for each in decoded.inputs] == [(each.name, each.datatype) for each in inputs]
    assert all(same(one.array, other.array) for one, other in zip(inputs, decoded.inputs, strict=True))


@given(some_tensors, st.booleans())
def test_an_answer_over_grpc_comes_back(outputs: list[Tensor], raw: bool) -> None:
    response = InferResponse("m", "1", "id", {"prediction_id": "p"}, outputs)
    message = oip.ModelInferResponse.FromString(grpc_codec.encode_response(response, raw=raw).SerializeToString())
    decoded = grpc_codec.decode_outputs(message)
    assert all(same(each.array, decoded[each.name]) for each in outputs)


@given(some_tensors, st.booleans())
def test_an_answer_over_rest_can_be_sent_back(outputs: list[Tensor], binary: bool) -> None:
    request = InferRequest("m", "", "", {}, [], [])
    body = json_codec.Body(request, frozenset(), binary, frozenset())
    content, length = json_codec.encode_response(InferResponse("m", "1", "i", {}, outputs), body)
    document = orjson.loads(content[:length])
    document["inputs"] = document.pop("outputs")
    header = orjson.dumps(document)
    tail = content[length:] if length is not None else b""
    again = json_codec.decode_request(header + tail, model="m", version="", header_length=len(header)).request
    for one, other in zip(outputs, again.inputs, strict=True):
        finite = one.array if one.datatype == BYTES else np.where(np.isfinite(one.array), one.array, np.nan)
        expected = finite if one.array.dtype.kind == "f" and not binary else one.array
        assert same(np.asarray(expected, dtype=one.array.dtype), other.array)


@given(st.binary(max_size=200))
def test_any_bytes_over_grpc_are_an_inference_or_an_invalid_argument(data: bytes) -> None:
    try:
        message = oip.ModelInferRequest.FromString(data)
    except DecodeError:
        return
    _refused_or_read(message)


datatypes = st.sampled_from([*DTYPES, BYTES, "BF16", "FOO", ""])


@st.composite
def messages(draw: st.DrawFn) -> oip.ModelInferRequest:
    message = oip.ModelInferRequest(model_name=draw(st.text(max_size=5)))
    for _ in range(draw(st.integers(0, 3))):
        tensor = message.inputs.add(
            name=draw(st.text(max_size=3)),
            datatype=draw(datatypes),
            shape=draw(st.lists(st.integers(-2, 3) | st.just(1 << 62), max_size=9)),
        )
        if draw(st.booleans()):
            tensor.contents.fp32_contents.extend(draw(st.lists(st.floats(width=32), max_size=4)))
        if draw(st.booleans()):
            tensor.contents.int_contents.extend(draw(st.lists(st.integers(-(1 << 31), (1 << 31) - 1), max_size=4)))
        if draw(st.booleans()):
            tensor.contents.bytes_contents.extend(draw(st.lists(st.binary(max_size=3), max_size=4)))
    message.raw_input_contents.extend(draw(st.lists(st.binary(max_size=24), max_size=3)))
    return message


@given(messages())
@settings(max_examples=300)
def test_any_message_over_grpc_is_an_inference_or_an_invalid_argument(message: oip.ModelInferRequest) -> None:
    _refused_or_read(message)


def _refused_or_read(message: oip.ModelInferRequest) -> None:
    field = _refused_field(lambda: grpc_codec.decode_request(message))
    assert field != ""


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["inputs", "outputs", "name", "datatype", "shape", "data", "parameters", "id", "binary_data_size"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)
inputs_like = st.fixed_dictionaries(
    {
        "name": st.text(max_size=3) | json_values,
        "datatype": datatypes | json_values,
        "shape": st.lists(st.integers(-1, 3), max_size=3) | json_values,
    },
    optional={"data": st.lists(json_values, max_size=5) | json_values, "parameters": json_values},
)
documents = json_values | st.fixed_dictionaries(
    {"inputs": st.lists(inputs_like, max_size=3)},
    optional={"outputs": json_values, "parameters": json_values, "id": json_values},
)


@given(
    st.binary(max_size=100) | documents.map(lambda each: orjson.dumps(_clipped(each))), st.none() | st.integers(-1, 120)
)
@settings(max_examples=500)
def test_any_body_over_rest_is_an_inference_or_an_invalid_argument(content: bytes, length: int | None) -> None:
    field = _refused_field(lambda: json_codec.decode_request(content, model="m", version="", header_length=length))
    assert field != ""


def _refused_field(decode: Callable[[], object]) -> str | None:
    """The field an InvalidArgument names; None when there is none. Anything else that is raised fails the test."""
    try:
        decode()
    except InvalidArgument as error:
        return error.field
    return None


def _clipped(value: object) -> object:
    """Integers that JSON's writer can not hold as floats."""
    match value:
        case bool():
            return value
        case int():
            return value if -(1 << 63) <= value < 1 << 64 else float(value)
        case list():
            return [_clipped(each) for each in value]
        case dict():
            return {key: _clipped(each) for key, each in value.items()}
        case _:
            return value


@pytest.mark.parametrize(
    ("data", "shape"), [([1, 2, 3, 4], [2, 2]), ([[1, 2], [3, 4]], [2, 2]), ([[[1], [2]], [[3], [4]]], [2, 2, 1])]
)
def test_data_over_rest_is_nested_or_flat(data: list[object], shape: list[int]) -> None:
    document = {"inputs": [{"name": "a", "datatype": "INT32", "shape": shape, "data": data}]}
    request = json_codec.decode_request(orjson.dumps(document), model="m", version="").request
    assert request.inputs[0].array.ravel().tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("data", "shape"),
    [([[1, 2, 3], [4]], [2, 2]), ([[1, 2], 3, 4], [2, 2]), ([1, 2, 3], [2, 2]), ([[1, 2, 3, 4]], [2, 2])],
)
def test_ragged_data_over_rest_is_refused(data: list[object], shape: list[int]) -> None:
    document = {"inputs": [{"name": "a", "datatype": "INT32", "shape": shape, "data": data}]}
    with pytest.raises(InvalidArgument) as refused:
        json_codec.decode_request(orjson.dumps(document), model="m", version="")
    assert refused.value.field == "inputs[0].data"
