"""Records that nobody expected: poison straight on the topic, poison in a stream, and events of a release to come."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import MessageSizeTooLargeError

from headrace_kit.cloudevents import ReceivedEvent, to_headers
from headrace_kit.log import QUARANTINE, LogRecord
from headrace_kit.postgres import Record
from headrace_local.testing import Infrastructure
from tests.chaos.backbone.members import Place, acknowledged, folding
from tests.chaos.backbone.scene import Stage, at_rest, grows, staged
from tests.chaos.backbone.versions import ALERTS, URGENCY
from tests.support.counters import stream
from tests.support.eventually import eventually
from tests.support.kit import pooled
from tests.support.topics import whole_topic

pytestmark = [pytest.mark.timeout(500), pytest.mark.slow]
MALFORMED = b"\xff\xff\xff"
LARGE = 10 << 20
PARTITIONS = 4


def foreign(scene_source: str, name: str, *, type: str, value: bytes) -> ReceivedEvent:
    """An event that no service wrote."""
    return ReceivedEvent(
        id=uuid4(),
        type=type,
        source=scene_source,
        subject=stream(name),
        time=datetime.now(UTC),
        sequence=1,
        position=1,
        hlc=1,
        project="p",
        actor="nobody",
        on_behalf_of="",
        causation_id=None,
        correlation_id=None,
        traceparent="",
        data=value,
        message=None,
    )


@asynccontextmanager
async def producing(bootstrap: str) -> AsyncIterator[AIOKafkaProducer]:
    """A producer that sends whatever it is given."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_request_size=2 * LARGE)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def accept_large(bootstrap: str, topic: str) -> None:
    """Let a topic take records over a broker's usual limit."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    settings = {"max.message.bytes": str(2 * LARGE)}
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=settings)])
    await admin.close()


async def poison(stage: Stage) -> None:
    """Publish records that no relay publishes."""
    topic, source = stage.scene.topic, stage.scene.source
    unread = foreign(source, "unread", type="google.protobuf.Int64Value", value=MALFORMED)
    large = foreign(source, "large", type="google.protobuf.Int64Value", value=MALFORMED + bytes(LARGE))
    unknown = foreign(source, "unknown", type="headrace.future.v1.Thing", value=MALFORMED)
    stranger = foreign("headrace/stranger", "stranger", type="google.protobuf.Int64Value", value=b"")
    async with producing(stage.scene.bootstrap) as producer:
        with pytest.raises(MessageSizeTooLargeError):
            await producer.send_and_wait(topic, large.data, partition=0, headers=to_headers(large))
        await accept_large(stage.scene.bootstrap, topic)
        await producer.send_and_wait(topic, b"no headers at all", partition=0)
        await producer.send_and_wait(topic, MALFORMED, partition=0, headers=[("ce_id", b"\xff")])
        await producer.send_and_wait(topic, bytes(LARGE), partition=0)
        for each in (stranger, unread, large, unknown):
            await producer.send_and_wait(topic, each.data, partition=0, headers=to_headers(each))


async def rows(stage: Stage, sql: str, *, of: str = "answers") -> Sequence[Record]:
    """What a statement finds in one of the scene's databases."""
    async with pooled(stage.answers if of == "answers" else stage.counters, max_size=1) as database:
        return await database.fetch(sql)


def begun(stage: Stage) -> int:
    """How many partitions the consumers together have begun to read."""
    return len(asyncio.run(rows(stage, "SELECT 1 FROM consumer_offsets WHERE next_offset IS NOT NULL")))


def parked(stage: Stage) -> list[tuple[str, str, str]]:
    """Consumer, stream and cause of the first parked event of each stream."""
    found = asyncio.run(
        rows(stage, "SELECT consumer, stream_id, cause FROM parked_events WHERE cause <> '' ORDER BY 1, 2")
    )
    return [(row[0], row[1], row[2]) for row in found]


def test_poison_is_put_aside_with_its_reason_and_the_rest_goes_on(servers: Infrastructure, tmp_path: Path) -> None:
    with staged(servers, tmp_path, rate=20) as stage:
        for part in ("keeper", "writer", "answerer", "folder"):
            stage.start(part)
        grows(stage, by=20)
        # A consumer that begins reads the log, and the topic from its end: poison published before is not seen.
        eventually(lambda: begun(stage) == 2 * PARTITIONS, within_s=120)
        refused = acknowledged(tmp_path)[3] + 3
        (tmp_path / "refuse").write_text(f"{stream(3)} {refused}")
        asyncio.run(poison(stage))
        grows(stage, by=80)
        eventually(lambda: parked(stage), lambda found: len(found) >= 5, within_s=150)
        put_aside = parked(stage)
        (tmp_path / "refuse").unlink()  # the handler is mended
        redriven = asyncio.run(redrive(stage, stream(3)))
        found = at_rest(stage)
        notices = asyncio.run(whole_topic(stage.scene.bootstrap, QUARANTINE))

    assert [(consumer, name) for consumer, name, _ in put_aside] == [
        *(("answers", stream(name)) for name in ("large", "unread")),
        *(("points", stream(name)) for name in (3, "large", "unread")),
    ]
    causes = {name: cause for _, name, cause in put_aside}
    assert causes[stream(3)] == f"ValueError: {refused} is too much"
    assert causes[stream("unread")].startswith("MALFORMED_EVENT: the value is no google.protobuf.Int64Value")
    assert redriven > 1
    assert found == ["4 streams are parked"]  # two that nobody can read, of two consumers
    told = [(headers["headrace-consumer"], headers["headrace-cause"]) for headers in map(_headers, notices)]
    for consumer in (b"answers", b"points"):
        mine = sorted(cause.decode() for who, cause in told if who == consumer)
        wanted = [
            "ce_id is not UTF-8",
            "ce_id is missing",
            "ce_id is missing",
            "does not own",
            "no google",
            "no google",
        ]
        assert [sum(each in cause for cause in mine) for each in wanted] == [1, 2, 2, 1, 2, 2]
    assert max(len(record.value) for record in notices) < 1 << 20


async def redrive(stage: Stage, stream_id: str) -> int:
    """Redrives a stream of the folder from another process than the folder's; returns how many events it handled."""
    async with pooled(stage.answers) as own:
        return (await folding(Place("redriver", stage.folder), own).redrive(stream_id)).handled


def test_two_releases_side_by_side_lose_nothing_of_each_other(servers: Infrastructure, tmp_path: Path) -> None:
    with staged(servers, tmp_path) as stage:
        parts = ("keeper", "readertoday", "readertocome", "writertoday", "writertocome")
        for part in parts:
            stage.start(part)
        for part in ("writertoday", "writertocome"):
            eventually((tmp_path / f"{part}.done").exists, within_s=60)
        raised = "SELECT event_id, data FROM events WHERE type = 'headrace.monitor.v1.AlertRaised'"
        wanted = {row["event_id"]: row["data"] for row in asyncio.run(rows(stage, raised, of="counters"))}
        read = "SELECT split_part(name, ' ', 1) AS reader, id, raw, note FROM counters"
        got = eventually(lambda: asyncio.run(rows(stage, read)), lambda found: len(found) == 2 * len(wanted))
        stored = {
            row["event_id"]: row["data"]
            for row in asyncio.run(rows(stage, "SELECT event_id, data FROM events", of="counters"))
        }
        relayed = {
            UUID(_headers(record)["ce_id"].decode()): record.value
            for record in asyncio.run(whole_topic(stage.scene.bootstrap, stage.scene.topic))
        }
        for part in parts:
            stage.end(part)

    assert len(wanted) == 2 * ALERTS
    assert relayed == stored
    for reader in ("readertoday", "readertocome"):
        assert {row["id"]: row["raw"] for row in got if row["reader"] == reader} == wanted
    assert {row["note"] for row in got if row["reader"] == "readertoday"} == {"unknown here"}
    urgencies = [row["note"] for row in got if row["reader"] == "readertocome"]
    assert (urgencies.count(URGENCY), urgencies.count("")) == (ALERTS, ALERTS)
    assert unknown(stage, "readertoday") == {"fields": ALERTS, "type": ALERTS // 4}
    assert unknown(stage, "readertocome") == {"type": ALERTS // 4}  # it has no handler, and knows it by its pool alone


def unknown(stage: Stage, part: str) -> dict[str, int]:
    """What a part counted of events it did not know, by what was unknown."""
    text = (stage.folder / f"{part}.metrics").read_text()
    pattern = r'^headrace_events_unknown_total\{.*what="(\w+)".*\} ([\d.]+)$'
    return {what: int(float(count)) for what, count in re.findall(pattern, text, re.MULTILINE)}


def _headers(record: LogRecord) -> dict[str, bytes]:
    return dict(record.headers)
