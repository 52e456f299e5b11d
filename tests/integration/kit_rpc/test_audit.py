"""The log's own service, on a real database and over real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from headrace.api.audit.v1 import service_pb2 as service
from headrace.api.audit.v1.service_pb2_grpc import AuditServiceStub, add_AuditServiceServicer_to_server
from headrace.errors import error_details
from headrace_kit import audit
from headrace_kit.audit import AuditServicer, RemoteLogReader
from headrace_kit.consumer.parking import Parking
from headrace_kit.errors import Unavailable
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.lease import Fence
from headrace_kit.log import MemoryLog, OutgoingRecord, TopicPartition
from headrace_kit.logkeeper import LogKeeper
from headrace_kit.postgres import connected
from headrace_kit.testing import RunningServer, serving
from headrace_local.testing import FreshDatabase
from tests.support.counters import COUNTER, SOURCE, TOPIC, add, context, stream
from tests.support.kit import counter_store, until


@dataclass
class Served:
    store: PostgresEventStore
    keeper: LogKeeper
    stub: Any
    running: RunningServer
    fence: Fence | None = None

    async def sequence(self) -> None:
        """Gives everything that was committed its position."""
        self.fence = self.fence or await self.keeper.leadership.take()
        assert self.fence is not None
        fence = self.fence

        async def done() -> bool:
            await self.keeper.sequencer.step(fence)
            return not self.keeper.sequencer.tail_age_s

        await until(done)


@pytest.fixture
async def served(database: FreshDatabase) -> AsyncIterator[Served]:
    async with counter_store(database) as store:
        keeper = LogKeeper(store, MemoryLog())
        servicer = AuditServicer(store, keeper, {})
        async with serving([(add_AuditServiceServicer_to_server, servicer)]) as running:
            yield Served(store, keeper, AuditServiceStub(running.channel()), running)


async def refused(call: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), error_details(caught.value)[1].field


async def test_pages_of_the_log_join_without_holes(served: Served) -> None:
    for name in "abc":
        await add(served.store, name, *range(1, 8))
    await served.sequence()
    positions: list[int] = []
    following, end = 0, False
    while not end:
        page = await served.stub.ReadLog(service.ReadLogRequest(from_position=following, page_size=4))
        positions += [entry.position for entry in page.entries]
        following, end = page.next_position, page.end_of_log
    assert positions == list(range(1, 22))


async def test_a_filter_passes_over_what_it_leaves_out(served: Served) -> None:
    for name in ("a", "b", "a"):
        await add(served.store, name, 1, 2)
    await served.sequence()
    page = await served.stub.ReadLog(service.ReadLogRequest(stream_prefix=stream("b"), page_size=1))
    assert [(entry.stream_id, entry.version, entry.position) for entry in page.entries] == [(stream("b"), 1, 3)]
    assert (page.next_position, page.end_of_log) == (4, False)
    none = await served.stub.ReadLog(service.ReadLogRequest(types=["headrace.registry.v1.VersionPromoted"]))
    assert (list(none.entries), none.end_of_log, none.next_position) == ([], True, 7)


async def test_an_answer_has_a_limit_in_bytes_and_always_goes_on(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "MAX_ANSWER_BYTES", 1)
    await add(served.store, "a", 1, 2, 3)
    await served.sequence()
    page = await served.stub.ReadLog(service.ReadLogRequest())
    assert ([each.position for each in page.entries], page.next_position, page.end_of_log) == ([1], 2, False)
    part = await served.stub.ReadStream(service.ReadStreamRequest(stream_id=stream("a"), from_version=2))
    assert ([each.version for each in part.entries], part.next_version) == ([2], 3)
    follower = served.stub.FollowLog(service.FollowLogRequest())
    assert [(await follower.read()).entries[0].position for _ in range(3)] == [1, 2, 3]


async def test_a_follower_sees_the_past_and_what_comes(served: Served) -> None:
    await add(served.store, "a", 1)
    await served.sequence()
    whole = served.stub.FollowLog(service.FollowLogRequest())
    fresh = served.stub.FollowLog(service.FollowLogRequest(from_position=-1))
    assert [each.position for each in (await whole.read()).entries] == [1]
    waiting = asyncio.ensure_future(fresh.read())
    while not waiting.done():  # it may begin to follow after the first of these
        await add(served.store, "b", 1)
        await served.sequence()
        await asyncio.sleep(0.02)
    first = (await waiting).entries[0]
    assert (first.stream_id, first.position > 1) == (stream("b"), True)
    assert (await whole.read()).entries[0].position == 2


async def test_the_log_is_read_from_a_moment_on(served: Served) -> None:
    for number in range(1, 8):
        await add(served.store, "a", number, number)
        await served.sequence()
    log = await served.store.read_log(1, 100)
    for entry in log:
        request = service.ReadLogRequest(page_size=1)
        request.from_time.FromDatetime(entry.sequenced_at)
        assert (await served.stub.ReadLog(request)).entries[0].position == entry.position
    follow = service.FollowLogRequest(from_position=3)
    follow.from_time.FromDatetime(log[-1].sequenced_at)
    assert (await served.stub.FollowLog(follow).read()).entries[0].position == 14
    late = service.ReadLogRequest()
    late.from_time.FromDatetime(log[-1].sequenced_at + timedelta(microseconds=1))
    answer = await served.stub.ReadLog(late)
    assert (list(answer.entries), answer.next_position, answer.end_of_log) == ([], 15, True)


async def test_the_log_is_read_from_its_end_down(served: Served) -> None:
    for name in ("a", "b", "a", "b"):
        await add(served.store, name, 1, 2)
        await served.sequence()
    found: list[int] = []
    request = service.ReadLogRequest(stream_prefix=stream("a"), page_size=3, backwards=True)
    while True:
        page = await served.stub.ReadLog(request)
        found += [each.position for each in page.entries]
        if page.end_of_log:
            break
        request.from_position = page.next_position
    assert (found, page.next_position) == ([6, 5, 2, 1], 0)
    since = service.ReadLogRequest(backwards=True)
    entries = await served.store.read_log(1, 100)
    moment = entries[3].sequenced_at
    since.from_time.FromDatetime(moment)
    page = await served.stub.ReadLog(since)
    wanted = [each.position for each in reversed(entries) if each.sequenced_at >= moment]
    assert wanted == [8, 7, 6, 5, 4]
    assert ([each.position for each in page.entries], page.end_of_log) == (wanted, True)
    page = await served.stub.ReadLog(service.ReadLogRequest(backwards=True, from_position=99, page_size=1))
    assert ([each.position for each in page.entries], page.next_position) == ([8], 7)


async def test_a_log_with_holes_is_read_both_ways_without_repeats(served: Served, database: FreshDatabase) -> None:
    await add(served.store, "a", *range(1, 13))
    await served.sequence()
    async with connected(database.migration_dsn) as owner:
        await owner.execute("DELETE FROM log_entries WHERE position IN (1, 4, 5, 9)")
    left = [2, 3, 6, 7, 8, 10, 11, 12]
    for backwards, expected in ((False, left), (True, left[::-1])):
        found: list[int] = []
        request = service.ReadLogRequest(page_size=2, backwards=backwards)
        while True:
            page = await served.stub.ReadLog(request)
            found += [each.position for each in page.entries]
            if page.end_of_log:
                break
            request.from_position = page.next_position
        assert found == expected
    follower = served.stub.FollowLog(service.FollowLogRequest(from_position=3))
    assert [each.position for each in (await follower.read()).entries] == left[1:]


async def test_an_empty_log_read_backwards_has_ended(served: Served) -> None:
    page = await served.stub.ReadLog(service.ReadLogRequest(backwards=True))
    assert (list(page.entries), page.next_position, page.end_of_log) == ([], 0, True)


async def caused(store: PostgresEventStore, name: str, cause: UUID, count: int = 1) -> None:
    await store.execute(
        COUNTER,
        stream(name),
        context=replace(context(), causation_id=cause),
        request=StringValue(),
        decide=lambda _: [Int64Value(value=1)] * count,
        respond=lambda state: state,
    )


async def test_effects_are_listed_in_pages_with_their_places(served: Served) -> None:
    first, second = uuid4(), uuid4()
    await caused(served.store, "a", first, 3)
    await served.sequence()
    await caused(served.store, "b", second, 2)
    await add(served.store, "a", 1)
    request = service.ListEffectsRequest(event_ids=[str(first), str(second)], page_size=2)
    found: list[tuple[str, int, int]] = []
    while True:
        page = await served.stub.ListEffects(request)
        assert not page.filling
        found += [(each.stream_id, each.version, each.position) for each in page.entries]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    a, b = stream("a"), stream("b")
    assert found == [(a, 1, 1), (a, 2, 2), (a, 3, 3), (b, 1, 0), (b, 2, 0)]


async def test_what_the_index_says_is_held_to_what_the_event_says(served: Served, database: FreshDatabase) -> None:
    cause, claimed = uuid4(), uuid4()
    await caused(served.store, "a", cause)
    async with connected(database.migration_dsn) as owner:
        await owner.execute("UPDATE events SET causation_id = $1", claimed)
    answer = await served.stub.ListEffects(service.ListEffectsRequest(event_ids=[str(claimed)]))
    assert list(answer.entries) == []


async def test_consumers_are_listed_with_where_they_stand(served: Served) -> None:
    log = served.keeper.log
    assert isinstance(log, MemoryLog)
    log.create(TOPIC, 1)
    log.store(TopicPartition(TOPIC, 0), [OutgoingRecord(b"k", b"v")] * 9)
    async with served.store.database.transaction() as connection:
        await connection.execute(
            "INSERT INTO consumer_offsets (consumer, topic, partition, next_offset, generation) "
            "VALUES ('x.one', $1, 0, 4, 1), ('x.one', 'headrace.telemetry.predictions.v1', 1, NULL, 1)",
            TOPIC,
        )
        await connection.execute(
            "INSERT INTO consumer_positions (consumer, source, partition, position) VALUES ('x.one', $1, 0, 17)", SOURCE
        )
        await connection.execute(
            "INSERT INTO parked_events VALUES ('x.one', $1, 's', 3, 1, '[]', '', 'bad', 1), "
            "('x.one', $1, 's', 4, 2, '[]', '', '', 0), ('x.two', $1, 's', 3, 1, '[]', '', 'bad', 1)",
            SOURCE,
        )

    one, two = (await served.stub.ListConsumers(service.ListConsumersRequest())).consumers

    events, telemetry = one.partitions
    assert (events.topic, events.partition, events.next_offset, events.end_offset) == (TOPIC, 0, 4, 9)
    assert (events.source, events.position) == (SOURCE, 17)
    assert not telemetry.HasField("next_offset")
    assert (telemetry.source, telemetry.position) == ("", 0)
    assert (one.consumer, one.parked_streams, one.parked_events) == ("x.one", 1, 2)
    assert (two.consumer, list(two.partitions), two.parked_streams, two.parked_events) == ("x.two", [], 1, 1)
    log.available = False
    one, _ = (await served.stub.ListConsumers(service.ListConsumersRequest())).consumers
    assert (one.partitions[0].next_offset, one.partitions[0].HasField("end_offset")) == (4, False)


async def test_a_stream_is_read_before_it_is_sequenced(served: Served) -> None:
    await add(served.store, "a", 5)
    await served.sequence()
    await add(served.store, "a", 6)
    answer = await served.stub.ReadStream(service.ReadStreamRequest(stream_id=stream("a")))
    assert [(each.version, each.position, len(each.leaf)) for each in answer.entries] == [(1, 1, 32), (2, 0, 0)]
    assert answer.next_version == 0
    event = await served.stub.GetEvent(service.GetEventRequest(event_id=answer.entries[0].event_id))
    assert event.entry == answer.entries[0]
    assert (event.entry.meta.actor, event.entry.source) == ("persons/operator", SOURCE)


async def test_the_status_says_how_far_the_log_has_come(served: Served) -> None:
    await add(served.store, "a", 1, 2)
    await served.sequence()
    status = await served.stub.GetLogStatus(service.GetLogStatusRequest())
    assert (status.last_position, status.relayed_position, status.source) == (2, 0, SOURCE)


async def test_the_owner_of_a_log_is_read_by_others(served: Served) -> None:
    await add(served.store, "a", 1, 2, 3)
    await served.sequence()
    reader = RemoteLogReader(served.running.channel())
    expected = [replace(entry.received(), message=None) for entry in await served.store.read_log(2, 10)]
    assert [each.position for each in expected] == [2, 3]
    assert await reader.read(2, 10) == expected
    assert list(await reader.read(4, 10)) == []
    await served.running.server.drain(0)
    with pytest.raises(Unavailable):
        await reader.read(1, 10)


@pytest.mark.parametrize(
    ("method", "request_", "code", "field"),
    [
        ("ReadLog", service.ReadLogRequest(from_position=-1), "INVALID_ARGUMENT", "from_position"),
        ("ReadLog", service.ReadLogRequest(from_time=Timestamp(seconds=1 << 40)), "INVALID_ARGUMENT", "from_time"),
        ("ReadLog", service.ReadLogRequest(page_size=1001), "INVALID_ARGUMENT", "page_size"),
        ("ReadLog", service.ReadLogRequest(stream_prefix="x" * 501), "INVALID_ARGUMENT", "stream_prefix"),
        ("ReadLog", service.ReadLogRequest(types=["x"] * 101), "INVALID_ARGUMENT", "types"),
        ("ReadStream", service.ReadStreamRequest(), "INVALID_ARGUMENT", "stream_id"),
        ("ReadStream", service.ReadStreamRequest(stream_id="'; DROP TABLE events --"), "NOT_FOUND", "stream_id"),
        ("ReadStream", service.ReadStreamRequest(stream_id="a", from_version=-1), "INVALID_ARGUMENT", "from_version"),
        ("ListEffects", service.ListEffectsRequest(), "INVALID_ARGUMENT", "event_ids"),
        ("ListEffects", service.ListEffectsRequest(event_ids=["x"]), "INVALID_ARGUMENT", "event_ids[0]"),
        ("ListEffects", service.ListEffectsRequest(event_ids=[str(uuid4())] * 101), "INVALID_ARGUMENT", "event_ids"),
        (
            "ListEffects",
            service.ListEffectsRequest(event_ids=[str(uuid4())], page_token="x"),
            "INVALID_ARGUMENT",
            "page_token",
        ),
        ("ListStates", service.ListStatesRequest(), "INVALID_ARGUMENT", "stream_id"),
        ("ListStates", service.ListStatesRequest(stream_id="a", from_version=-1), "INVALID_ARGUMENT", "from_version"),
        ("ListStates", service.ListStatesRequest(stream_id="none"), "NOT_FOUND", "stream_id"),
        ("GetEvent", service.GetEventRequest(event_id="x"), "INVALID_ARGUMENT", "event_id"),
        ("GetEvent", service.GetEventRequest(event_id=str(uuid4())), "NOT_FOUND", "event_id"),
        ("ListParked", service.ListParkedRequest(page_size=-1), "INVALID_ARGUMENT", "page_size"),
        ("ListParked", service.ListParkedRequest(page_token="x"), "INVALID_ARGUMENT", "page_token"),
        ("RedriveParked", service.RedriveParkedRequest(), "INVALID_ARGUMENT", "command_id"),
        (
            "RedriveParked",
            service.RedriveParkedRequest(command_id=str(uuid4()), stream_id="a", consumer="x"),
            "NOT_FOUND",
            "consumer",
        ),
    ],
)
async def test_what_can_not_be_answered_is_refused_by_name(
    served: Served, method: str, request_: object, code: str, field: str
) -> None:
    found, named = await refused(getattr(served.stub, method)(request_))
    assert (found.name, named) == (code, field)


async def test_parked_events_come_in_pages_and_each_once(served: Served) -> None:
    await add(served.store, "a", *range(9, 12))
    await served.sequence()
    events = [entry.received() for entry in await served.store.read_log(1, 10)]
    consumers = ("registry.rollback", "serving.follow")
    async with served.store.database.transaction() as connection:
        for consumer in consumers:
            for event in events:
                cause = f"{consumer} {event.position}"
                await Parking(served.store.database, consumer).park(connection, event, cause=cause, attempts=1)

    request, found = service.ListParkedRequest(page_size=2), [""]
    while True:
        page = await served.stub.ListParked(request)
        found += [each.cause for each in page.parked]
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break

    assert found[1:] == [f"{consumer} {event.position}" for consumer in consumers for event in events]
