"""Bad requests over gRPC and REST: a clear status with reason and field, never INTERNAL."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import httpx2
import pytest
from google.rpc import error_details_pb2, status_pb2

from headrace.inference import grpc_service_pb2 as oip
from headrace.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from tests.support.serving import Platform, infer_request

Change = Callable[[oip.ModelInferRequest], None]
ROWS = [[1.0, 2.0, 3.0]]


@pytest.fixture(scope="module")
def model(platform: Platform) -> str:
    return asyncio.run(platform.serve(1.0))


def _typed(request: oip.ModelInferRequest) -> None:
    del request.raw_input_contents[:]
    request.inputs[0].contents.fp32_contents.extend([1.0, 2.0, 3.0])


def _set(**fields: object) -> Change:
    def change(request: oip.ModelInferRequest) -> None:
        for name, value in fields.items():
            if name == "shape":
                del request.inputs[0].shape[:]
                request.inputs[0].shape.extend(value)  # type: ignore[arg-type]
            else:
                setattr(request.inputs[0], name, value)

    return change


def _raw(content: bytes) -> Change:
    def change(request: oip.ModelInferRequest) -> None:
        request.raw_input_contents[0] = content

    return change


def _twice(request: oip.ModelInferRequest) -> None:
    request.inputs.append(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])


def _output(request: oip.ModelInferRequest, name: str) -> None:
    request.outputs.add(name=name)


def _parameter(request: oip.ModelInferRequest, name: str, value: int) -> None:
    request.parameters[name].int64_param = value


INVALID: list[tuple[str, Change, str]] = [
    ("type of another", _set(datatype="FP64"), "raw_input_contents[0]"),
    ("unknown type", _set(datatype="FOO"), "inputs[0].datatype"),
    ("wrong width", _set(shape=[1, 2]), "raw_input_contents[0]"),
    ("wrong rank", _set(shape=[3]), "inputs[0].shape"),
    ("negative dimension", _set(shape=[-1, 3]), "inputs[0].shape"),
    ("huge dimension", _set(shape=[1 << 62, 3]), "inputs[0].shape"),
    ("no rows", _set(shape=[0, 3]), "inputs[0].shape"),
    ("unknown input", _set(name="Y"), "inputs[0].name"),
    ("SQL in the name", _set(name="'; DROP TABLE endpoints; --"), "inputs[0].name"),
    ("raw too short", _raw(b"\x00" * 11), "raw_input_contents[0]"),
    ("raw too long", _raw(b"\x00" * 13), "raw_input_contents[0]"),
    ("more raw than inputs", lambda request: request.raw_input_contents.append(b""), "raw_input_contents"),
    ("raw and typed", lambda request: request.inputs[0].contents.fp32_contents.append(1.0), "inputs[0].contents"),
    ("no inputs", lambda request: request.ClearField("inputs"), "inputs"),
    ("the same input twice", _twice, "inputs[1].name"),
    ("unknown output", lambda request: _output(request, "nothing"), "outputs[0].name"),
    ("id too long", lambda request: setattr(request, "id", "x" * 251), "id"),
    (
        "event time out of range",
        lambda request: _parameter(request, "event_time_us", 1 << 62),
        "parameters.event_time_us",
    ),
]


def _field(error: grpc.RpcError) -> str:
    """The field an error names in its details."""
    metadata: dict[str, Any] = dict(error.trailing_metadata() or ())  # type: ignore[arg-type]  # pairs, by another name
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "headrace"
    return str(info.metadata["field"])


@pytest.mark.parametrize(("change", "field"), [case[1:] for case in INVALID], ids=[case[0] for case in INVALID])
async def test_a_bad_request_is_an_invalid_argument_that_names_its_field(
    platform: Platform, model: str, change: Change, field: str
) -> None:
    request = infer_request(model, ROWS)
    change(request)
    with pytest.raises(grpc.RpcError) as refused:
        platform.inference.ModelInfer(request, timeout=10)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert _field(refused.value) == field


async def test_typed_contents_are_answered_typed(platform: Platform, model: str) -> None:
    request = infer_request(model, ROWS)
    _typed(request)
    response = platform.inference.ModelInfer(request, timeout=10)
    assert list(response.outputs[0].contents.fp32_contents) == [6.0]


async def test_the_signature_is_checked_in_typed_contents_too(platform: Platform, model: str) -> None:
    request = infer_request(model, ROWS)
    _typed(request)
    request.inputs[0].contents.fp64_contents.append(1.0)
    with pytest.raises(grpc.RpcError) as refused:
        platform.inference.ModelInfer(request, timeout=10)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("fields", [{"model": "nobody"}, {"model": ""}, {"version": "99"}, {"version": "x'; --"}])
async def test_an_unknown_model_or_version_is_not_found(platform: Platform, model: str, fields: dict[str, str]) -> None:
    request = infer_request(fields.get("model", model), ROWS, model_version=fields.get("version", ""))
    with pytest.raises(grpc.RpcError) as refused:
        platform.inference.ModelInfer(request, timeout=10)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_readiness_of_an_unknown_model_is_false(platform: Platform, model: str) -> None:
    assert platform.inference.ModelReady(oip.ModelReadyRequest(name=model)).ready
    assert not platform.inference.ModelReady(oip.ModelReadyRequest(name="nobody")).ready


async def test_a_stream_goes_on_after_a_bad_request(platform: Platform, model: str) -> None:
    requests = [infer_request(model, ROWS), infer_request("nobody", ROWS, id="2"), infer_request(model, ROWS, id="3")]
    answers = list(platform.inference.ModelStreamInfer(iter(requests), timeout=10))
    assert [bool(each.error_message) for each in answers] == [False, True, False]
    assert [each.infer_response.id for each in answers][1:] == ["2", "3"]


async def test_metadata_says_what_the_signature_says(platform: Platform, model: str) -> None:
    found = platform.inference.ModelMetadata(oip.ModelMetadataRequest(name=model))
    assert [(each.name, each.datatype, list(each.shape)) for each in found.inputs] == [("X", "FP32", [-1, 3])]
    assert list(found.versions) == ["1"]
    assert platform.http.get(f"/v2/models/{model}").json()["inputs"][0] == {
        "name": "X",
        "datatype": "FP32",
        "shape": [-1, 3],
    }


async def test_the_repository_unloads_and_loads(platform: Platform) -> None:
    model = await platform.serve(1.0)
    platform.inference.RepositoryModelUnload(oip.RepositoryModelUnloadRequest(model_name=model))
    with pytest.raises(grpc.RpcError) as refused:
        platform.infer(model, ROWS)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    states = {each.name: each.state for each in platform.inference.RepositoryIndex(oip.RepositoryIndexRequest()).models}
    assert states[model] == "UNAVAILABLE"
    # KServe's clients put the name into field 1.
    platform.inference.RepositoryModelLoad(oip.RepositoryModelLoadRequest(repository_name=model))
    platform.infer(model, ROWS)
    for call, request in (
        (platform.inference.RepositoryModelLoad, oip.RepositoryModelLoadRequest(model_name="nobody")),
        (platform.inference.RepositoryModelUnload, oip.RepositoryModelUnloadRequest(model_name="nobody")),
    ):
        with pytest.raises(grpc.RpcError) as unknown:
            call(request)
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


async def test_without_a_token_nothing_is_answered(platform: Platform, model: str) -> None:
    with grpc.insecure_channel(platform.stack.addresses.grpc["serving"]) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            GRPCInferenceServiceStub(channel).ModelInfer(infer_request(model, ROWS))
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic eDp5"}):
        response = httpx2.get(f"{platform.stack.addresses.serving_url}/v2", headers=headers)
        assert response.status_code == 401


X = {"name": "X", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("{", "body"),
        ("[]", "body"),
        ("{}", "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": [{**X, "shape": [1, 4]}]}, "inputs[0].data"),
        ({"inputs": [{**X, "shape": [1, 4], "data": [1, 2, 3, 4]}]}, "inputs[0].shape"),
        ({"inputs": [{**X, "data": ["1", "2", "3"]}]}, "inputs[0].data"),
        ({"inputs": [{**X, "datatype": "FP64"}]}, "inputs[0].datatype"),
        ({"inputs": [{**X, "name": "Y"}]}, "inputs[0].name"),
        ({"inputs": [X], "outputs": [{"name": "nothing"}]}, "outputs[0].name"),
        ({"inputs": [X], "id": 7}, "id"),
    ],
)
async def test_a_bad_body_is_a_400_that_names_its_field(
    platform: Platform, model: str, body: str | dict[str, object], field: str
) -> None:
    url = f"/v2/models/{model}/infer"
    response = platform.http.post(url, content=body) if isinstance(body, str) else platform.http.post(url, json=body)
    assert response.status_code == 400, response.text
    assert response.json()["field"] == field
    assert response.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v2/models/nobody/infer", 404),
        ("GET", "/v2/models/nobody", 404),
        ("GET", "/v2/models/nobody/ready", 404),
        ("GET", "/v2/models/p/nobody/ready", 404),
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/nobody/infer", 405),
        ("POST", "/v2/repository/models/nobody/load", 404),
    ],
)
async def test_unknown_paths_and_methods_are_errors_in_json(
    platform: Platform, method: str, path: str, status: int
) -> None:
    response = platform.http.request(method, path, json={"inputs": [X]} if method == "POST" else None)
    assert response.status_code == status
    assert response.json()["error"]


async def test_tensors_travel_as_bytes_over_rest(platform: Platform, model: str) -> None:
    header = (
        b'{"inputs":[{"name":"X","datatype":"FP32","shape":[1,3],"parameters":{"binary_data_size":12}}],'
        b'"parameters":{"binary_data_output":true}}'
    )
    response = platform.http.post(
        f"/v2/models/{model}/versions/1/infer",
        content=header + b"\x00\x00\x80\x3f" * 3,
        headers={"Inference-Header-Content-Length": str(len(header))},
    )
    assert response.status_code == 200, response.text
    length = int(response.headers["Inference-Header-Content-Length"])
    assert response.content[length:] == b"\x00\x00\x40\x40"
