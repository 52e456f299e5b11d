"""The log between services: Kafka, and its twin in memory. aiokafka is known here and nowhere else in the kit."""

from headrace_kit.log.kafka import KafkaConsumer, KafkaLog, KafkaProducer, KafkaSettings, partition_of
from headrace_kit.log.memory import MemoryLog
from headrace_kit.log.records import (
    Log,
    LogConsumer,
    LogProducer,
    LogRecord,
    LogUnavailable,
    OutgoingRecord,
    TopicPartition,
)
from headrace_kit.log.topics import (
    CHECKPOINTS,
    LABELS,
    PLATFORM_TOPICS,
    PREDICTIONS,
    QUARANTINE,
    TopicSpec,
    events_topic,
    source_of,
)

__all__ = [
    "CHECKPOINTS",
    "LABELS",
    "PLATFORM_TOPICS",
    "PREDICTIONS",
    "QUARANTINE",
    "KafkaConsumer",
    "KafkaLog",
    "KafkaProducer",
    "KafkaSettings",
    "Log",
    "LogConsumer",
    "LogProducer",
    "LogRecord",
    "LogUnavailable",
    "MemoryLog",
    "OutgoingRecord",
    "TopicPartition",
    "TopicSpec",
    "events_topic",
    "partition_of",
    "source_of",
]
