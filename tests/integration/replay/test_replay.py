"""``headrace log replay`` to real Kafka."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from headrace import errors
from headrace.cli import build
from headrace.connection import SERVICES
from headrace.kafka.copies import RESERVED
from headrace_kit.cloudevents import from_headers, to_headers
from headrace_kit.eventstore import LogEntry
from headrace_kit.log import events_topic
from headrace_local.testing import Infrastructure, Topics
from headrace_local.topics import TOPICS
from tests.support.subscribing import Logs, served_logs


@pytest.fixture
async def logs(infrastructure: Infrastructure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Logs]:
    monkeypatch.setenv("HEADRACE_DATA", str(tmp_path / "nothing"))
    monkeypatch.setenv("HEADRACE_KAFKA_BOOTSTRAP", infrastructure.addresses.kafka_bootstrap)
    async with served_logs(tmp_path, "monitor", "registry") as served:
        for name, value in served.environment.items():
            monkeypatch.setenv(name, value)
        for number in range(1, 21):
            await (served.promote(str(number)) if number % 2 else served.raise_alert(str(number)))
        yield served


async def headrace(*arguments: str) -> None:
    """Runs the command line."""
    await asyncio.to_thread(build(), list(arguments), standalone_mode=False)


async def records(topics: Topics, topic: str) -> list[Any]:
    """All of a topic of one partition."""
    consumer: Any = AIOKafkaConsumer(bootstrap_servers=topics.bootstrap, enable_auto_commit=False)
    place = TopicPartition(topic, 0)
    async with asyncio.timeout(30):
        await consumer.start()
        try:
            consumer.assign([place])
            await consumer.seek_to_beginning(place)
            end = (await consumer.end_offsets([place]))[place]
            found: list[Any] = []
            while len(found) < end:
                found += (await consumer.getmany(place, timeout_ms=1000)).get(place, [])
            return found
        finally:
            await consumer.stop()


async def ends(bootstrap: str) -> dict[TopicPartition, int]:
    """Where each partition of the platform's topics ends."""
    consumer: Any = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    await consumer.start()
    try:
        places = [TopicPartition(topic.name, number) for topic in TOPICS for number in range(topic.partitions)]
        return dict(await consumer.end_offsets(places))
    finally:
        await consumer.stop()


async def whole(logs: Logs) -> list[LogEntry]:
    found = [entry for each in logs.servers.values() for entry in await each.store.read_log(1, 1000)]
    return sorted(found, key=lambda entry: (entry.event.hlc, entry.source, entry.position))


async def test_copies_have_the_headers_of_the_relay_and_name_their_original(logs: Logs, topics: Topics) -> None:
    topic = await topics.create("sandbox", partitions=1)
    before = await ends(topics.bootstrap)
    await headrace("log", "replay", "--to", topic, "--sandbox")
    found, stored = await records(topics, topic), await whole(logs)
    assert len(found) == len(stored) == 20
    for record, entry in zip(found, stored, strict=True):
        headers, original = dict(record.headers), entry.received()
        assert headers.pop("ce_replayof") == str(original.id).encode()
        copied = headers.pop("ce_id")
        wanted = dict(to_headers(original))
        assert (wanted.pop("ce_id") != copied, headers) == (True, wanted)
        assert (record.key, record.value) == (original.subject.encode(), original.data)
        assert str(from_headers(record.headers, record.value)[0].id).encode() == copied
    assert len({dict(record.headers)["ce_id"] for record in found}) == 20
    assert await ends(topics.bootstrap) == before  # no topic of the platform got anything


async def test_a_repeat_gives_the_same_copies_and_a_filter_leaves_out(logs: Logs, topics: Topics) -> None:
    topic = await topics.create("sandbox", partitions=1)
    one = ("--service", "registry", "--from", "3", "--until", "6")
    for _ in range(2):
        await headrace("log", "replay", "--to", topic, "--sandbox", *one)
    found = [(record.key, record.value, record.headers) for record in await records(topics, topic)]
    assert len(found) == 6
    assert found[:3] == found[3:]
    only = await topics.create("alerts", partitions=1)
    await headrace("log", "replay", "--to", only, "--sandbox", "--type", "headrace.monitor.v1.AlertRaised")
    kinds = {dict(record.headers)["ce_type"] for record in await records(topics, only)}
    assert kinds == {b"headrace.monitor.v1.AlertRaised"}


async def test_the_rate_is_kept(logs: Logs, topics: Topics) -> None:
    topic = await topics.create("slow", partitions=1)
    began_s = time.monotonic()
    await headrace("log", "replay", "--to", topic, "--sandbox", "--rate", "20")
    assert time.monotonic() - began_s >= 0.9
    assert len(await records(topics, topic)) == 20


@pytest.mark.parametrize("topic", ["headrace.registry.events.v1", "headrace.mine", "headrace."])
async def test_no_copy_goes_to_a_topic_of_the_platform(logs: Logs, topics: Topics, topic: str) -> None:
    before = await ends(topics.bootstrap)
    with pytest.raises(errors.InvalidArgument) as caught:
        await headrace("log", "replay", "--to", topic, "--sandbox")
    assert (caught.value.field, caught.value.reason) == ("to", "PRODUCTION_TOPIC")
    assert await ends(topics.bootstrap) == before


async def test_what_is_missing_is_said(logs: Logs, topics: Topics) -> None:
    topic = await topics.create("sandbox", partitions=1)
    with pytest.raises(errors.InvalidArgument) as unsaid:
        await headrace("log", "replay", "--to", topic)
    assert unsaid.value.field == "sandbox"
    with pytest.raises(errors.NotFound) as absent:
        await headrace("log", "replay", "--to", f"{topics.prefix}.nowhere", "--sandbox")
    assert absent.value.field == "to"
    with pytest.raises(errors.InvalidArgument) as odd:
        await headrace("log", "replay", "--to", "a topic", "--sandbox")
    assert odd.value.field == "to"
    one = ("--service", "registry", "--from", "5", "--until", "4")
    with pytest.raises(errors.InvalidArgument) as backwards:
        await headrace("log", "replay", "--to", topic, "--sandbox", *one)
    assert backwards.value.field == "until"
    assert await records(topics, topic) == []


def test_whatever_the_platform_consumes_is_reserved() -> None:
    consumed = [events_topic(f"headrace/{name}") for name in SERVICES] + [topic.name for topic in TOPICS]
    assert [name for name in consumed if not name.startswith(RESERVED)] == []
