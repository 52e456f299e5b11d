"""The one table from errors to what goes over the wire: gRPC status with google.rpc details."""

from typing import Final

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from headrace_kit import errors

DOMAIN: Final = "headrace"
_CODES: Final[tuple[tuple[type[errors.KitError], grpc.StatusCode, int], ...]] = (
    (errors.InvalidArgument, grpc.StatusCode.INVALID_ARGUMENT, code_pb2.INVALID_ARGUMENT),
    (errors.NotFound, grpc.StatusCode.NOT_FOUND, code_pb2.NOT_FOUND),
    (errors.AlreadyExists, grpc.StatusCode.ALREADY_EXISTS, code_pb2.ALREADY_EXISTS),
    (errors.FailedPrecondition, grpc.StatusCode.FAILED_PRECONDITION, code_pb2.FAILED_PRECONDITION),
    (errors.Aborted, grpc.StatusCode.ABORTED, code_pb2.ABORTED),
    (errors.PermissionDenied, grpc.StatusCode.PERMISSION_DENIED, code_pb2.PERMISSION_DENIED),
    (errors.Unauthenticated, grpc.StatusCode.UNAUTHENTICATED, code_pb2.UNAUTHENTICATED),
    (errors.ResourceExhausted, grpc.StatusCode.RESOURCE_EXHAUSTED, code_pb2.RESOURCE_EXHAUSTED),
    (errors.Unavailable, grpc.StatusCode.UNAVAILABLE, code_pb2.UNAVAILABLE),
    (errors.DeadlineExceeded, grpc.StatusCode.DEADLINE_EXCEEDED, code_pb2.DEADLINE_EXCEEDED),
)
MAX_MESSAGE: Final = 4000
"""Most characters of an error message: what is longer does not fit the headers of a response."""


def status_code(error: errors.KitError) -> grpc.StatusCode:
    """The gRPC status of an error."""
    return _codes(error)[0]


def rich_status(error: errors.KitError) -> status_pb2.Status:
    """The google.rpc.Status of an error: ErrorInfo always, and what else it has to say."""
    metadata = {key: value[:500] for key, value in error.metadata.items()}
    if error.field:
        metadata["field"] = error.field[:500]
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)]
    message = error.message[:MAX_MESSAGE]
    if isinstance(error, errors.InvalidArgument) and error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field[:500], description=message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, errors.FailedPrecondition) and error.violations:
        violations = [
            error_details_pb2.PreconditionFailure.Violation(
                type=each.type, subject=each.subject, description=each.description[:500]
            )
            for each in error.violations[:20]
        ]
        details.append(error_details_pb2.PreconditionFailure(violations=violations))
    if isinstance(error, errors.ResourceExhausted):
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=_codes(error)[1], message=message)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _codes(error: errors.KitError) -> tuple[grpc.StatusCode, int]:
    for kind, code, number in _CODES:
        if isinstance(error, kind):
            return code, number
    return grpc.StatusCode.INTERNAL, code_pb2.INTERNAL
