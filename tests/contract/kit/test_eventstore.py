"""What every event store does: the one on PostgreSQL and its twin in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID, uuid4

import pytest
from google.protobuf.wrappers_pb2 import BoolValue, Int64Value, StringValue

from headrace_kit.context import CommandContext
from headrace_kit.errors import AlreadyExists, DeadlineExceeded, Deposed, FailedPrecondition, InvalidArgument, NotFound
from headrace_kit.eventstore import Aggregate, Caused, EventStore, Fence, MemoryEventStore, PostgresEventStore
from headrace_kit.eventtypes import UnknownEventType
from headrace_kit.hlc import physical
from headrace_kit.leaf import leaf_bytes, leaf_hash
from headrace_kit.lease import Leadership
from headrace_kit.sequencer import Sequencer
from tests.support.counters import COUNTER, NOW, SOURCE, TYPES, add, context, stream, whole_log
from tests.support.kit import counter_store


class Subject:
    """A store, and what the suite needs around it."""

    def __init__(
        self, store: EventStore, sequence: Callable[[], Awaitable[None]], lead: Callable[[str], Awaitable[Fence]]
    ) -> None:
        self.store = store
        self.sequence = sequence
        self.lead = lead


@pytest.fixture(params=["memory", "postgres"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "memory":
        yield _in_memory()
        return
    async with counter_store(request.getfixturevalue("database")) as store:
        yield _on_postgres(store)


def _in_memory() -> Subject:
    store = MemoryEventStore(SOURCE, TYPES)

    async def sequence() -> None:
        """Events take their positions at once."""

    async def lead(name: str) -> Fence:
        store.epochs[name] = store.epochs.get(name, 0) + 1
        return Fence(name, store.epochs[name])

    return Subject(store, sequence, lead)


def _on_postgres(store: PostgresEventStore) -> Subject:
    sequencer = Sequencer(store.database, SOURCE)

    async def sequence() -> None:
        fence = await Leadership(store.database, "log", ttl_s=0).take()
        assert fence is not None
        while await sequencer.step(fence) or sequencer.tail_age_s:
            pass

    async def lead(name: str) -> Fence:
        fence = await Leadership(store.database, name, ttl_s=0).take()
        assert fence is not None
        return fence

    return Subject(store, sequence, lead)


async def test_a_stream_is_the_fold_of_its_events(subject: Subject) -> None:
    await add(subject.store, "a", 1, 2)
    answer = await add(subject.store, "a", 4)

    loaded = await subject.store.load(COUNTER, stream("a"))

    assert answer == "7"
    assert loaded == (Int64Value(value=7), 3)
    events = await subject.store.read_stream(stream("a"))
    assert [(each.version, each.message) for each in events] == [
        (1, Int64Value(value=1)),
        (2, Int64Value(value=2)),
        (3, Int64Value(value=4)),
    ]
    assert [each.version for each in await subject.store.read_stream(stream("a"), 3)] == [3]


async def test_there_is_no_stream_before_its_first_event(subject: Subject) -> None:
    assert await subject.store.load(COUNTER, stream("none")) is None
    assert await subject.store.read_stream(stream("none")) == []


async def test_a_repeat_is_answered_as_the_first_time(subject: Subject) -> None:
    command_id = uuid4()
    first = await add(subject.store, "a", 1, command_id=command_id)
    await add(subject.store, "a", 10)

    again = await add(subject.store, "a", 1, command_id=command_id)

    assert (first, again) == ("1", "1")
    assert len(await subject.store.read_stream(stream("a"))) == 2


async def test_repeats_at_the_same_time_write_once(subject: Subject) -> None:
    command_id = uuid4()

    answers = await asyncio.gather(*(add(subject.store, "a", 5, command_id=command_id) for _ in range(8)))

    assert answers == ["5"] * 8
    assert len(await subject.store.read_stream(stream("a"))) == 1


async def test_a_command_id_with_another_request_is_refused(subject: Subject) -> None:
    command_id = uuid4()
    await add(subject.store, "a", 1, command_id=command_id)

    with pytest.raises(AlreadyExists) as refused:
        await add(subject.store, "a", 2, command_id=command_id)

    assert (refused.value.reason, refused.value.field) == ("COMMAND_ID_REUSED", "command_id")


async def test_commands_at_the_same_time_lose_nothing(subject: Subject) -> None:
    await asyncio.gather(*(add(subject.store, number % 3, 1) for number in range(60)))

    loaded = [await subject.store.load(COUNTER, stream(name)) for name in range(3)]

    assert [each and (each[0].value, each[1]) for each in loaded] == [(20, 20)] * 3


async def test_a_refusal_is_not_stored(subject: Subject) -> None:
    command_id = uuid4()

    def refuse(_state: Int64Value | None) -> list[Int64Value]:
        raise FailedPrecondition("no")

    with pytest.raises(FailedPrecondition):
        await subject.store.execute(
            COUNTER,
            stream("a"),
            context=context(command_id),
            request=StringValue(value="other"),
            decide=refuse,
            respond=lambda state: state,
        )

    assert await add(subject.store, "a", 1, command_id=command_id) == "1"


async def test_deciding_nothing_answers_from_the_state_and_stores_nothing(subject: Subject) -> None:
    await add(subject.store, "a", 3)
    command_id = uuid4()

    assert await add(subject.store, "a", command_id=command_id) == "3"
    assert await add(subject.store, "a", 1, command_id=command_id) == "4"


async def test_deciding_nothing_on_no_stream_finds_nothing(subject: Subject) -> None:
    with pytest.raises(NotFound):
        await add(subject.store, "none")


async def test_refuses_ids_that_are_no_resource_names(subject: Subject) -> None:
    for name in ("", "counters/1", "projects//x", "projects/p"):
        with pytest.raises(InvalidArgument):
            await subject.store.execute(
                COUNTER,
                name,
                context=context(),
                request=StringValue(),
                decide=lambda _: [Int64Value(value=1)],
                respond=lambda state: state,
            )


async def test_refuses_events_the_service_does_not_own(subject: Subject) -> None:
    with pytest.raises(UnknownEventType):
        await subject.store.execute(
            Aggregate("counter", Int64Value, lambda state, _: state or Int64Value()),
            stream("a"),
            context=context(),
            request=StringValue(),
            decide=lambda _: [BoolValue(value=True)],
            respond=lambda state: state,
        )

    assert await subject.store.read_stream(stream("a")) == []


async def test_an_effect_is_later_than_its_cause_by_the_logical_clock(subject: Subject) -> None:
    ahead = physical(NOW + timedelta(days=3))
    await add(subject.store, "a", 1, hlc=ahead)
    await add(subject.store, "a", 2)

    clocks = [each.hlc for each in await subject.store.read_stream(stream("a"))]

    assert ahead < clocks[0] < clocks[1]
    with pytest.raises(InvalidArgument):
        await add(subject.store, "a", 3, hlc=physical(NOW + timedelta(days=4000)))


async def test_events_say_who_wrote_them_and_why(subject: Subject) -> None:
    cause, chain = uuid4(), uuid4()
    given = CommandContext(
        command_id=uuid4(),
        actor="services/monitor",
        now=NOW,
        on_behalf_of="persons/operator",
        causation_id=cause,
        correlation_id=chain,
        traceparent="00-aa-bb-01",
        method="/headrace.api.registry.v1.RegistryService/PromoteVersion",
    )
    await subject.store.execute(
        COUNTER,
        stream("a"),
        context=given,
        request=StringValue(),
        decide=lambda _: [Int64Value(value=1)],
        respond=lambda state: state,
    )
    await subject.sequence()

    (entry,) = await whole_log(subject.store)
    event = entry.received()

    assert (event.actor, event.on_behalf_of, event.traceparent) == (
        "services/monitor",
        "persons/operator",
        "00-aa-bb-01",
    )
    assert (event.causation_id, event.correlation_id, event.project) == (cause, chain, "p")
    assert entry.event.origin.method == given.method
    assert (event.id, event.time) == (given.event_id(0), NOW)


async def test_the_log_has_dense_positions_rising_times_and_leaves_that_verify(subject: Subject) -> None:
    for number in range(5):
        await add(subject.store, number % 2, number, number)
        await subject.sequence()

    entries = await whole_log(subject.store)

    assert [each.position for each in entries] == list(range(1, 11))
    assert all(one.sequenced_at < other.sequenced_at for one, other in pairwise(entries))
    for entry in entries:
        event = entry.event
        assert entry.leaf == leaf_hash(
            leaf_bytes(
                source=SOURCE,
                position=entry.position,
                event_id=event.event_id,
                stream_id=event.stream_id,
                version=event.version,
                type=event.type,
                occurred_at=event.occurred_at,
                recorded_at=event.recorded_at,
                sequenced_at=entry.sequenced_at,
                hlc=event.hlc,
                meta=event.meta,
                data=event.data,
            )
        )


async def test_the_log_is_read_in_pages(subject: Subject) -> None:
    await add(subject.store, "a", 1, 2, 3, 4)
    await subject.sequence()

    assert [each.position for each in await subject.store.read_log(2, 2)] == [2, 3]
    assert await subject.store.read_log(5, 10) == []
    assert await subject.store.head() == 4


async def test_the_log_is_read_backwards(subject: Subject) -> None:
    for name in "abc":
        await add(subject.store, name, 1, 2)
    await subject.sequence()

    log = await whole_log(subject.store)

    assert await subject.store.read_log_backwards(6, 100) == log[::-1]
    assert [each.position for each in await subject.store.read_log_backwards(4, 3)] == [4, 3, 2]
    assert await subject.store.read_log_backwards(0, 3) == []


async def test_effects_are_found_by_their_causes_before_they_have_a_position(subject: Subject) -> None:
    first, second = uuid4(), uuid4()
    for name, cause in (("a", first), ("b", second), ("a", second), ("c", None), ("b", first)):
        await subject.store.execute(
            COUNTER,
            stream(name),
            context=replace(context(), causation_id=cause),
            request=StringValue(),
            decide=lambda _: [Int64Value(value=1)],
            respond=lambda state: state,
        )

    found = await subject.store.effects_of([first, second, uuid4()])
    of_first = await subject.store.effects_of([first])

    assert [(each.stream_id, each.version) for each in found] == [
        (stream("a"), 1),
        (stream("b"), 1),
        (stream("a"), 2),
        (stream("b"), 2),
    ]
    assert of_first == [found[0], found[3]]
    assert await subject.store.effects_of([first, second], after=found[0].local_id, limit=2) == found[1:3]
    assert await subject.store.effects_of([uuid4()]) == []


async def test_who_wrote_can_wait_for_the_place_in_the_log(subject: Subject) -> None:
    await add(subject.store, "a", 1, 2)
    await subject.sequence()

    assert await subject.store.position_of(stream("a"), 2) == 2
    assert await subject.store.position_of(stream("a"), 3) is None
    await subject.store.wait_for_position(2, timeout_s=1)
    with pytest.raises(DeadlineExceeded):
        await subject.store.wait_for_position(3, timeout_s=0.02)


async def test_a_moment_has_the_last_position_given_by_then(subject: Subject) -> None:
    assert await subject.store.position_at(datetime.now(UTC)) == 0
    for _ in range(4):
        await add(subject.store, "a", 1, 2)
        await subject.sequence()
    log = await whole_log(subject.store)
    tick = timedelta(microseconds=1)

    for moment in {each.sequenced_at + by for each in log for by in (-tick, timedelta(0), tick)}:
        expected = max((each.position for each in log if each.sequenced_at <= moment), default=0)
        assert await subject.store.position_at(moment) == expected


async def test_a_stale_epoch_writes_nothing(subject: Subject) -> None:
    old = await subject.lead("decider")
    assert await add(subject.store, "a", 1, fence=old) == "1"
    new = await subject.lead("decider")

    with pytest.raises(Deposed):
        await add(subject.store, "a", 2, fence=old)

    assert await add(subject.store, "a", 3, fence=new) == "4"


async def test_event_ids_are_those_the_context_foretold(subject: Subject) -> None:
    command_id: UUID = uuid4()
    given = context(command_id)
    await add(subject.store, "a", 1, 2, command_id=command_id)

    ids = [each.event_id for each in await subject.store.read_stream(stream("a"))]

    assert ids == [given.event_id(0), given.event_id(1)]
    assert [each.version for each in ids] == [7, 7]


async def test_an_event_may_have_a_cause_of_its_own(subject: Subject) -> None:
    given = replace(context(), causation_id=uuid4(), correlation_id=uuid4())
    await subject.store.execute(
        COUNTER,
        stream("a"),
        context=given,
        request=StringValue(),
        decide=lambda _: [
            Int64Value(value=1),
            Caused(Int64Value(value=2), by=given.event_id(0)),
            Caused(Int64Value(value=4), by=given.event_id(1)),
            Int64Value(value=8),
        ],
        respond=lambda state: state,
    )

    written = await subject.store.read_stream(stream("a"))

    causes = [given.causation_id, given.event_id(0), given.event_id(1), given.causation_id]
    assert [each.origin.causation_id for each in written] == causes
    assert {each.origin.correlation_id for each in written} == {given.correlation_id}
    assert [each.hlc for each in written] == sorted({each.hlc for each in written})
    assert await subject.store.load(COUNTER, stream("a")) == (Int64Value(value=15), 4)
