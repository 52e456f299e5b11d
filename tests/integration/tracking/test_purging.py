"""Runs that were put away go for good, on real PostgreSQL; their bytes when nobody needs them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.tracking.v1 import events_pb2 as events
from headrace.api.tracking.v1 import resources_pb2 as resources
from headrace.api.tracking.v1 import service_pb2 as service
from headrace_kit.cloudevents import ReceivedEvent
from headrace_kit.errors import NotFound, Unavailable
from headrace_kit.objects import MemoryObjectStore
from headrace_tracking import domain
from headrace_tracking.claims import Claims
from headrace_tracking.outputs import OutputStore
from headrace_tracking.purging import Freed, Purger
from headrace_tracking.store import RUN, TABLES
from tests.support.tracking import Tracking, context
from tests.unit.workspace.test_schema import FULL

LATER = datetime.now(UTC) + timedelta(days=1)


class Log:
    """The log of another service: some bytes in each event."""

    def __init__(self, *payloads: bytes) -> None:
        self.payloads, self.reads, self.away = list(payloads), 0, False

    async def read(self, from_position: int, limit: int) -> Sequence[ReceivedEvent]:
        if self.away:
            raise Unavailable("nobody there")
        self.reads += 1
        return [
            replace(FULL, position=at, data=data) for at, data in enumerate(self.payloads, 1) if at >= from_position
        ][:limit]


class Purging:
    """A purger and what it works on."""

    def __init__(self, tracking: Tracking, log: Log) -> None:
        self.tracking, self.objects, self.log = tracking, MemoryObjectStore(), log
        claims = Claims(tracking.database, {"registry": log})
        self.purger = Purger(tracking.store, self.objects, claims)

    async def store(self, run: str, content: bytes, path: str = "file") -> ObjectRef:
        reference = await self.objects.put("default", content)
        artifact = resources.Artifact(path=path, object=reference)
        request, command = service.LogArtifactRequest(run=run, artifact=artifact), context()
        await self.tracking.store.execute(
            RUN,
            run,
            context=command,
            request=request,
            decide=lambda state: domain.decide_artifact(state, request, command),
            respond=lambda _: request,
        )
        return reference

    async def delete(self, run: str) -> None:
        request, command = service.DeleteRunRequest(run=run), context()
        await self.tracking.writer.seal(run)
        await self.tracking.store.execute(
            RUN,
            run,
            context=command,
            request=request,
            decide=lambda state: domain.decide_delete(state, run, command),
            respond=lambda _: request,
        )
        self.tracking.writer.forget(run)

    async def purge(self) -> list[str]:
        found = await self.purger.put_away("default", before=LATER, limit=100)
        command = context()
        for each in found:
            await self.purger.purge(each, command)
        return [each.run for each in found]

    async def stored(self, reference: ObjectRef) -> bool:
        return await self.objects.size(reference) is not None


@pytest.fixture
def purging(tracking: Tracking) -> Purging:
    return Purging(tracking, Log())


async def test_nothing_of_a_purged_run_is_left_but_its_events(tracking: Tracking, purging: Purging) -> None:
    run, other = await tracking.start(1, depth="3"), await tracking.start(2)
    for each in (run, other):
        await tracking.log(each, ("loss", 1.0, 0), ("loss", 2.0, 1))
        await OutputStore(tracking.database).append(
            each, [resources.OutputChunk(time_us=1, stream=resources.OUTPUT_STREAM_STDOUT, content=b"12345")]
        )
    reference = await purging.store(run, b"only mine")
    await purging.delete(run)
    assert await purging.purge() == [run]
    assert await purging.purger.free("default") == Freed(1, 9)
    assert not await purging.stored(reference)
    for table in TABLES:
        columns = await tracking.database.fetch(
            "SELECT column_name FROM information_schema.columns WHERE table_name = $1", table.name
        )
        column = {"run", "name"} & {each[0] for each in columns}
        if column and table.name not in ("experiments", "logged_models", "metric_commands"):
            of_run = f"SELECT count(*) FROM {table.name} WHERE {column.pop()} = $1"
            assert (table.name, await tracking.database.fetchval(of_run, run)) == (table.name, 0)
    stored = await tracking.store.read_stream(run)
    assert isinstance(stored[0].message, events.RunStarted)
    purged = stored[-1].message
    assert isinstance(purged, events.RunPurged)
    assert (purged.point_count, purged.output_bytes, list(purged.objects)) == (2, 5, [reference])
    assert await tracking.search("") == ["run 2"]
    with pytest.raises(NotFound):
        await tracking.log(run, ("loss", 1.0, 2))
    loaded = await tracking.store.load(RUN, run)
    assert loaded is not None
    with pytest.raises(NotFound):
        domain.decide_restore(loaded[0], run, context())
    assert await tracking.search("metric.loss >= 0") == ["run 2"]
    assert (await tracking.runs.series(other, "loss")).values == [1.0, 2.0]


async def test_a_run_in_use_stays_and_so_does_one_put_away_later(tracking: Tracking, purging: Purging) -> None:
    await tracking.start(1)
    run = await tracking.start(2)
    await purging.delete(run)
    soon = datetime.now(UTC) - timedelta(hours=1)
    assert await purging.purger.put_away("default", before=soon, limit=10) == []
    assert await purging.purger.put_away("other", before=LATER, limit=10) == []
    [found] = await purging.purger.put_away("default", before=LATER, limit=10)
    request, command = service.RestoreRunRequest(run=run), context()
    await tracking.store.execute(
        RUN,
        run,
        context=command,
        request=request,
        decide=lambda state: domain.decide_restore(state, run, command),
        respond=lambda _: request,
    )
    await purging.purger.purge(found, context())
    assert await tracking.search("", "start_time asc") == ["run 1", "run 2"]


async def test_a_run_stays_while_others_were_forked_from_it(tracking: Tracking, purging: Purging) -> None:
    first = await tracking.start(1)
    await tracking.log(first, ("loss", 1.0, 0))
    second = await tracking.start(2, fork_from=first, at_step=0)
    await purging.delete(first)
    assert await purging.purge() == []
    assert await purging.purger.kept("default", before=LATER) == 1
    await purging.delete(second)
    assert await purging.purge() == [second]
    assert await purging.purge() == [first]


async def test_bytes_that_somebody_needs_stay(tracking: Tracking, purging: Purging) -> None:
    run, other = await tracking.start(1), await tracking.start(2)
    shared = await purging.store(run, b"of two runs", "shared")
    await purging.store(other, b"of two runs")
    claimed = await purging.store(run, b"a model version", "model")
    purging.log.payloads = [b"\x0a\x03abc", b"\x12\x40" + claimed.sha256.encode() + b"\x1a"]
    own = await purging.store(run, b"own", "own")
    replaced = await purging.store(run, b"a longer one", "own")
    await purging.delete(run)
    await purging.purge()
    assert await purging.purger.free("default") == Freed(2, 3 + 12)
    assert [await purging.stored(each) for each in (shared, claimed, own, replaced)] == [True, True, False, False]
    reads = purging.log.reads
    assert await purging.purger.free("default") == Freed()
    assert purging.log.reads == reads


async def test_bytes_wait_for_a_service_that_is_away_and_are_freed_by_the_next_call(
    tracking: Tracking, purging: Purging
) -> None:
    run = await tracking.start(1)
    reference = await purging.store(run, b"own")
    await purging.delete(run)
    await purging.purge()
    purging.log.away = True
    assert await purging.purger.free("default") == Freed(0, 0, 1, "registry: nobody there")
    assert await purging.stored(reference)
    purging.log.away = False
    assert await purging.purger.free("default") == Freed(1, 3)


async def test_bytes_that_are_about_to_be_referred_to_are_kept(tracking: Tracking, purging: Purging) -> None:
    run, other = await tracking.start(1), await tracking.start(2)
    reference = await purging.store(run, b"the same again")
    await purging.delete(run)
    await purging.purge()
    await purging.purger.keep(reference.uri)
    assert await purging.purger.free("default") == Freed()
    assert await purging.store(other, b"the same again") == reference
    assert await purging.stored(reference)


async def test_two_calls_at_once_purge_and_free_once(tracking: Tracking, purging: Purging) -> None:
    runs = [await tracking.start(number) for number in range(5)]
    for number, run in enumerate(runs):
        await purging.store(run, b"content %d" % number)
        await purging.delete(run)
    await asyncio.gather(purging.purge(), purging.purge())
    freed = await asyncio.gather(purging.purger.free("default"), purging.purger.free("default"))
    assert sum(each.objects for each in freed) == 5
    for run in runs:
        stored = await tracking.store.read_stream(run)
        assert len([each for each in stored if isinstance(each.message, events.RunPurged)]) == 1
