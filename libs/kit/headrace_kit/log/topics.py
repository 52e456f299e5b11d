"""The platform's topics: names, partitions, retention. Sizes are fixed when a platform is first created."""

from __future__ import annotations

from dataclasses import dataclass

DAY_MS = 24 * 60 * 60 * 1000

QUARANTINE = "headrace.quarantine.v1"
CHECKPOINTS = "headrace.audit.checkpoints.v1"
PREDICTIONS = "headrace.telemetry.predictions.v1"
LABELS = "headrace.telemetry.labels.v1"

LOG_OWNERS = ("tracking", "registry", "orchestrator", "serving", "monitor")


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """How a topic is created; ``retention_ms`` -1 keeps records for ever."""

    name: str
    partitions: int
    retention_ms: int = 7 * DAY_MS
    log_append_time: bool = False


def events_topic(source: str) -> str:
    """The topic a log is relayed to: ``headrace/registry`` -> ``headrace.registry.events.v1``."""
    return f"{source.replace('/', '.')}.events.v1"


def source_of(topic: str) -> str:
    """The log a topic relays: ``headrace.registry.events.v1`` -> ``headrace/registry``."""
    return topic.removesuffix(".events.v1").replace(".", "/")


PLATFORM_TOPICS = (
    *(TopicSpec(f"headrace.{owner}.events.v1", 6) for owner in LOG_OWNERS),
    # The monitor drops from these what it has archived and counted; Kafka by itself never does.
    TopicSpec(PREDICTIONS, 12, retention_ms=-1, log_append_time=True),
    TopicSpec(LABELS, 12, retention_ms=-1, log_append_time=True),
    TopicSpec(CHECKPOINTS, 1, retention_ms=-1),
    TopicSpec(QUARANTINE, 3),
)
