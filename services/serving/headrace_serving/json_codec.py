"""Inferences over REST: JSON, with tensors as JSON or behind it as bytes (binary tensor extension) <-> tensors.

Every fault of a request is InvalidArgument with its field. ``null`` among floats is a missing value (NaN), both ways.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

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

Json = Any  # what a JSON parser gives
BINARY_SIZE: Final = "binary_data_size"
SEGMENT: Final = "segment"
_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "b": (bool,),
    "i": (int,),
    "u": (int,),
    "f": (int, float, type(None)),
}


@dataclass(frozen=True, slots=True)
class Body:
    """A decoded request and how its answer is to be written."""

    request: InferRequest
    binary: frozenset[str]
    """Outputs wanted as bytes."""
    all_binary: bool
    """Every output is wanted as bytes unless it says otherwise."""
    json_only: frozenset[str]
    """Outputs that say otherwise."""


def decode_request(content: bytes, *, model: str, version: str, header_length: int | None = None) -> Body:
    """The inference that is asked for.

    Args:
        content: The body.
        model: As in the path.
        version: As in the path; empty for any.
        header_length: Bytes of JSON at the start of the body; None when all of it is.

    Raises:
        InvalidArgument: Names the field at fault.
    """
    if header_length is not None and not 0 < header_length <= len(content):
        raise InvalidArgument(f"the body has {len(content)} bytes", field="Inference-Header-Content-Length")
    document = _object(_parse(content[:header_length] if header_length is not None else content), field="body")
    tail = memoryview(content)[header_length:] if header_length is not None else memoryview(b"")
    items = _list(document.get("inputs"), field="inputs")
    check_count(len(items), field="inputs", least=1)
    inputs: list[Tensor] = []
    segments: list[Tensor] = []
    for index, each in enumerate(items):
        item = _object(each, field=f"inputs[{index}]")
        parameters = _parameters(item.get("parameters"), field=f"inputs[{index}].parameters")
        tensor, tail = _decode_input(item, parameters, tail, at=f"inputs[{index}]")
        (segments if parameters.get(SEGMENT) is True else inputs).append(tensor)
    if len(tail):
        raise InvalidArgument(f"{len(tail)} bytes follow the last tensor", field="body")
    parameters = _parameters(document.get("parameters"), field="parameters")
    outputs, binary, json_only = _outputs(document)
    request = InferRequest(
        model=model,
        version=version,
        id=_text(document.get("id", ""), field="id"),
        parameters=parameters,
        inputs=inputs,
        outputs=outputs,
        segments=segments,
    )
    return Body(request, binary, parameters.get("binary_data_output") is True, json_only)


def encode_response(response: InferResponse, body: Body) -> tuple[bytes, int | None]:
    """The body of an answer, and the length of its JSON when bytes follow it."""
    tails: list[bytes] = []
    outputs: list[dict[str, Json]] = []
    for tensor in response.outputs:
        item: dict[str, Json] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.array.shape)}
        if tensor.name in body.binary or (body.all_binary and tensor.name not in body.json_only):
            tails.append(to_raw(tensor))
            item["parameters"] = {BINARY_SIZE: len(tails[-1])}
        else:
            item["data"] = _to_json(tensor)
        outputs.append(item)
    document = {
        "model_name": response.model,
        "model_version": response.version,
        "id": response.id,
        "parameters": dict(response.parameters),
        "outputs": outputs,
    }
    header = orjson.dumps(document)
    return (b"".join((header, *tails)), len(header)) if tails else (header, None)


def _decode_input(
    item: dict[str, Json], parameters: Mapping[str, Parameter], tail: memoryview, *, at: str
) -> tuple[Tensor, memoryview]:
    name = check_name(_text(item.get("name"), field=f"{at}.name"), field=f"{at}.name")
    datatype = check_datatype(_text(item.get("datatype"), field=f"{at}.datatype"), field=f"{at}.datatype")
    shape = [_integer(each, field=f"{at}.shape") for each in _list(item.get("shape"), field=f"{at}.shape")]
    check_shape(shape, field=f"{at}.shape")
    size = parameters.get(BINARY_SIZE)
    if size is None:
        return Tensor(name, datatype, _from_json(item.get("data"), datatype, shape, field=f"{at}.data")), tail
    if "data" in item:
        raise InvalidArgument("give data or binary_data_size, not both", field=f"{at}.data")
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(tail):
        raise InvalidArgument(f"{len(tail)} bytes are left", field=f"{at}.parameters.{BINARY_SIZE}")
    return Tensor(name, datatype, from_raw(bytes(tail[:size]), datatype, shape, field=at)), tail[size:]


def _from_json(data: Json, datatype: str, shape: list[int], *, field: str) -> Array:
    """Elements of nested or flat lists."""
    flat = _flattened(_list(data, field=field), shape, field=field)
    if datatype == BYTES:
        words = np.empty(len(flat), dtype=object)
        for index, each in enumerate(flat):
            words[index] = _text(each, field=field).encode()
        return words.reshape(shape)
    dtype = DTYPES[datatype]
    kinds = _KINDS[dtype.kind]
    for each in flat:
        if not isinstance(each, kinds) or (isinstance(each, bool) and dtype.kind != "b"):
            raise InvalidArgument(f"{_short(each)} is no {datatype}", field=field)
    values = [np.nan if each is None else each for each in flat] if dtype.kind == "f" else flat
    try:
        with np.errstate(over="ignore"):
            return np.array(values, dtype=dtype).reshape(shape)
    except OverflowError:
        raise InvalidArgument(f"an element is out of the range of {datatype}", field=field) from None


def _flattened(data: list[Json], shape: list[int], *, field: str) -> list[Json]:
    count = check_shape(shape, field=field)
    if data and isinstance(data[0], list) and shape[:1] == [len(data)]:
        for dimension in shape[1:]:
            if not all(isinstance(each, list) and len(each) == dimension for each in data):
                break
            data = [element for each in data for element in each]
    if len(data) != count or any(isinstance(each, list | dict) for each in data):
        raise InvalidArgument(f"{count} elements of the shape {shape} are needed", field=field)
    return data


def _outputs(document: dict[str, Json]) -> tuple[list[str], frozenset[str], frozenset[str]]:
    items = _list(document.get("outputs", []), field="outputs")
    check_count(len(items), field="outputs")
    names: list[str] = []
    binary: set[str] = set()
    json_only: set[str] = set()
    for index, each in enumerate(items):
        item = _object(each, field=f"outputs[{index}]")
        name = check_name(_text(item.get("name"), field=f"outputs[{index}].name"), field=f"outputs[{index}].name")
        wanted = _parameters(item.get("parameters"), field=f"outputs[{index}].parameters").get("binary_data")
        if wanted is not None:
            (binary if wanted is True else json_only).add(name)
        names.append(name)
    return names, frozenset(binary), frozenset(json_only)


def _to_json(tensor: Tensor) -> list[Json]:
    flat: list[Json] = tensor.array.ravel().tolist()
    if tensor.datatype == BYTES:
        return [as_bytes(each).decode(errors="replace") for each in flat]
    return flat  # orjson writes NaN and infinities as null


def _parse(content: bytes | memoryview) -> Json:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise InvalidArgument(f"the body is no JSON: {error}"[:300], field="body") from None


def _parameters(value: Json, *, field: str) -> dict[str, Parameter]:
    if value is None:
        return {}
    found = _object(value, field=field)
    if len(found) > MAX_PARAMETERS:
        raise InvalidArgument(f"give at most {MAX_PARAMETERS} parameters", field=field)
    return {name: each for name, each in found.items() if isinstance(each, bool | int | float | str)}


def _object(value: Json, *, field: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise InvalidArgument("give an object", field=field)
    return value


def _list(value: Json, *, field: str) -> list[Json]:
    if not isinstance(value, list):
        raise InvalidArgument("give a list", field=field)
    return value


def _text(value: Json, *, field: str) -> str:
    if not isinstance(value, str):
        raise InvalidArgument("give a text", field=field)
    return value


def _integer(value: Json, *, field: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument("give integers", field=field)
    return value


def _short(value: Json) -> str:
    return str(value)[:40]
