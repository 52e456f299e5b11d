"""The registry as serving asks it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from headrace.api.registry.v1 import service_pb2 as service
from headrace.api.registry.v1.resources_pb2 import Alias, Model, Promotion
from headrace.api.registry.v1.service_pb2_grpc import RegistryServiceStub
from headrace_kit.context import CommandContext
from headrace_kit.errors import (
    Aborted,
    FailedPrecondition,
    KitError,
    NotFound,
    PermissionDenied,
    Unavailable,
    Violation,
)
from headrace_kit.rpc import causal_metadata
from headrace_serving.store import KnownVersion


class Registry:
    """Calls to the registry; all raise KitError, Unavailable when it is away."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = RegistryServiceStub(channel)  # Any: one stub class is typed for blocking and awaited calls

    async def version(self, name: str) -> KnownVersion:
        """A version. Raises NotFound."""
        with _translated("version", name):
            found: service.GetVersionResponse = await self._stub.GetVersion(service.GetVersionRequest(name=name))
        return KnownVersion(found.version, found.trust)

    async def alias(self, model: str, alias: str) -> Alias | None:
        """An alias, or None while it points nowhere. Raises NotFound when there is no such model."""
        with _translated("model", model):
            found: Model = (await self._stub.GetModel(service.GetModelRequest(name=model))).model
        return next((each for each in found.aliases if each.alias == alias), None)

    async def unmet_gates(self, version: str, alias: str, *, actor: str) -> list[Violation]:
        """What a promotion by ``actor`` would lack."""
        request = service.CheckPromotionRequest(version=version, alias=alias, actor=actor)
        with _translated("version", version):
            answer: service.CheckPromotionResponse = await self._stub.CheckPromotion(request)
        return [Violation(type=each.gate, subject=version, description=each.reason) for each in answer.unmet]

    async def promote(self, request: service.PromoteVersionRequest, cause: CommandContext) -> Promotion:
        """Moves the alias. Raises FailedPrecondition with the unmet gates, Aborted when the alias moved on."""
        with _translated("version", request.version):
            answer: service.PromoteVersionResponse = await self._stub.PromoteVersion(
                request, metadata=causal_metadata(cause)
            )
        return answer.promotion


@contextmanager
def _translated(kind: str, name: str) -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        message = error.details() or error.code().name
        translated: KitError
        match error.code():
            case grpc.StatusCode.NOT_FOUND:
                translated = NotFound(kind, name, field=kind)
            case grpc.StatusCode.FAILED_PRECONDITION:
                translated = FailedPrecondition(message, _violations(error), reason="GATES_UNMET")
            case grpc.StatusCode.ABORTED:
                translated = Aborted(message, reason="ALIAS_MOVED")
            case grpc.StatusCode.PERMISSION_DENIED:
                translated = PermissionDenied(message)
            case _:
                translated = Unavailable(
                    f"the registry does not answer: {message}"[:500], reason="REGISTRY_UNAVAILABLE"
                )
        raise translated from error


def _violations(error: grpc.aio.AioRpcError) -> Sequence[Violation]:
    """The violations in the details of a status, when there are any."""
    found: list[Violation] = []
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            for detail in status_pb2.Status.FromString(value).details:
                failure = error_details_pb2.PreconditionFailure()
                if detail.Unpack(failure):
                    found.extend(Violation(each.type, each.subject, each.description) for each in failure.violations)
    return found
