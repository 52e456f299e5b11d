"""The one table from errors to what goes over the wire: gRPC status with google.rpc details."""

import asyncio
import re
from typing import Final

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from headrace_kit import errors
from headrace_kit.rpc.peers import from_peer

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
MAX_TEXT_BYTES: Final = 1000
"""Most bytes of an error message."""
MAX_STATUS_BYTES: Final = 3400
"""Most bytes of a status. In base64, beside its message in percent encoding, it stays below 8 KiB of headers: beyond
those gRPC refuses some answers, by the dice, and beyond 16 KiB all."""
_MAX_FACT_BYTES: Final = 300
_MAX_FACTS_BYTES: Final = 1200
_KEY: Final = re.compile(r"\[['\"]")


def status_code(error: errors.KitError) -> grpc.StatusCode:
    """The gRPC status of an error."""
    return _codes(error)[0]


def bounded(text: str, most: int = MAX_TEXT_BYTES) -> str:
    """A text cut to a number of UTF-8 bytes, with an ellipsis where something was cut."""
    data = text.encode(errors="replace")
    return data.decode() if len(data) <= most else data[: most - 3].decode(errors="ignore") + "…"


def rich_status(error: errors.KitError) -> status_pb2.Status:
    """The google.rpc.Status of an error: ErrorInfo always, and what else it has to say.

    BadRequest names the field of an InvalidArgument, PreconditionFailure the violations of a FailedPrecondition (as
    many as fit), RetryInfo when to come back.
    """
    metadata = _facts(error)
    status = status_pb2.Status(code=_codes(error)[1], message=bounded(error.message))
    _add(status, error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata))
    match error:
        case errors.InvalidArgument(field=field) if field:
            _add(status, _bad_request(error))
        case errors.FailedPrecondition(violations=violations) if violations:
            _add(status, _precondition_failure(error, MAX_STATUS_BYTES - status.ByteSize()))
        case errors.ResourceExhausted(retry_after_s=seconds):
            delay = Duration()
            delay.FromNanoseconds(int(max(seconds, 0.0) * 1e9))
            _add(status, error_details_pb2.RetryInfo(retry_delay=delay))
        case _:
            pass
    return status


def as_kit_error(error: BaseException) -> errors.KitError:
    """The error as one of the kit's; a fault of the program itself says nothing of its inside."""
    match error:
        case errors.KitError():
            return error
        case grpc.aio.AioRpcError():
            return from_peer(error)
        case BaseExceptionGroup():
            return _worst([as_kit_error(each) for each in error.exceptions])
        case TimeoutError():
            return errors.DeadlineExceeded("the deadline passed; repeat with the same command id")
        case DecodeError():
            return errors.InvalidArgument("a message can not be read", reason="MALFORMED_REQUEST")
        case asyncio.CancelledError():
            return errors.Unavailable("the call was cancelled", reason="CANCELLED")
        case _:
            return errors.KitError("internal error; the service's log says more", reason="INTERNAL")


def _worst(known: list[errors.KitError]) -> errors.KitError:
    """Of several errors at once: a fault of the program before everything else, then the first."""
    return next((each for each in known if status_code(each) is grpc.StatusCode.INTERNAL), known[0])


def _bad_request(error: errors.KitError) -> Message:
    violation = error_details_pb2.BadRequest.FieldViolation(
        field=_bounded_path(error.field), description=bounded(error.message, 500), reason=error.reason
    )
    message: Message = error_details_pb2.BadRequest(field_violations=[violation])
    return message


def _bounded_path(path: str) -> str:
    """A field's path; one that a key given by the caller makes too long ends before that key, so that it stays one."""
    return path if len(path.encode(errors="replace")) <= _MAX_FACT_BYTES else bounded(_KEY.split(path)[0], 250)


def _facts(error: errors.KitError) -> dict[str, str]:
    """What ErrorInfo says besides the reason: the facts of the error, as many as fit, and above all its field."""
    own = {"retryable": str(error.retryable).lower()} | ({"field": _bounded_path(error.field)} if error.field else {})
    facts, room = dict(own), _MAX_FACTS_BYTES
    for key, value in error.metadata.items():
        name, fact = bounded(key, 64), bounded(value, _MAX_FACT_BYTES)
        room -= len(f"{name}{fact}".encode())
        if room < 0:
            break
        facts[name] = fact
    return facts | own


def _precondition_failure(error: errors.FailedPrecondition, room: int) -> Message:
    failure = error_details_pb2.PreconditionFailure()
    for each in error.violations:
        failure.violations.add(
            type=bounded(each.type, 64),
            subject=bounded(each.subject, _MAX_FACT_BYTES),
            description=bounded(each.description, _MAX_FACT_BYTES),
        )
        if failure.ByteSize() > room:
            del failure.violations[-1]
            break
    message: Message = failure
    return message


def _add(status: status_pb2.Status, detail: Message) -> None:
    packed = AnyMessage()
    packed.Pack(detail)
    status.details.append(packed)


def _codes(error: errors.KitError) -> tuple[grpc.StatusCode, int]:
    for kind, code, number in _CODES:
        if isinstance(error, kind):
            return code, number
    return grpc.StatusCode.INTERNAL, code_pb2.INTERNAL
