"""The past of a log: states at every position, with snapshots and without, and the events of a chain."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import cast

import grpc
import pytest
from google.protobuf.wrappers_pb2 import Int64Value

from headrace.api.audit.v1 import service_pb2 as service
from headrace.api.audit.v1.service_pb2_grpc import AuditServiceStub, add_AuditServiceServicer_to_server
from headrace_kit.audit import AuditServicer
from headrace_kit.errors import NotFound
from headrace_kit.eventstore import LogEntry
from headrace_kit.history import History
from headrace_kit.log import MemoryLog
from headrace_kit.logkeeper import LogKeeper
from headrace_kit.testing import serving
from headrace_local.testing import FreshDatabase
from tests.integration.kit_rpc.test_audit import Served, refused
from tests.support.counters import COUNTER, add, evolve, stream, whole_log
from tests.support.kit import counter_store


@pytest.fixture
async def served(database: FreshDatabase) -> AsyncIterator[Served]:
    async with counter_store(database) as store:
        keeper = LogKeeper(store, MemoryLog())
        servicer = AuditServicer(store, keeper, {}, History(store, [COUNTER]))
        async with serving([(add_AuditServiceServicer_to_server, servicer)]) as running:
            yield Served(store, keeper, AuditServiceStub(running.channel()), running)


async def some_history(served: Served, *, seed: int) -> Sequence[LogEntry]:
    chance = random.Random(seed)
    for _ in range(30):
        await add(
            served.store, chance.choice("abc"), *(chance.randrange(-9, 10) for _ in range(chance.randrange(1, 5)))
        )
        if chance.random() < 0.2:
            await served.sequence()
    await served.sequence()
    return await whole_log(served.store)


@pytest.mark.parametrize("snapshot_every", [0, 1, 3, 256])
@pytest.mark.parametrize("seed", [1, 2])
async def test_the_state_at_every_position_is_the_fold_of_the_prefix(
    served: Served, snapshot_every: int, seed: int
) -> None:
    log = await some_history(served, seed=seed)
    history = History(served.store, [COUNTER], snapshot_every=snapshot_every)
    order = [entry.position for entry in log] * 2  # the second time from the snapshots of the first
    random.Random(seed).shuffle(order)
    for position in order:
        for name in "abc":
            prefix = [entry for entry in log[:position] if entry.event.stream_id == stream(name)]
            state: Int64Value | None = None
            for entry in prefix:
                assert entry.event.message is not None
                state = evolve(state, entry.event.message)
            if state is None:
                with pytest.raises(NotFound):
                    await history.state_at(stream(name), position)
                continue
            found = await history.state_at(stream(name), position)
            assert (found.state, found.entry) == (state, prefix[-1])


async def test_snapshots_of_another_revision_are_not_believed(served: Served) -> None:
    await add(served.store, "a", 1, 2, 3)
    await served.sequence()
    await History(served.store, [COUNTER], snapshot_every=1).state_at(stream("a"))
    doubled = replace(COUNTER, revision=2, evolve=lambda state, event: evolve(evolve(state, event), event))
    found = await History(served.store, [doubled], snapshot_every=1).state_at(stream("a"))
    assert cast("Int64Value", found.state).value == 12


async def test_a_time_stands_for_the_prefix_sequenced_by_then(served: Served) -> None:
    for number in (1, 10, 100):
        await add(served.store, "a", number)
        await served.sequence()
    for entry, total in zip(await whole_log(served.store), (1, 11, 111), strict=True):
        request = service.StateAtRequest(stream_id=stream("a"))
        request.time.FromDatetime(entry.sequenced_at)
        found = await served.stub.StateAt(request)
        state = Int64Value()
        assert found.state.Unpack(state)
        assert (state.value, found.entry.position, found.entry.meta.actor) == (
            total,
            entry.position,
            "persons/operator",
        )
    early = service.StateAtRequest(stream_id=stream("a"))
    early.time.FromDatetime(datetime.now(UTC) - timedelta(days=1))
    assert await refused(served.stub.StateAt(early)) == (grpc.StatusCode.NOT_FOUND, "stream_id")


@pytest.mark.parametrize("page_size", [0, 1, 3])
async def test_the_states_after_a_streams_events_come_in_pages(served: Served, page_size: int) -> None:
    await some_history(served, seed=3)
    whole = (await served.stub.ListStates(service.ListStatesRequest(stream_id=stream("a"), page_size=1000))).states
    request = service.ListStatesRequest(stream_id=stream("a"), from_version=3, to_version=9, page_size=page_size)
    found: list[service.StreamState] = []
    while True:
        page = await served.stub.ListStates(request)
        found.extend(page.states)
        request.from_version = page.next_version
        if not page.next_version:
            break

    assert [each.entry.version for each in found] == [3, 4, 5, 6, 7, 8, 9]
    assert found == list(whole)[2:9]
    for each in whole:
        at = service.StateAtRequest(stream_id=stream("a"), position=each.entry.position)
        answer = await served.stub.StateAt(at)
        assert (each.state, each.entry) == (answer.state, answer.entry)


async def test_states_are_listed_of_what_has_a_position(served: Served) -> None:
    await add(served.store, "a", 1, 2)
    await served.sequence()
    await add(served.store, "a", 4)
    answer = await served.stub.ListStates(service.ListStatesRequest(stream_id=stream("a")))
    assert ([each.entry.version for each in answer.states], answer.next_version) == ([1, 2], 0)
    none = await served.stub.ListStates(service.ListStatesRequest(stream_id=stream("a"), from_version=3))
    assert list(none.states) == []


async def test_what_is_asked_wrongly_is_named(served: Served) -> None:
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    ahead = service.StateAtRequest(stream_id=stream("a"), position=9)
    assert await refused(served.stub.StateAt(ahead)) == (invalid, "position")
    assert await refused(served.stub.PositionAt(service.PositionAtRequest())) == (invalid, "time")
