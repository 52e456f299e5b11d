"""Telemetry is archived whole and once, whoever dies when; topic and archive are one stream; Kafka forgets late."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import random
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from headrace.archive.reading import read_stream
from headrace.archive.record import leaf_of
from headrace.errors import InternalError
from headrace.kafka import new_id
from headrace.kafka.reading import TopicReader, delete_records_before
from headrace.merkle import root_over
from headrace_kit.errors import Deposed
from headrace_local.testing import FreshDatabase, Infrastructure
from headrace_monitor.archiving import LEASE
from tests.integration.monitor.test_service import ROWS, running
from tests.integration.monitor.test_service import Publisher as HourlyPublisher
from tests.support.archiving import Archive, Place, Publisher, archive_until_killed, opened, publishing
from tests.support.kit import until
from tests.support.telemetry import World


@pytest.fixture
async def place(infrastructure: Infrastructure, database: FreshDatabase) -> Place:
    return await Place.make(infrastructure, database, kind="predictions", max_bytes=1000)


@pytest.fixture
async def archive(place: Place) -> AsyncIterator[Archive]:
    async with opened(place) as found:
        yield found


@pytest.fixture
async def publisher(place: Place) -> AsyncIterator[Publisher]:
    async with publishing(place.bootstrap, place.topic) as found:
        yield found


async def test_what_is_archived_is_what_kafka_held(archive: Archive, publisher: Publisher) -> None:
    await publisher.predictions(5)
    await publisher.send(b"\xff no batch", headers=[("h", b"v"), ("", b"")])
    held = await archive.in_kafka()

    await archive.archive()

    ranges = await archive.ranges(archive.topic, 0, from_offset=0)
    assert [each for archived in ranges for each in await archive.records(archived)] == held
    assert [each.value for each in held] == publisher.sent
    assert held[-1].headers == (("h", b"v"), ("", b""))
    assert len(ranges) > 1


async def test_a_range_is_an_event_whose_root_is_that_of_its_records(archive: Archive, publisher: Publisher) -> None:
    await publisher.predictions(6)
    held = await archive.in_kafka()

    await archive.archive()

    events = await archive.entries()
    assert [each.root for each in events] == [
        root_over(map(leaf_of, held[each.first_offset : each.last_offset + 1])) for each in events
    ]
    assert [each.first_offset for each in events] == [0, *(each.last_offset + 1 for each in events[:-1])]
    assert events[-1].last_offset == 5
    assert sum(each.rows for each in events) == 6 * 2 * 3


async def test_rows_are_columns_that_other_tools_read(archive: Archive, publisher: Publisher) -> None:
    await publisher.predictions(1)
    await archive.archive()

    [archived] = await archive.ranges(archive.topic, 0, from_offset=0)
    manifest = await archive.manifest(archived)
    frame = pl.read_parquet(io.BytesIO(await archive.file(manifest, 1)))

    assert (manifest.files[1].kind, manifest.files[1].endpoint) == ("rows", publisher.world.endpoint)
    assert frame["prediction_id"].to_list() == [each for each in publisher.ids for _ in range(3)]
    assert frame["row"].to_list() == [0, 1, 2, 0, 1, 2]
    assert frame["input_x"].to_list() == frame["output_y"].to_list() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert frame["time"].dtype == pl.Datetime("us", "UTC")


async def test_labels_are_rows_too(infrastructure: Infrastructure, database: FreshDatabase) -> None:
    place = await Place.make(infrastructure, database, kind="labels", max_bytes=1000)
    async with opened(place) as archive, publishing(place.bootstrap, place.topic) as publisher:
        ids = [new_id(0), new_id(0)]
        await publisher.labels(ids)
        await archive.archive()
        [archived] = await archive.ranges(archive.topic, 0, from_offset=0)
        manifest = await archive.manifest(archived)
        frame = pl.read_parquet(io.BytesIO(await archive.file(manifest, 1)))
        assert frame["prediction_id"].to_list() == ids
        assert frame["label"].to_list() == [1.0, 1.0]
        assert archived.rows == 2


async def test_a_range_is_closed_when_its_first_record_is_old(archive: Archive, publisher: Publisher) -> None:
    await publisher.predictions(1)
    assert await archive.archive(everything=False) == 0

    archive.clock.offset = timedelta(hours=1)

    assert await archive.archive(everything=False) == 1
    await publisher.predictions(1)
    archive.clock.offset = timedelta(hours=1, minutes=30)
    assert await archive.archive(everything=False) == 1


async def test_topic_and_archive_are_one_stream(archive: Archive, publisher: Publisher) -> None:
    await publisher.predictions(7)
    await archive.archive()
    await archive.counted(7)
    archive.clock.offset = timedelta(days=8)
    await archive.archive(everything=False)
    await publisher.predictions(5)

    assert [each.value for each in await archive.stream()] == publisher.sent
    assert [each.value for each in await archive.stream(offset=3, end=9)] == publisher.sent[3:9]
    assert [each.offset for each in await archive.in_kafka()] == [7, 8, 9, 10, 11]


async def test_the_stream_goes_on_when_kafka_drops_what_it_was_about_to_read(
    archive: Archive, publisher: Publisher
) -> None:
    await publisher.predictions(4)

    class Dropping(TopicReader):
        dropped = False

        async def read(self, partition: int, *, offset: int, end: int, max_bytes: int) -> list[object]:  # type: ignore[override]
            if not self.dropped:
                self.dropped = True
                await archive.archive()
                await delete_records_before(archive.bootstrap, archive.topic, {0: 4})
            return await super().read(partition, offset=offset, end=end, max_bytes=max_bytes)  # type: ignore[return-value]

    found = []
    async with Dropping(archive.bootstrap, archive.topic) as reader:
        async for records in read_stream(archive, reader, 0):
            found += [each.value for each in records]
    assert found == publisher.sent


async def test_kafka_keeps_what_is_young_what_is_not_archived_and_what_is_not_counted(
    archive: Archive, publisher: Publisher
) -> None:
    await publisher.predictions(6)
    await archive.archive()
    await archive.counted(6)
    assert len(await archive.in_kafka()) == 6  # young

    archive.clock.offset = timedelta(days=8)
    await archive.counted(2)
    await archive.archive(everything=False)
    assert [each.offset for each in await archive.in_kafka()] == [2, 3, 4, 5]  # not counted

    await publisher.predictions(2)
    await archive.counted(8)
    archive.policy = replace(archive.policy, close_after=timedelta(days=30))
    await archive.archive(everything=False)
    assert [each.offset for each in await archive.in_kafka()] == [6, 7]  # not archived


async def test_a_hole_is_told_and_not_passed_over(archive: Archive, publisher: Publisher) -> None:
    await publisher.predictions(2)
    await archive.archive()
    await publisher.predictions(3)
    await delete_records_before(archive.bootstrap, archive.topic, {0: 4})  # somebody's retention

    with pytest.raises(InternalError, match="offsets 2 to 3"):
        await archive.stream()
    await archive.archive()

    assert [each.lost_offsets for each in await archive.entries()][-1] == 2
    assert [each.value for each in await archive.stream()] == [*publisher.sent[:2], publisher.sent[4]]


async def test_who_lost_the_lease_drops_and_plans_nothing(archive: Archive, publisher: Publisher) -> None:
    await publisher.predictions(1)
    await archive.database.execute("UPDATE leases SET epoch = epoch + 1 WHERE name = $1", LEASE)

    with pytest.raises(Deposed):
        await archive.archive()
    assert await archive.entries() == []


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_every_range_is_archived_once_whichever_effect_is_the_last(place: Place, publisher: Publisher) -> None:
    await publisher.predictions(3)  # a range of two, a range of one
    statuses = []
    for moment in (*range(1, 13), 1000):
        if moment % 4 == 1:
            await publisher.predictions(2)
        statuses.append(await archive_until_killed(place, moment))

    assert statuses[-1] == 0
    assert statuses.count(-9) > 6
    await require_whole(place, publisher)


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_every_range_is_archived_once_however_often_it_is_killed(place: Place, publisher: Publisher) -> None:
    generator = random.Random(7)
    for _ in range(8):
        await publisher.predictions(generator.randrange(1, 5))
        await archive_until_killed(place, generator.randrange(1, 30))
    assert await archive_until_killed(place, 1_000_000) == 0
    await require_whole(place, publisher)


async def require_whole(place: Place, publisher: Publisher) -> None:
    async with opened(place) as archive:
        assert await archive.archive() == 0
        events = await archive.entries()
        assert len({each.first_offset for each in events}) == len(events)
        assert [each.first_offset for each in sorted(events, key=lambda each: each.first_offset)] == [
            0,
            *(each.last_offset + 1 for each in sorted(events, key=lambda each: each.first_offset)[:-1]),
        ]
        assert [each.value for each in await archive.stream()] == publisher.sent
        assert sum(each.records for each in events) == len(publisher.sent)
        assert await archive.keys() == await archive.named_keys()  # begun again, a range gave the same files


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_the_monitor_archives_by_itself_and_the_command_line_reads_all_of_it(
    infrastructure: Infrastructure, database: FreshDatabase, tmp_path: Path
) -> None:
    world = World()
    settings = {"HEADRACE_ARCHIVE_AFTER_S": "0.1", "HEADRACE_ARCHIVE_EVERY_S": "0.1"}
    async with running(infrastructure, database, tmp_path, settings) as service_:
        publisher = HourlyPublisher(service_.telemetry, world)
        await publisher.hour(0)
        await publisher.hour(1)
        environment = {
            **os.environ,
            "HEADRACE_DATA": str(tmp_path),
            "HEADRACE_MONITOR_ADDRESS": service_.environment["HEADRACE_GRPC_LISTEN"],
            "HEADRACE_TOKEN_FILE": service_.environment["HEADRACE_TOKEN_FILE"],
            "HEADRACE_KAFKA_BOOTSTRAP": infrastructure.addresses.kafka_bootstrap,
            "COLUMNS": "200",
        }

        async def headrace(*arguments: str) -> str:
            command = str(Path(sys.executable).with_name("headrace"))
            process = await asyncio.create_subprocess_exec(
                command, *arguments, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            out, errors = await process.communicate()
            assert process.returncode == 0, errors.decode()
            return out.decode()

        async def archived() -> bool:
            partitions = json.loads(await headrace("telemetry", "status", "--json"))
            return sum(int(each.get("rows", 0)) for each in partitions if "predictions" in each["topic"]) >= 2 * ROWS

        await until(archived, within_s=60)
        await publisher.hour(2)
        lines = (await headrace("telemetry", "read", "predictions", "--endpoint", world.endpoint)).splitlines()
        rows = [json.loads(each) for each in lines]
        raw = (await headrace("telemetry", "read", "labels", "--partition", "3", "--raw")).splitlines()

    assert len(rows) == len({each["prediction_id"] for each in rows}) == 3 * ROWS
    assert {each["seq"] for each in rows} == {1, 2, 3}
    assert all(base64.b64decode(json.loads(each)["value"]) for each in raw)
