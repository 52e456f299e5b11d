"""Writers, repeats, crashes of the relay, rebalances: in whatever order, nothing is lost, doubled or reordered."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid5

import pytest
from google.protobuf.wrappers_pb2 import Int64Value
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace_kit.cloudevents import ReceivedEvent, from_headers
from headrace_kit.consumer import LogReader, ProjectionConsumer, StoreLogReader
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.lease import Fence, Leadership
from headrace_kit.log import (
    QUARANTINE,
    LogConsumer,
    LogUnavailable,
    MemoryLog,
    OutgoingRecord,
    TopicPartition,
)
from headrace_kit.postgres import Connection, Database, connected
from headrace_kit.relay import Relay
from headrace_kit.sequencer import Sequencer
from headrace_local.testing import FreshDatabase
from tests.support.counters import SOURCE, TOPIC, TYPES, add, number, stream, whole_log
from tests.support.kit import pooled, prepare

PARTITIONS = 3
NAMESPACE = UUID("0c5f2f3e-0000-4000-8000-000000000000")

EMPTY = """
TRUNCATE commands, events, streams, log_entries, leases, points, consumer_offsets, consumer_positions, consumer_streams,
    parked_streams, parked_events;
UPDATE sequencer_state SET position = 0, window_low = '0', window_high = '0', local_id = 0;
UPDATE relay_state SET position = 0;
"""


@dataclass(frozen=True)
class Write:
    """Commands given at the same time, (command, stream, how many events), while the sequencer takes some steps."""

    commands: tuple[tuple[int, int, int], ...]
    steps: int


@dataclass(frozen=True)
class Do:
    """One move of one part."""

    what: str
    which: int = 0


writes = st.builds(
    Write,
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3), st.integers(1, 3)), min_size=1, max_size=6).map(tuple),
    st.integers(0, 3),
)
moves = st.builds(
    Do,
    st.sampled_from(
        [
            "sequence",
            "sequence",
            "relay",
            "relay",
            "relay loses the answer",
            "join",
            "consume",
            "consume",
            "forget",
            "leave",
        ]
    ),
    st.integers(0, 3),
)
plans = st.lists(writes | moves, min_size=5, max_size=40)


class LosesTheAnswer:
    """Stores some partitions' batches and then fails, as a broker that dies half-way."""

    def __init__(self, log: MemoryLog, stored: int) -> None:
        self._log = log
        self._stored = stored

    async def partitions(self, topic: str) -> int:
        return self._log.count(topic)

    async def append(self, topic: str, records: Mapping[int, Sequence[OutgoingRecord]]) -> Mapping[int, int]:
        for lane in sorted(records)[: self._stored]:
            self._log.store(TopicPartition(topic, lane), records[lane])
        raise LogUnavailable("no answer")

    async def close(self) -> None:
        """Nothing to let go of."""


class Platform:
    """One owner and the members of one projection."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.store = PostgresEventStore(database, SOURCE, TYPES)
        self.sequencer = Sequencer(database, SOURCE, batch=4)
        self.log = MemoryLog(batch_limit=3)
        self.log.create(TOPIC, PARTITIONS)
        self.log.create(QUARANTINE, 1)
        self.relay = Relay(self.store, self.log, batch=8)
        self.members: list[tuple[ProjectionConsumer, LogConsumer]] = []
        self.given: dict[int, tuple[int, int]] = {}

    async def fence(self) -> Fence:
        fence = await Leadership(self.database, "log", ttl_s=0).take()
        assert fence is not None
        return fence

    async def write(self, write: Write) -> None:
        """The first use of a command id decides what it says; later ones repeat it."""
        said = [self.given.setdefault(command, (name, count)) for command, name, count in write.commands]
        pairs = zip(write.commands, said, strict=True)
        commands = [self._command(command, *what) for (command, _, _), what in pairs]
        await asyncio.gather(*commands, self._sequence(write.steps))

    async def _sequence(self, steps: int) -> None:
        fence = await self.fence()
        for _ in range(steps):
            await self.sequencer.step(fence)

    async def _command(self, command: int, name: int, count: int) -> None:
        values = (command * 100 + index for index in range(count))
        await add(self.store, name, *values, command_id=uuid5(NAMESPACE, str(command)))

    async def do(self, move: Do) -> None:
        match move.what:
            case "sequence":
                await self.sequencer.step(await self.fence())
            case "relay":
                await self.relay.step(await self.log.open_producer(), await self.fence())
            case "relay loses the answer":
                with pytest.raises(LogUnavailable):
                    await self._crash(move.which)
            case "join":
                self.members.append((self._consumer(), await self.log.open_consumer([TOPIC], group="fold")))
            case "consume" if self.members:
                consumer, client = self.members[move.which % len(self.members)]
                await consumer.step(client, timeout_s=0)
            case "forget":
                self.log.forget("fold")
            case "leave" if self.members:
                _, client = self.members.pop(move.which % len(self.members))
                await client.close()
            case _:
                pass

    async def _crash(self, stored: int) -> None:
        if not await self.relay.step(LosesTheAnswer(self.log, stored), await self.fence()):
            raise LogUnavailable("there was nothing to publish")

    def _consumer(self) -> ProjectionConsumer:
        async def fold(event: ReceivedEvent, connection: Connection) -> None:
            await connection.execute("INSERT INTO points (name, value) VALUES ($1, $2)", event.subject, number(event))

        readers: dict[str, LogReader] = {SOURCE: StoreLogReader(self.store)}
        return ProjectionConsumer("fold", [TOPIC], {Int64Value: fold}, self.database, self.log, readers=readers)

    async def drain(self) -> None:
        """Everything that is under way arrives."""
        fence = await self.fence()
        while await self.sequencer.step(fence) or self.sequencer.tail_age_s:
            pass
        producer = await self.log.open_producer()
        while self.relay.position < await self.store.head():
            await self.relay.step(producer, fence)
        self.log.forget("fold")
        consumer, client = self._consumer(), await self.log.open_consumer([TOPIC], group="fold")
        while await consumer.step(client, timeout_s=0):
            pass


async def play(database: FreshDatabase, plan: list[Write | Do]) -> None:
    async with connected(database.migration_dsn) as connection:
        await connection.execute(EMPTY)
    async with pooled(database, max_size=6) as pool:
        platform = Platform(pool)
        for each in plan:
            await (platform.write(each) if isinstance(each, Write) else platform.do(each))
        await platform.drain()
        await check(platform)


async def check(platform: Platform) -> None:
    entries = await whole_log(platform.store)
    events = [each.received() for each in entries]
    written = [
        (name, command * 100 + index) for command, (name, count) in platform.given.items() for index in range(count)
    ]

    assert [each.position for each in entries] == list(range(1, len(written) + 1))
    assert sorted((each.subject, number(each)) for each in events) == sorted(
        (stream(name), value) for name, value in written
    )
    for name in range(4):
        of_stream = [each for each in events if each.subject == stream(name)]
        assert [each.sequence for each in of_stream] == list(range(1, len(of_stream) + 1))
        rows = await platform.database.fetch("SELECT value FROM points WHERE name = $1 ORDER BY arrived", stream(name))
        assert [row["value"] for row in rows] == [number(each) for each in of_stream]
    for lane in range(PARTITIONS):
        published = [each for each in platform.log.records(TOPIC) if each.partition == lane]
        assert_contiguous_repeats([from_headers(each.headers, each.value)[0].position for each in published])


def assert_contiguous_repeats(positions: list[int]) -> None:
    """A partition may go back, but then brings everything from there again, in order."""
    whole = sorted(set(positions))
    highest = -1
    for position in positions:
        place = whole.index(position)
        assert place <= highest + 1
        highest = max(highest, place)


def test_every_interleaving_folds_to_the_log(database: FreshDatabase) -> None:
    asyncio.run(prepare(database))

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(plans)
    def run(plan: list[Write | Do]) -> None:
        asyncio.run(play(database, plan))

    run()
