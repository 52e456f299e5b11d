"""The SDK's error tree: what the platform answered, or why it could not be asked.

Each error carries a stable ``reason`` (programs match on it), ``retryable`` (whether the same call, with the same
command id, may succeed later) and the ``field`` of the request at fault, if one is::

    HeadraceError
    +-- NotConnected           no platform was found, or its files can not be read: run `headrace up`
    +-- InvalidArgument        the request can never succeed as it is
    +-- NotFound               the named thing does not exist
    +-- AlreadyExists          the name, or the command id with another request, is taken
    +-- FailedPrecondition     the state forbids it; ``violations`` lists every reason
    +-- Aborted                lost a race; retry
    +-- PermissionDenied       you may not
    +-- Unauthenticated        the token is missing or wrong
    +-- ResourceExhausted      come back after ``retry_after_s``
    +-- Unavailable            the service, or a part it needs, is down; retry
    +-- DeadlineExceeded       no answer in time; the outcome is unknown, retry with the same command id
    +-- InternalError          a fault of the platform; its logs say more
"""

# google.rpc and the calls behind grpc's errors have no types: inside this module Any is one of them.
# ruff: noqa: ANN401

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Final, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

R = TypeVar("R")
DETAILS_KEY: Final = "grpc-status-details-bin"
"""Metadata under which a ``google.rpc.Status`` travels."""


@dataclasses.dataclass(frozen=True, slots=True)
class Violation:
    """One precondition that was not met: what kind, on which resource, and why in a sentence."""

    type: str
    subject: str
    description: str


@dataclasses.dataclass(frozen=True, slots=True)
class ErrorDetails:
    """What a failed call says besides its code.

    Attributes:
        message: One sentence for a person.
        reason: Stable and UPPER_SNAKE; empty when the platform did not answer itself.
        field: Path of the request field at fault; empty when none is.
        metadata: Further facts for programs.
        violations: Preconditions that were not met.
        retry_after_s: When to come back; None when it was not said.
    """

    message: str
    reason: str = ""
    field: str = ""
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    violations: tuple[Violation, ...] = ()
    retry_after_s: float | None = None


class HeadraceError(Exception):
    """Root of the tree.

    Attributes:
        message: One sentence for a person.
        reason: Stable and UPPER_SNAKE.
        field: Path of the request field at fault; empty when none is.
        metadata: Further facts for programs.
        retryable: Whether the same call, with the same command id, may succeed later.
    """

    default_reason: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, field: str = "", reason: str = "", metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.message = message
        self.field = field
        self.reason = reason or self.default_reason
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.violations: tuple[Violation, ...] = ()
        self.retry_after_s: float | None = None


class NotConnected(HeadraceError):
    """No platform was found, or the files that say where it is can not be read."""

    default_reason = "NOT_CONNECTED"


class InvalidArgument(HeadraceError):
    """The request can never succeed as it is."""

    default_reason = "INVALID_ARGUMENT"


class NotFound(HeadraceError):
    """The named thing does not exist."""

    default_reason = "NOT_FOUND"


class AlreadyExists(HeadraceError):
    """The name, or the command id with another request, is taken."""

    default_reason = "ALREADY_EXISTS"


class FailedPrecondition(HeadraceError):
    """The state forbids it; ``violations`` lists every reason."""

    default_reason = "FAILED_PRECONDITION"


class Aborted(HeadraceError):
    """Lost a race; nothing was written."""

    default_reason = "ABORTED"
    retryable = True


class PermissionDenied(HeadraceError):
    """The caller is known and may not do this."""

    default_reason = "PERMISSION_DENIED"


class Unauthenticated(HeadraceError):
    """The token is missing or wrong."""

    default_reason = "UNAUTHENTICATED"


class ResourceExhausted(HeadraceError):
    """A bounded queue or a quota is full; come back after ``retry_after_s`` seconds."""

    default_reason = "RESOURCE_EXHAUSTED"
    retryable = True


class Unavailable(HeadraceError):
    """The service, or a part it needs, is down."""

    default_reason = "UNAVAILABLE"
    retryable = True


class DeadlineExceeded(HeadraceError):
    """No answer in time; the outcome is unknown, and the same command id finds it out."""

    default_reason = "DEADLINE_EXCEEDED"
    retryable = True


class InternalError(HeadraceError):
    """A fault of the platform; its logs say more."""


_KINDS: Final[dict[grpc.StatusCode, type[HeadraceError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.OUT_OF_RANGE: InvalidArgument,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}


def from_rpc_error(error: grpc.RpcError) -> HeadraceError:
    """The error of a failed call, whichever of grpc's clients (blocking or asyncio) raised it."""
    code, details = error_details(error)
    kind = _KINDS.get(code, InternalError)
    message = details.message or f"the call failed: {code.name}"
    if kind is Unavailable and not details.reason:
        message = f"the service can not be reached ({message}); is the platform up? `headrace status` says more"
    made = kind(message, field=details.field, reason=details.reason, metadata=details.metadata)
    made.violations = details.violations
    made.retry_after_s = details.retry_after_s
    return made


@contextmanager
def rpc_errors() -> Iterator[None]:
    """What grpc raises inside becomes an error of this tree."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error


def read(method: Callable[..., R], request: Message, *, timeout_s: float = 60.0) -> R | None:
    """The answer to a question, or None where there is no such thing. Raises HeadraceError."""
    try:
        return method(request, timeout=timeout_s)
    except grpc.RpcError as error:
        found = from_rpc_error(error)
        if isinstance(found, NotFound):
            return None
        raise found from error


def error_details(error: grpc.RpcError) -> tuple[grpc.StatusCode, ErrorDetails]:
    """Code and details of a failed call; what is malformed in them is left out."""
    call = cast("Any", error)  # grpc's errors are calls as well, but their base class does not say so
    code = cast("grpc.StatusCode", call.code())
    return code, details_of(str(call.details() or ""), call.trailing_metadata())


def details_of(message: str, metadata: object) -> ErrorDetails:
    """The details in the trailing metadata of a call."""
    pairs = cast("list[tuple[str, str | bytes]]", list(metadata or ()))  # type: ignore[call-overload]
    data = next((value for key, value in pairs if key == DETAILS_KEY), b"")
    status = status_pb2.Status()
    try:
        status.ParseFromString(data if isinstance(data, bytes) else b"")
    except DecodeError:
        return ErrorDetails(message)
    return _read(message, status)


def _read(message: str, status: Any) -> ErrorDetails:
    info, failure, retry = (
        _detail(status, kind)
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.PreconditionFailure, error_details_pb2.RetryInfo)
    )
    metadata = dict(info.metadata) if info else {}
    violations = failure.violations if failure else ()
    return ErrorDetails(
        message=message,
        reason=info.reason if info else "",
        field=metadata.pop("field", ""),
        metadata={key: value for key, value in metadata.items() if key != "retryable"},
        violations=tuple(Violation(each.type, each.subject, each.description) for each in violations),
        retry_after_s=retry.retry_delay.ToTimedelta().total_seconds() if retry else None,
    )


def _detail(status: Any, kind: Any) -> Any:
    for packed in status.details:
        if packed.Is(kind.DESCRIPTOR):
            found = kind()
            try:
                found.ParseFromString(packed.value)
            except DecodeError:
                return None
            return found
    return None
