"""The topics of the platform, as the local broker gets them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace_local.names import WITH_DATABASE

_WEEK_MS = str(7 * 24 * 3600 * 1000)


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic: its partitions and what differs from the broker's defaults."""

    name: str
    partitions: int
    settings: Mapping[str, str] = field(default_factory=dict)


TOPICS = (
    *(Topic(f"headrace.{service}.events.v1", 6, {"retention.ms": _WEEK_MS}) for service in WITH_DATABASE),
    *(
        # Co-partitioned; time is the broker's, because producers' clocks are not trusted for retention. The monitor
        # drops what it has archived and counted; Kafka by itself drops nothing.
        Topic(
            f"headrace.telemetry.{kind}.v1",
            12,
            {
                "retention.ms": "-1",
                "message.timestamp.type": "LogAppendTime",
                # A batch has at most 4 MiB.
                "max.message.bytes": str(5 * 1024 * 1024),
            },
        )
        for kind in ("predictions", "labels")
    ),
    # Signed checkpoints have no other home.
    Topic("headrace.audit.checkpoints.v1", 1, {"retention.ms": "-1"}),
    Topic("headrace.quarantine.v1", 3, {"retention.ms": _WEEK_MS}),
)
