"""The error tree of the kit and of every service.

Each error carries a stable ``reason`` (UPPER_SNAKE, never renamed: clients match on it) and ``retryable`` (whether
the same call, with the same command id, may succeed later). The domain raises these; only the rpc chassis knows
how they look on the wire::

    KitError
    +-- InvalidArgument        the request can never succeed as it is; ``field`` names the path at fault
    +-- NotFound               the named thing does not exist
    +-- AlreadyExists          the name, or the command id with another body, is taken
    +-- FailedPrecondition     the state forbids it; ``violations`` lists every reason
    +-- Aborted                lost a race for a stream too often; retry
    |   +-- Deposed            this process no longer holds the lease it wrote under
    +-- PermissionDenied       the caller is known and may not
    +-- Unauthenticated        the caller is not known
    +-- ResourceExhausted      a bounded queue or quota is full; ``retry_after_s`` says when to come back
    +-- Unavailable            a part the call needs is down; retry
    +-- DeadlineExceeded       the call's deadline passed; its outcome may be unknown, retry with the same command id
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Violation:
    """One precondition that was not met: what kind, on which resource, and why in a sentence."""

    type: str
    subject: str
    description: str


class KitError(Exception):
    """Root of the tree.

    Args:
        message: One sentence for a person.
        field: Path of the request field at fault (``metrics[3].value``), empty when none is.
        reason: A finer reason than the class's own; stable and UPPER_SNAKE.
        metadata: Further facts for programs, as strings.
    """

    default_reason: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.reason = reason or self.default_reason
        self.metadata: Mapping[str, str] = dict(metadata or {})


class InvalidArgument(KitError):
    """The request can never succeed as it is."""

    default_reason = "INVALID_ARGUMENT"


class NotFound(KitError):
    """The named thing does not exist: ``NotFound("run", "projects/p/runs/r")``, or a whole sentence alone."""

    default_reason = "NOT_FOUND"

    def __init__(
        self,
        kind: str,
        name: str = "",
        *,
        field: str = "",
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        facts = {**({"kind": kind, "name": name} if name else {}), **(metadata or {})}
        message = f"{kind} {name} does not exist" if name else kind
        super().__init__(message, field=field, reason=reason, metadata=facts)


class AlreadyExists(KitError):
    """The name is taken, or the command id was used with another body."""

    default_reason = "ALREADY_EXISTS"


class FailedPrecondition(KitError):
    """The state of the thing forbids the command; every unmet condition is listed."""

    default_reason = "FAILED_PRECONDITION"

    def __init__(
        self,
        message: str,
        violations: Sequence[Violation] = (),
        *,
        field: str = "",
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, field=field, reason=reason, metadata=metadata)
        self.violations: tuple[Violation, ...] = tuple(violations)


class Aborted(KitError):
    """Lost the race for a stream too often; nothing was written."""

    default_reason = "ABORTED"
    retryable = True


class Deposed(Aborted):
    """The writer's lease has a newer epoch: another process leads; nothing was written."""

    default_reason = "LEADER_DEPOSED"


class PermissionDenied(KitError):
    """The caller is known and may not do this."""

    default_reason = "PERMISSION_DENIED"


class Unauthenticated(KitError):
    """The caller is not known."""

    default_reason = "UNAUTHENTICATED"


class ResourceExhausted(KitError):
    """A bounded queue or a quota is full; come back after ``retry_after_s`` seconds."""

    default_reason = "RESOURCE_EXHAUSTED"
    retryable = True

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float = 1.0,
        field: str = "",
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, field=field, reason=reason, metadata=metadata)
        self.retry_after_s = retry_after_s


class Unavailable(KitError):
    """A part this call needs is down."""

    default_reason = "UNAVAILABLE"
    retryable = True


class DeadlineExceeded(KitError):
    """The deadline passed; the outcome may be unknown, and the same command id finds it out."""

    default_reason = "DEADLINE_EXCEEDED"
    retryable = True
