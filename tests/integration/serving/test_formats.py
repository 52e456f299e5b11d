"""Packages of each format: what loads, and what is refused with its reason."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import grpc
import onnx
import pytest
from sklearn.linear_model import LinearRegression

from headrace.api.serving.v1 import service_pb2 as service
from tests.support.serving import Platform, command_id, linear_model, package, values, wait_for

ROWS = [[1.0, 2.0, 3.0]]


async def test_skops_models_answer(platform: Platform) -> None:
    name = await platform.serve(2.0, "skops")
    assert values(platform.infer(name, ROWS)) == [12.0]


async def test_a_pickle_needs_the_consent_of_its_endpoint(platform: Platform) -> None:
    name = await platform.serve(2.0, "pickle")
    with pytest.raises(grpc.RpcError) as refused:
        platform.infer(name, ROWS)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "pickle" in str(refused.value.details())
    endpoint = f"projects/default/endpoints/{name}"
    request = service.ConfigureEndpointRequest(command_id=command_id(), name=endpoint, allow_pickle=True)
    platform.serving.ConfigureEndpoint(request)
    wait_for(lambda: values(platform.infer(name, ROWS)) == [12.0])
    request = service.ConfigureEndpointRequest(command_id=command_id(), name=endpoint, allow_pickle=False)
    platform.serving.ConfigureEndpoint(request)
    with pytest.raises(grpc.RpcError) as withdrawn:
        platform.infer(name, ROWS)
    assert withdrawn.value.code() is grpc.StatusCode.UNAVAILABLE


class _Writer:
    """A pickle that runs code: it tries to write a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.path,)


async def test_a_pickle_that_reaches_for_files_does_not_get_them(platform: Platform, tmp_path: Path) -> None:
    target = tmp_path / "written"
    name = await platform.serve(2.0)
    bad = await platform.register(name, 0.0, "pickle", pickle.dumps(_Writer(str(target))))
    platform.serving.ConfigureEndpoint(
        service.ConfigureEndpointRequest(
            command_id=command_id(), name=f"projects/default/endpoints/{name}", allow_pickle=True
        )
    )
    with pytest.raises(grpc.RpcError) as refused:
        platform.serving.StartRollout(
            service.StartRolloutRequest(
                command_id=command_id(), endpoint=f"projects/default/endpoints/{name}", version=bad
            )
        )
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "PermissionError" in str(refused.value.details())
    assert not target.exists()


def _external() -> bytes:
    model = onnx.load_from_string(package(1.0))
    model.graph.initializer.append(onnx.numpy_helper.from_array(linear_model(1.0).coef_, name="w"))
    tensor = model.graph.initializer[-1]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("kind", "content", "reason"),
    [
        ("onnx", b"", "can not load"),
        ("onnx", b"\x00" * 100, "can not load"),
        ("onnx", _external(), "refers to files"),
        ("skops", b"PK\x03\x04", "can not load"),
        ("skops", pickle.dumps(LinearRegression()), "can not load"),
    ],
    ids=["empty", "noise", "external data", "broken zip", "a pickle"],
)
async def test_a_package_that_is_not_what_it_says_never_answers(
    platform: Platform, kind: str, content: bytes, reason: str
) -> None:
    name = await platform.serve(2.0)
    bad = await platform.register(name, 0.0, kind, content)
    request = service.StartRolloutRequest(
        command_id=command_id(), endpoint=f"projects/default/endpoints/{name}", version=bad
    )
    with pytest.raises(grpc.RpcError) as refused:
        platform.serving.StartRollout(request)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason in str(refused.value.details())
    platform.promote(bad)
    wait_for(lambda: platform.get(name).alias_revision == 2)
    assert values(platform.infer(name, ROWS)) == [12.0], "the version before goes on answering"
