"""A person's rows are erased from archive, store and Kafka; the log says so, and everything else stays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from headrace.api.monitor.v1.resources_pb2 import ERASURE_STATE_DONE, ERASURE_STATE_RUNNING, ArchivedRange
from headrace.api.monitor.v1.service_pb2 import ColumnValue, EraseTelemetryRequest
from headrace.archive.decoding import decoded
from headrace_kit.errors import KitError
from headrace_kit.eventtypes import type_name
from headrace_local.testing import FreshDatabase, Infrastructure
from headrace_monitor.archivestore import ARCHIVED_RANGE
from headrace_monitor.events import EVENT_TYPES
from tests.support.archiving import Archive, Place, Publisher, archive_until_killed, opened, publishing

SECRET = "ada.planted@example.org"


@pytest.fixture
async def place(infrastructure: Infrastructure, database: FreshDatabase) -> Place:
    return await Place.make(infrastructure, database, kind="predictions", max_bytes=700)


@pytest.fixture
async def archive(place: Place) -> AsyncIterator[Archive]:
    async with opened(place) as found:
        yield found


@pytest.fixture
async def publisher(place: Place) -> AsyncIterator[Publisher]:
    async with publishing(place.bootstrap, place.topic) as found:
        yield found


def by_customer(name: str = SECRET) -> EraseTelemetryRequest:
    return EraseTelemetryRequest(where=[ColumnValue(column="customer", value=name)])


async def everything(archive: Archive) -> bytes:
    """All that the archive, its tables and Kafka hold."""
    client, bucket = archive.objects._client, archive.objects._bucket
    found = [client.get_object(bucket, each).data for each in sorted(await archive.keys())]
    found += [each.value or b"" for each in [*await archive.in_kafka(), *await archive.stream()]]
    for table in ("erasures", "erased_predictions", "commands", "events", "streams", "archived_ranges"):
        rows = await archive.database.fetch(f"SELECT t::text FROM {table} t")
        found += [row[0].encode() for row in rows]
    found += [row["data"] for row in await archive.leaves()]
    return b"\0".join(found)


async def ids(archive: Archive, topic: str = "") -> list[str]:
    found: list[str] = []
    for record in await archive.stream():
        batch = decoded(record)
        assert batch is not None
        found += batch.body.ids
    return found


async def test_a_person_s_rows_are_gone_everywhere_and_the_others_stay(archive: Archive, publisher: Publisher) -> None:
    erased = [await publisher.person(SECRET) for _ in range(3)]
    await publisher.person("bob", others=2)
    await archive.archive()
    erased.append(await publisher.person(SECRET))  # still in Kafka alone
    await archive.counted_all()
    before = {each.range: each.root for each in await archive.entries()}

    erasure = await archive.erase(by_customer())

    assert erasure.state == ERASURE_STATE_DONE
    assert erasure.predictions_erased == 4
    row = await archive.database.fetchrow("SELECT request, request_hash FROM erasures")
    assert row is not None
    assert (row["request"], row["request_hash"]) == (None, b"")
    assert await ids(archive) == [each for each in publisher.ids if each not in erased]
    assert SECRET.encode() not in await everything(archive)
    rewritten = await archive.entries("ArchiveRewritten")
    assert sum(each.rows_erased for each in rewritten) == 4
    assert all(before.get(each.range, each.old_root) == each.old_root != each.new_root for each in rewritten)
    assert await archive.keys() == await archive.named_keys()


async def test_a_rebuild_from_the_log_gives_the_same_tables_without_the_person(
    archive: Archive, publisher: Publisher
) -> None:
    erased = [await publisher.person(SECRET) for _ in range(3)]
    await publisher.predictions(2)
    await publisher.labels(erased, archive.labels_topic)
    await archive.archive()
    await archive.counted_all()
    before, old_keys = await log_of(archive), await archive.keys()

    await archive.erase(by_customer())

    after = await log_of(archive)
    assert after[: len(before)] == before
    assert [each["type"] for each in after[len(before) :]].count("headrace.monitor.v1.ArchiveRewritten") > 1
    states, rows = folded(after)
    stored = await archive.database.fetch("SELECT stream_id, state FROM streams")
    assert states == {row[0]: ArchivedRange.FromString(row[1]) for row in stored}
    assert rows == {row["name"]: dict(row) for row in await archive.database.fetch("SELECT * FROM archived_ranges")}
    for range_ in states.values():  # and what it leads to is there, and is what the log says
        assert len(await archive.records(range_)) == range_.records
        assert {each.old_root for each in range_.rewrites}.isdisjoint({range_.root})
    assert old_keys - await archive.keys()
    assert SECRET.encode() not in await everything(archive)


async def log_of(archive: Archive) -> list[dict[str, object]]:
    """Every column of every event, oldest first."""
    return [dict(row) for row in await archive.database.fetch("SELECT * FROM events ORDER BY local_id")]


def folded(log: list[dict[str, object]]) -> tuple[dict[str, ArchivedRange], dict[str, dict[str, object]]]:
    """States and rows by range, from the log and nothing else."""
    types = {type_name(each): each for each in EVENT_TYPES}
    states: dict[str, ArchivedRange] = {}
    rows: dict[str, dict[str, object]] = {}
    for entry in log:
        stream, data = str(entry["stream_id"]), entry["data"]
        assert isinstance(data, bytes)
        event = types[str(entry["type"])].FromString(data)
        states[stream] = ARCHIVED_RANGE.evolve(states.get(stream), event)
        for row in ARCHIVED_RANGE.rows(stream, states[stream], [event]):
            assert row.values is not None
            rows[stream] = {**row.key, **row.values}
    return states, rows


async def test_ranges_without_the_person_stay_byte_for_byte(archive: Archive, publisher: Publisher) -> None:
    await publisher.predictions(4)
    await archive.archive()
    untouched = await archive.ranges(archive.topic, 0, from_offset=0)
    await publisher.person(SECRET)
    await archive.counted_all()

    await archive.erase(by_customer())

    after = await archive.ranges(archive.topic, 0, from_offset=0)
    assert after[: len(untouched)] == untouched
    assert [len(each.rewrites) for each in after][len(untouched) :] == [1]


async def test_labels_and_what_waits_for_them_go_too(archive: Archive, publisher: Publisher) -> None:
    mine = await publisher.person(SECRET)
    other = publisher.ids[-1]
    await publisher.labels([mine, other], archive.labels_topic)
    await archive.database.execute(
        "INSERT INTO watched_endpoints (project, endpoint) VALUES ('default', $1)", publisher.world.endpoint
    )
    for each in (mine, other):
        await archive.database.execute(
            "INSERT INTO waiting_predictions (endpoint_id, key, version_id, start_us, predicted)"
            " SELECT id, $2, 1, 0, '' FROM watched_endpoints WHERE endpoint = $1",
            publisher.world.endpoint,
            bytes.fromhex(each.replace("-", "")),
        )
    await archive.counted_all()

    erasure = await archive.erase(EraseTelemetryRequest(prediction_ids=[mine]))

    assert (erasure.predictions_erased, erasure.labels_erased, erasure.ranges_rewritten) == (1, 1, 2)
    assert await archive.database.fetchval("SELECT count(*) FROM waiting_predictions") == 1
    assert await archive.database.fetchval("SELECT count(*) FROM erased_predictions") == 0
    topics = {each.topic for each in await archive.entries("ArchiveRewritten")}
    assert topics == {archive.topic, archive.labels_topic}


async def test_an_opaque_person_id_in_a_column_is_enough(archive: Archive, publisher: Publisher) -> None:
    await publisher.person("persons/7f3c")
    await archive.counted_all()

    erasure = await archive.erase(EraseTelemetryRequest(person="persons/7f3c"))

    assert erasure.predictions_erased == 1
    [event] = await archive.entries("ArchiveRewritten")
    assert (event.person, event.reason, event.erasure) == ("persons/7f3c", "erasure", erasure.id)
    [archived] = await archive.ranges(archive.topic, 0, from_offset=0)
    assert [(each.old_root, each.person) for each in archived.rewrites] == [(event.old_root, "persons/7f3c")]


async def test_kafka_loses_nothing_that_stage_1_has_not_read(archive: Archive, publisher: Publisher) -> None:
    await publisher.person(SECRET)

    erasure = await archive.erase(by_customer())

    assert erasure.state == ERASURE_STATE_RUNNING
    assert len(await archive.in_kafka()) == 1
    await archive.counted_all()
    await archive.eraser.step(archive.fence)
    assert await archive.in_kafka() == []


async def test_what_comes_after_it_was_asked_for_is_not_meant(archive: Archive, publisher: Publisher) -> None:
    await publisher.predictions(1)
    erasure = await archive.erase(by_customer())
    assert erasure.state == ERASURE_STATE_RUNNING  # its ends stand now
    await publisher.person(SECRET)
    await archive.archive()
    await archive.counted_all()

    await archive.eraser.step(archive.fence)

    assert len(await archive.stream()) == 2


async def test_the_same_command_is_the_same_erasure_and_another_is_refused(archive: Archive) -> None:
    id_ = uuid4()
    request = by_customer()
    assert await archive.erasures.begin(id_, request, asked_by="persons/operator")
    assert await archive.erasures.begin(id_, request, asked_by="persons/operator")
    assert not await archive.erasures.begin(id_, by_customer("x"), asked_by="persons/operator")


async def test_a_range_whose_file_is_damaged_is_not_rewritten(archive: Archive, publisher: Publisher) -> None:
    await publisher.person(SECRET)
    await archive.archive()
    await archive.counted_all()
    [archived] = await archive.ranges(archive.topic, 0, from_offset=0)
    manifest = await archive.manifest(archived)
    await archive.objects.delete(archived.manifest)

    with pytest.raises(KitError):
        await archive.erase(by_customer())

    assert manifest.records == 1
    assert await archive.entries("ArchiveRewritten") == []


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_an_erasure_is_whole_whichever_effect_is_the_last(
    archive: Archive, place: Place, publisher: Publisher
) -> None:
    erased = [await publisher.person(SECRET) for _ in range(3)]
    await publisher.labels(erased, archive.labels_topic)
    await archive.counted_all()
    id_ = uuid4()
    assert await archive.erasures.begin(id_, by_customer(), asked_by="persons/operator")

    statuses = [await archive_until_killed(place, moment, erasing=True) for moment in (*range(1, 16, 1), 1_000_000)]

    assert statuses[-1] == 0
    assert statuses.count(-9) > 8
    erasure = await archive.erasure(id_)
    assert (erasure.state, erasure.predictions_erased, erasure.labels_erased) == (ERASURE_STATE_DONE, 3, 3)
    assert await ids(archive) == [each for each in publisher.ids if each not in erased]
    assert SECRET.encode() not in await everything(archive)
    assert len({each.range for each in await archive.entries("ArchiveRewritten")}) == len(
        await archive.entries("ArchiveRewritten")
    )
