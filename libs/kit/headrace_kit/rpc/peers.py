"""Errors of calls to other services, as the kit's own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import grpc

from headrace.errors import ErrorDetails, error_details
from headrace_kit import errors

Make = Callable[[str, ErrorDetails], errors.KitError]


def _plain(kind: type[errors.KitError]) -> Make:
    def make(message: str, details: ErrorDetails) -> errors.KitError:
        return kind(message, field=details.field, reason=details.reason, metadata=details.metadata)

    return make


def _precondition(message: str, details: ErrorDetails) -> errors.KitError:
    violations = [errors.Violation(each.type, each.subject, each.description) for each in details.violations]
    return errors.FailedPrecondition(
        message, violations, field=details.field, reason=details.reason, metadata=details.metadata
    )


def _exhausted(message: str, details: ErrorDetails) -> errors.KitError:
    return errors.ResourceExhausted(
        message, retry_after_s=details.retry_after_s or 1.0, reason=details.reason, metadata=details.metadata
    )


_KINDS: Final[dict[grpc.StatusCode, Make]] = {
    grpc.StatusCode.INVALID_ARGUMENT: _plain(errors.InvalidArgument),
    grpc.StatusCode.OUT_OF_RANGE: _plain(errors.InvalidArgument),
    grpc.StatusCode.NOT_FOUND: _plain(errors.NotFound),
    grpc.StatusCode.ALREADY_EXISTS: _plain(errors.AlreadyExists),
    grpc.StatusCode.FAILED_PRECONDITION: _precondition,
    grpc.StatusCode.ABORTED: _plain(errors.Aborted),
    grpc.StatusCode.PERMISSION_DENIED: _plain(errors.PermissionDenied),
    grpc.StatusCode.RESOURCE_EXHAUSTED: _exhausted,
    grpc.StatusCode.UNAVAILABLE: _plain(errors.Unavailable),
    grpc.StatusCode.CANCELLED: _plain(errors.Unavailable),
    grpc.StatusCode.DEADLINE_EXCEEDED: _plain(errors.DeadlineExceeded),
    # Our own token was refused: the peer was set up anew, or we were. Not the fault of whoever called us.
    grpc.StatusCode.UNAUTHENTICATED: _plain(errors.Unavailable),
}


def from_peer(error: grpc.RpcError) -> errors.KitError:
    """The error of a call to another service, with its reason, field, violations and delay."""
    code, details = error_details(error)
    make = _KINDS.get(code, _plain(errors.KitError))
    return make(details.message or f"a call to another service failed: {code.name}", details)


@contextmanager
def peer_errors() -> Iterator[None]:
    """What calls to other services raise inside becomes the kit's errors, for handlers to tell apart.

    Not needed where the error is only to be passed on: the chassis does the same with what a servicer lets out.
    """
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_peer(error) from error
