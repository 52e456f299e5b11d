"""The local broker gets the topics that the services count on."""

from __future__ import annotations

from headrace.kafka.shards import LABELS_TOPIC, PREDICTIONS_TOPIC
from headrace_kit.log import PLATFORM_TOPICS
from headrace_kit.log.topics import LOG_OWNERS
from headrace_local.names import WITH_DATABASE
from headrace_local.topics import TOPICS


def test_topics_are_those_of_the_platform() -> None:
    ours = {
        topic.name: (
            topic.partitions,
            topic.settings["retention.ms"],
            topic.settings.get("message.timestamp.type") == "LogAppendTime",
        )
        for topic in TOPICS
    }
    assert ours == {
        each.name: (each.partitions, str(each.retention_ms), each.log_append_time) for each in PLATFORM_TOPICS
    }
    assert len(ours) == len(TOPICS)


def test_every_owner_of_a_log_has_a_database_here() -> None:
    assert set(LOG_OWNERS) == set(WITH_DATABASE)


def test_telemetry_is_co_partitioned_under_the_names_that_producers_know() -> None:
    partitions = {topic.name: topic.partitions for topic in TOPICS}
    assert partitions[PREDICTIONS_TOPIC] == partitions[LABELS_TOPIC]
