"""The monitor's read models made anew: alerts its state has long forgotten, and what it knows of the registry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import StringValue

from headrace.api.monitor.v1 import events_pb2 as events
from headrace.api.monitor.v1.resources_pb2 import ALERT_KIND_INPUT_DRIFT, Alert, MonitorConfig
from headrace.api.registry.v1 import events_pb2 as registry
from headrace.api.registry.v1.resources_pb2 import Model, Promotion, Version
from headrace_kit.consumer import ProjectionConsumer, ProjectionHandler, StoreLogReader
from headrace_kit.context import CommandContext
from headrace_kit.eventstore import Aggregate, MemoryEventStore, PostgresEventStore
from headrace_kit.eventtypes import EventTypes
from headrace_kit.log import QUARANTINE, MemoryLog, events_topic
from headrace_kit.postgres import Database, create_pool, migrate
from headrace_kit.rebuild import Comparison, Projection, Rebuild, Report
from headrace_local.testing import FreshDatabase
from headrace_monitor.domain import MAX_RECENT_ALERTS
from headrace_monitor.events import EVENT_TYPES
from headrace_monitor.handlers import note_alias, note_version
from headrace_monitor.store import MONITOR, REGISTRY_TABLES
from tests.support.kit import until

NAME = "projects/default/monitors/delays"
MODELS = Aggregate("model", Model, lambda state, _: state or Model())
HANDLERS: Mapping[type[Message], ProjectionHandler] = {
    registry.VersionCreated: note_version,
    registry.VersionPromoted: note_alias,
    registry.VersionRolledBack: note_alias,
}
START = datetime(2026, 3, 1, tzinfo=UTC)


class Rig:
    """The monitor's database, the registry's log, and what folds the one into the other."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.store = PostgresEventStore(database, "headrace/monitor", EventTypes(*EVENT_TYPES))
        self.registry = MemoryEventStore("headrace/registry", EventTypes(*HANDLERS))
        self.readers = {"headrace/registry": StoreLogReader(self.registry)}
        self.log = MemoryLog()
        self.log.create(events_topic("headrace/registry"), 3)
        self.log.create(QUARANTINE, 1)
        self.consumer = ProjectionConsumer(
            "monitor.registry",
            [events_topic("headrace/registry")],
            HANDLERS,
            database,
            self.log,
            readers=self.readers,
        )

    async def append(self, *commands: Sequence[Message]) -> None:
        """One command each to the monitor."""
        for command in commands:
            await self.store.execute(
                MONITOR,
                NAME,
                context=CommandContext(uuid4(), "persons/operator", START),
                request=StringValue(value=repr(command)),
                decide=lambda _, command=command: command,  # type: ignore[misc]
                respond=lambda state: StringValue(value=state.name),
            )

    async def tell(self, model: str, *messages: Message) -> None:
        """Events of the registry."""
        await self.registry.execute(
            MODELS,
            f"projects/default/models/{model}",
            context=CommandContext(uuid4(), "persons/operator", START),
            request=StringValue(value=repr(messages)),
            decide=lambda _: messages,
            respond=lambda _: StringValue(),
        )

    async def fold(self) -> None:
        """Reads the registry's log to its end."""
        running = asyncio.create_task(self.consumer.run())

        async def at_the_end() -> bool:
            taken = await self.database.fetchval("SELECT max(position) FROM consumer_positions")
            return (taken or 0) == await self.registry.head()

        await until(at_the_end)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    async def rebuild(self, *, check: bool = False) -> Report:
        projection = Projection("monitor.registry", REGISTRY_TABLES, HANDLERS, self.readers)
        return await Rebuild(self.store, [MONITOR], [projection]).run(check=check)

    async def dumps(self) -> dict[str, tuple[int, bytes]]:
        tables = ("streams", "monitors", "alerts", *REGISTRY_TABLES)
        return {each: await (await Comparison.of(self.database, each)).digest(self.database) for each in tables}


@pytest.fixture
async def rig(database: FreshDatabase) -> AsyncIterator[Rig]:
    await migrate(database.migration_dsn, ["headrace_monitor"], service_dsn=database.service_dsn)
    pool = await create_pool(database.service_dsn)
    try:
        yield Rig(pool)
    finally:
        await pool.close()


def alert(number: int) -> Alert:
    found = Alert(
        name=f"projects/default/alerts/{UUID(int=number)}",
        monitor=NAME,
        endpoint="delays",
        kind=ALERT_KIND_INPUT_DRIFT,
        summary=f"the {number}th",
    )
    found.time.FromDatetime(START + timedelta(hours=number))
    found.slot.FromDatetime(START + timedelta(hours=number))
    return found


def created(number: int, model: str) -> registry.VersionCreated:
    version = Version(name=f"projects/default/models/{model}/versions/{number}", number=number)
    if number % 2:
        version.reference_profile.sha256 = "a" * 64
    return registry.VersionCreated(model=f"projects/default/models/{model}", version=version)


def promoted(number: int, model: str, *, revision: int) -> registry.VersionPromoted:
    promotion = Promotion(alias="production", revision=revision, previous_version=number - 1)
    version = f"projects/default/models/{model}/versions/{number}"
    return registry.VersionPromoted(version=version, promotion=promotion)


async def test_alerts_that_the_state_forgot_come_out_the_same(rig: Rig) -> None:
    start = events.MonitorCreated(monitor=NAME, endpoint="delays", creator="persons/operator", config=MonitorConfig())
    start.time.FromDatetime(START)
    await rig.append([start])
    for number in range(MAX_RECENT_ALERTS + 20):
        await rig.append([events.AlertRaised(alert=alert(number))])
        if number % 3 == 0:
            await rig.append([events.AlertAcknowledged(alert=alert(number).name, actor="persons/operator")])
    await rig.append([events.MonitorPaused(monitor=NAME, paused=True), events.AlertRaised(alert=alert(1000))])
    before = await rig.dumps()
    assert before["alerts"][0] == MAX_RECENT_ALERTS + 21

    report = await rig.rebuild()

    assert [each for table in report.tables for each in table.differences] == []
    assert await rig.dumps() == before


async def test_what_the_registry_told_comes_out_as_far_as_it_was_taken(rig: Rig) -> None:
    for number in range(1, 8):
        await rig.tell("a", created(number, "a"), promoted(number, "a", revision=number))
        await rig.tell("b", created(number, "b"))
    await rig.tell("b", promoted(3, "b", revision=2), promoted(1, "b", revision=1))  # the older one comes late
    await rig.fold()
    before = await rig.dumps()
    assert (before["versions"][0], before["aliases"][0]) == (14, 2)
    await rig.tell("a", created(8, "a"), promoted(8, "a", revision=8))  # not taken yet

    report = await rig.rebuild()

    assert [each for table in report.tables for each in table.differences] == []
    assert await rig.dumps() == before

    await rig.database.execute("UPDATE aliases SET revision = 1 WHERE model = 'projects/default/models/b'")
    [difference] = [each for table in (await rig.rebuild(check=True)).tables for each in table.differences]
    assert (difference.table, difference.columns) == ("aliases", ("revision",))
    await rig.rebuild()
    assert await rig.dumps() == before


async def test_a_parked_event_is_not_in_the_rebuilt_tables_either(rig: Rig) -> None:
    await rig.tell("a", created(1, "a"), created(2, "a"))
    await rig.tell("b", created(1, "b"))
    await rig.fold()
    await rig.database.execute(
        "INSERT INTO parked_events (consumer, source, stream_id, position, version, headers, data, cause, attempts)"
        " VALUES ('monitor.registry', 'headrace/registry', 'projects/default/models/a', 2, 2, '{}', '', 'x', 1)"
    )
    await rig.database.execute("DELETE FROM versions WHERE name = 'projects/default/models/a/versions/2'")

    report = await rig.rebuild(check=True)

    assert [each for table in report.tables for each in table.differences] == []
