"""Any message to any method: an answer, or a status that blames the caller; never INTERNAL, never UNKNOWN."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.api.serving.v1 import service_pb2 as service
from headrace.inference import grpc_service_pb2 as oip
from tests.support.protos import messages
from tests.support.serving import Platform

SERVICES = (
    service.DESCRIPTOR.services_by_name["ServingService"],
    oip.DESCRIPTOR.services_by_name["GRPCInferenceService"],
)
METHODS = [method for each in SERVICES for method in each.methods if not method.client_streaming]
ALLOWED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNAVAILABLE,
}


@pytest.mark.parametrize("method", METHODS, ids=[each.name for each in METHODS])
@given(data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_message_is_the_servers_fault(platform: Platform, method: Any, data: st.DataObject) -> None:
    stub = platform.serving if method.containing_service.name == "ServingService" else platform.inference
    request = data.draw(messages(GetMessageClass(method.input_type)))
    call = getattr(stub, method.name).future(request, timeout=10)
    assert call.code() in ALLOWED, (call.code(), call.details())
