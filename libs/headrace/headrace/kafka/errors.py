"""What can go wrong with telemetry.

TelemetryError
+-- InvalidBatch         the batch can never be read as it is; ``field`` names the path at fault
+-- TelemetryQueueFull   the producer's queue is full; what was offered is counted as dropped
+-- TelemetryUnsent      Kafka did not take it in time, or refused it; whether it is there is unknown
"""

from typing import ClassVar


class TelemetryError(Exception):
    """Root of the tree. ``reason`` is stable; ``retryable`` says whether the same call may succeed later."""

    reason: ClassVar[str] = "TELEMETRY"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class InvalidBatch(TelemetryError):
    """The batch can never be read as it is."""

    reason = "INVALID_BATCH"


class TelemetryQueueFull(TelemetryError):
    """The producer's queue is full: nothing was taken."""

    reason = "TELEMETRY_QUEUE_FULL"
    retryable = True


class TelemetryUnsent(TelemetryError):
    """Kafka did not acknowledge."""

    reason = "TELEMETRY_UNSENT"
    retryable = True
