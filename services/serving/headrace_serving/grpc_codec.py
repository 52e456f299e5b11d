"""Inferences over gRPC: protocol messages <-> tensors. Every fault of a request is InvalidArgument with its field."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from headrace.inference import grpc_service_pb2 as oip
from headrace_kit.errors import InvalidArgument
from headrace_serving.tensors import (
    BYTES,
    DTYPES,
    MAX_PARAMETERS,
    Array,
    InferRequest,
    InferResponse,
    Parameter,
    Tensor,
    as_bytes,
    check_count,
    check_datatype,
    check_name,
    check_shape,
    from_raw,
    to_raw,
)

CONTENTS: Final[Mapping[str, str]] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Field of each type; FP16 travels raw only."""
SEGMENT: Final = "segment"


def decode_request(request: oip.ModelInferRequest) -> InferRequest:
    """The inference that is asked for. Raises InvalidArgument."""
    check_count(len(request.inputs), field="inputs", least=1)
    check_count(len(request.outputs), field="outputs")
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise InvalidArgument(
            f"{len(request.inputs)} inputs need as many raw contents, not {len(raw)}", field="raw_input_contents"
        )
    inputs: list[Tensor] = []
    segments: list[Tensor] = []
    for index, each in enumerate(request.inputs):
        tensor = _decode_input(each, raw[index] if raw else None, index=index)
        marked = decode_parameters(each.parameters, field=f"inputs[{index}].parameters").get(SEGMENT, False)
        (segments if marked is True else inputs).append(tensor)
    return InferRequest(
        model=request.model_name,
        version=request.model_version,
        id=request.id,
        parameters=decode_parameters(request.parameters, field="parameters"),
        inputs=inputs,
        outputs=[check_name(each.name, field=f"outputs[{at}].name") for at, each in enumerate(request.outputs)],
        segments=segments,
    )


def encode_response(response: InferResponse, *, raw: bool) -> oip.ModelInferResponse:
    """The answer: raw when the request was, and where a type travels raw only."""
    message = oip.ModelInferResponse(model_name=response.model, model_version=response.version, id=response.id)
    for key, value in response.parameters.items():
        message.parameters[key].string_param = value
    as_raw = raw or any(each.datatype not in CONTENTS for each in response.outputs)
    for tensor in response.outputs:
        output = message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
        if as_raw:
            message.raw_output_contents.append(to_raw(tensor))
        else:
            _fill(output.contents, tensor)
    return message


def encode_request(request: InferRequest, *, raw: bool = True) -> oip.ModelInferRequest:
    """The message of an inference: what a client sends."""
    message = oip.ModelInferRequest(model_name=request.model, model_version=request.version, id=request.id)
    for key, value in request.parameters.items():
        _set_parameter(message.parameters[key], value)
    for tensor in (*request.inputs, *request.segments):
        item = message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
        if tensor in request.segments:
            item.parameters[SEGMENT].bool_param = True
        if raw:
            message.raw_input_contents.append(to_raw(tensor))
        else:
            _fill(item.contents, tensor)
    message.outputs.extend(oip.ModelInferRequest.InferRequestedOutputTensor(name=each) for each in request.outputs)
    return message


def decode_outputs(message: oip.ModelInferResponse) -> dict[str, Array]:
    """The outputs of an answer by name: what a client reads. Raises InvalidArgument."""
    found: dict[str, Array] = {}
    for index, each in enumerate(message.outputs):
        at = f"outputs[{index}]"
        if message.raw_output_contents:
            found[each.name] = from_raw(message.raw_output_contents[index], each.datatype, each.shape, field=at)
        else:
            found[each.name] = _from_contents(each.contents, each.datatype, each.shape, field=at)
    return found


def decode_parameters(parameters: Mapping[str, oip.InferParameter], *, field: str) -> dict[str, Parameter]:
    """Values by name; a parameter without a value is left out. Raises InvalidArgument."""
    if len(parameters) > MAX_PARAMETERS:
        raise InvalidArgument(f"give at most {MAX_PARAMETERS} parameters", field=field)
    found: dict[str, Parameter] = {}
    for name, value in parameters.items():
        kind = value.WhichOneof("parameter_choice")
        if kind is not None:
            found[name] = getattr(value, kind)
    return found


def _decode_input(each: oip.ModelInferRequest.InferInputTensor, raw: bytes | None, *, index: int) -> Tensor:
    at = f"inputs[{index}]"
    check_name(each.name, field=f"{at}.name")
    datatype = check_datatype(each.datatype, field=f"{at}.datatype")
    check_shape(each.shape, field=f"{at}.shape")
    if raw is None:
        return Tensor(each.name, datatype, _from_contents(each.contents, datatype, each.shape, field=f"{at}.contents"))
    if each.HasField("contents") and each.contents.ByteSize():
        raise InvalidArgument("give raw_input_contents or contents, not both", field=f"{at}.contents")
    return Tensor(each.name, datatype, from_raw(raw, datatype, each.shape, field=f"raw_input_contents[{index}]"))


def _from_contents(contents: oip.InferTensorContents, datatype: str, shape: Sequence[int], *, field: str) -> Array:
    wanted = CONTENTS.get(datatype)
    if wanted is None:
        raise InvalidArgument(f"{datatype} travels in raw_input_contents only", field=field)
    for descriptor, _ in contents.ListFields():
        if descriptor.name != wanted:
            raise InvalidArgument(f"{datatype} belongs into {wanted}, not {descriptor.name}", field=field)
    elements: Any = getattr(contents, wanted)  # Any: a repeated field of the type's own
    count = check_shape(shape, field=field)
    if len(elements) != count:
        raise InvalidArgument(f"{count} elements are needed, {len(elements)} are there", field=f"{field}.{wanted}")
    if datatype == BYTES:
        words = np.empty(count, dtype=object)
        words[:] = list(elements)
        return words.reshape(shape)
    dtype = DTYPES[datatype]
    try:
        return np.array(elements, dtype=dtype).reshape(shape)
    except OverflowError:
        raise InvalidArgument(f"an element is out of the range of {datatype}", field=f"{field}.{wanted}") from None


def _fill(contents: oip.InferTensorContents, tensor: Tensor) -> None:
    flat: list[Any] = tensor.array.ravel().tolist()  # Any: elements of the type's own
    values = [as_bytes(each) for each in flat] if tensor.datatype == BYTES else flat
    getattr(contents, CONTENTS[tensor.datatype]).extend(values)


def _set_parameter(parameter: oip.InferParameter, value: Parameter) -> None:
    match value:
        case bool():
            parameter.bool_param = value
        case int():
            parameter.int64_param = value
        case float():
            parameter.double_param = value
        case _:
            parameter.string_param = value
