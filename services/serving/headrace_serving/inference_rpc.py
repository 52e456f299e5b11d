"""The Open Inference Protocol over gRPC: thin over ``Inference`` and ``Router``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any, Final, TypeAlias

import grpc

from headrace.inference import grpc_service_pb2 as oip
from headrace.inference.grpc_service_pb2_grpc import GRPCInferenceServiceServicer
from headrace_kit.errors import KitError, NotFound
from headrace_serving import grpc_codec
from headrace_serving.contract import Spec
from headrace_serving.inference import Inference
from headrace_serving.router import Router, model_name

SERVER: Final = "headrace"
EXTENSIONS: Final = ("model_repository", "binary_tensor_data")
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # Any: the messages of whichever method


class InferenceServicer(GRPCInferenceServiceServicer):
    """Answers clients of the Open Inference Protocol."""

    def __init__(self, inference: Inference, router: Router) -> None:
        self._inference, self._router = inference, router

    async def ServerLive(self, request: oip.ServerLiveRequest, context: Context) -> oip.ServerLiveResponse:
        return oip.ServerLiveResponse(live=True)

    async def ServerReady(self, request: oip.ServerReadyRequest, context: Context) -> oip.ServerReadyResponse:
        return oip.ServerReadyResponse(ready=True)

    async def ServerMetadata(self, request: oip.ServerMetadataRequest, context: Context) -> oip.ServerMetadataResponse:
        return oip.ServerMetadataResponse(name=SERVER, version=version("headrace-serving"), extensions=EXTENSIONS)

    async def ModelReady(self, request: oip.ModelReadyRequest, context: Context) -> oip.ModelReadyResponse:
        return oip.ModelReadyResponse(ready=is_ready(self._router, request.name, request.version))

    async def ModelMetadata(self, request: oip.ModelMetadataRequest, context: Context) -> oip.ModelMetadataResponse:
        try:
            return metadata(self._router, request.name, request.version)
        except NotFound as error:  # its request calls name and version otherwise than an inference does
            field = error.field.removeprefix("model_")
            raise NotFound(error.message, field=field, metadata=error.metadata) from None

    async def ModelInfer(self, request: oip.ModelInferRequest, context: Context) -> oip.ModelInferResponse:
        return await self._infer(request)

    async def ModelStreamInfer(
        self, request_iterator: AsyncIterator[oip.ModelInferRequest], context: Context
    ) -> AsyncIterator[oip.ModelStreamInferResponse]:
        async for request in request_iterator:
            try:
                yield oip.ModelStreamInferResponse(infer_response=await self._infer(request))
            except KitError as error:
                answer = oip.ModelInferResponse(id=request.id)
                yield oip.ModelStreamInferResponse(error_message=error.message, infer_response=answer)

    async def RepositoryIndex(
        self, request: oip.RepositoryIndexRequest, context: Context
    ) -> oip.RepositoryIndexResponse:
        return oip.RepositoryIndexResponse(models=index(self._router, ready=request.ready))

    async def RepositoryModelLoad(
        self, request: oip.RepositoryModelLoadRequest, context: Context
    ) -> oip.RepositoryModelLoadResponse:
        await self._router.reload(request.model_name or request.repository_name)
        return oip.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(
        self, request: oip.RepositoryModelUnloadRequest, context: Context
    ) -> oip.RepositoryModelUnloadResponse:
        self._router.unload(request.model_name or request.repository_name)
        return oip.RepositoryModelUnloadResponse()

    async def _infer(self, request: oip.ModelInferRequest) -> oip.ModelInferResponse:
        response = await self._inference.infer(grpc_codec.decode_request(request))
        return grpc_codec.encode_response(response, raw=bool(request.raw_input_contents))


def is_ready(router: Router, name: str, number: str) -> bool:
    """Whether a model, or one version of it, answers."""
    try:
        router.choose(name, number, "")
    except KitError:
        return False
    return True


def metadata(router: Router, name: str, number: str) -> oip.ModelMetadataResponse:
    """What a model takes and gives. Raises NotFound, Unavailable."""
    plan = router.plan(name)
    share = router.share(plan, number) if number else plan.largest
    if share is None:
        raise NotFound("version", name, field="name")
    loaded = share.version
    return oip.ModelMetadataResponse(
        name=model_name(plan.endpoint.name),
        versions=sorted((each.version.number for each in plan.shares), key=int),
        platform=loaded.platform,
        inputs=[_tensor(each) for each in loaded.contract.inputs],
        outputs=[_tensor(each) for each in loaded.contract.outputs],
    )


def index(router: Router, *, ready: bool) -> list[oip.RepositoryIndexResponse.ModelIndex]:
    """Every endpoint with its versions and their states."""
    found: list[oip.RepositoryIndexResponse.ModelIndex] = []
    for endpoint, plan, fault in router.states():
        name = model_name(endpoint)
        shares = plan.shares if plan else ()
        found.extend(
            oip.RepositoryIndexResponse.ModelIndex(name=name, version=each.version.number, state="READY", reason=fault)
            for each in shares
        )
        if not shares and not ready:
            reason = fault or "no version answers"
            found.append(oip.RepositoryIndexResponse.ModelIndex(name=name, state="UNAVAILABLE", reason=reason))
    return found


def _tensor(spec: Spec) -> oip.ModelMetadataResponse.TensorMetadata:
    return oip.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.shape)
