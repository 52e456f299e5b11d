"""Errors as MLflow's clients know them: ``{"error_code": ..., "message": ...}`` under an HTTP status.

The clients repeat what is answered with 408, 429, 500, 502, 503 or 504, so nothing that is the caller's fault may be.
"""

from http import HTTPStatus
from typing import Final

import grpc

from headrace.errors import error_details
from headrace_gateway.platform import ServiceMissingError
from headrace_kit.errors import (
    InvalidArgument,
    KitError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)

INVALID: Final = "INVALID_PARAMETER_VALUE"
MISSING: Final = "RESOURCE_DOES_NOT_EXIST"
EXISTS: Final = "RESOURCE_ALREADY_EXISTS"
NOT_IMPLEMENTED: Final = "NOT_IMPLEMENTED"

_RPC: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: (HTTPStatus.BAD_REQUEST, INVALID),
    grpc.StatusCode.NOT_FOUND: (HTTPStatus.NOT_FOUND, MISSING),
    grpc.StatusCode.ALREADY_EXISTS: (HTTPStatus.BAD_REQUEST, EXISTS),
    grpc.StatusCode.FAILED_PRECONDITION: (HTTPStatus.BAD_REQUEST, INVALID),
    grpc.StatusCode.PERMISSION_DENIED: (HTTPStatus.FORBIDDEN, "PERMISSION_DENIED"),
    grpc.StatusCode.UNAUTHENTICATED: (HTTPStatus.UNAUTHORIZED, "UNAUTHENTICATED"),
    grpc.StatusCode.ABORTED: (HTTPStatus.SERVICE_UNAVAILABLE, "TEMPORARILY_UNAVAILABLE"),
    grpc.StatusCode.UNAVAILABLE: (HTTPStatus.SERVICE_UNAVAILABLE, "TEMPORARILY_UNAVAILABLE"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (HTTPStatus.TOO_MANY_REQUESTS, "REQUEST_LIMIT_EXCEEDED"),
    grpc.StatusCode.DEADLINE_EXCEEDED: (HTTPStatus.GATEWAY_TIMEOUT, "DEADLINE_EXCEEDED"),
}
_KIT: Final = {
    InvalidArgument: (HTTPStatus.BAD_REQUEST, INVALID),
    NotFound: (HTTPStatus.NOT_FOUND, MISSING),
    PermissionDenied: (HTTPStatus.FORBIDDEN, "PERMISSION_DENIED"),
    Unauthenticated: (HTTPStatus.UNAUTHORIZED, "UNAUTHENTICATED"),
    ResourceExhausted: (HTTPStatus.TOO_MANY_REQUESTS, "REQUEST_LIMIT_EXCEEDED"),
    Unavailable: (HTTPStatus.SERVICE_UNAVAILABLE, "TEMPORARILY_UNAVAILABLE"),
}
_REASONS: Final = {"GATES_UNMET": "INVALID_STATE", "UNDER_ALIAS": "INVALID_STATE", "REFERENCED": "INVALID_STATE"}


class MlflowError(Exception):
    """What is answered instead of a result."""

    def __init__(self, message: str, code: str = INVALID, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(message)
        self.message, self.code, self.status = message, code, status


def missing(message: str) -> MlflowError:
    """The named thing does not exist."""
    return MlflowError(message, MISSING, HTTPStatus.NOT_FOUND)


def exists(message: str) -> MlflowError:
    """The name is taken."""
    return MlflowError(message, EXISTS)


def unsupported(message: str) -> MlflowError:
    """Headrace does not do this; docs/mlflow.md says so."""
    return MlflowError(message, NOT_IMPLEMENTED, HTTPStatus.NOT_IMPLEMENTED)


def translated(error: Exception) -> MlflowError:
    """Any error of a service or of the gateway as MLflow's clients know it."""
    match error:
        case MlflowError():
            return error
        case grpc.aio.AioRpcError():
            status, code = _RPC.get(error.code(), (HTTPStatus.INTERNAL_SERVER_ERROR, "INTERNAL_ERROR"))
            _, details = error_details(error)
            message = f"{details.field}: {details.message}" if details.field else details.message
            return MlflowError(message, _REASONS.get(details.reason, code), status)
        case ServiceMissingError():
            return MlflowError(
                f"the stack was started without {error}", "TEMPORARILY_UNAVAILABLE", HTTPStatus.SERVICE_UNAVAILABLE
            )
        case KitError():
            found = next((each for kind, each in _KIT.items() if isinstance(error, kind)), None)
            status, code = found or (HTTPStatus.INTERNAL_SERVER_ERROR, "INTERNAL_ERROR")
            return MlflowError(error.message, code, status)
        case _:
            return MlflowError(
                "the gateway failed; its log says more", "INTERNAL_ERROR", HTTPStatus.INTERNAL_SERVER_ERROR
            )
