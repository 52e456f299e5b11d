"""The world of one seed: monitor, registry and serving, two processes each, one broker, and people who want things.

Store, sequencer, relay, lease, consumers, handlers, decisions and folds are the platform's own. The disk, the network,
the clock and the commands are the simulation's, all drawn from one integer.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, cast
from uuid import UUID, uuid5

from google.protobuf.message import Message

from headrace.api.monitor.v1 import resources_pb2 as monitors
from headrace.api.monitor.v1 import service_pb2 as monitor_api
from headrace.api.monitor.v1.events_pb2 import RollbackRequested
from headrace.api.registry.v1 import service_pb2 as registry_api
from headrace.api.registry.v1.events_pb2 import VersionPromoted, VersionRolledBack
from headrace.api.serving.v1 import service_pb2 as serving_api
from headrace.api.serving.v1.resources_pb2 import Endpoint
from headrace_kit.cloudevents import ReceivedEvent
from headrace_kit.consumer import Consumer, LogReader, ProjectionConsumer, StoreLogReader
from headrace_kit.context import CommandContext
from headrace_kit.decided import Decided
from headrace_kit.errors import KitError
from headrace_kit.eventstore import Aggregate, PostgresEventStore
from headrace_kit.eventtypes import EventTypes
from headrace_kit.log import QUARANTINE, MemoryLog, TopicPartition, events_topic
from headrace_kit.logkeeper import LogKeeper
from headrace_kit.postgres import Connection
from headrace_kit.relay import Relay
from headrace_kit.sequencer import Sequencer
from headrace_monitor import domain as monitor
from headrace_monitor.events import EVENT_TYPES as MONITOR_EVENTS
from headrace_monitor.store import MONITOR
from headrace_registry import domain as registry
from headrace_registry.events import EVENT_TYPES as REGISTRY_EVENTS
from headrace_registry.handlers import RollbackHandler
from headrace_registry.store import MODEL
from headrace_serving import domain as serving
from headrace_serving import handlers as serving_handlers
from headrace_serving.endpoints import Endpoints
from headrace_serving.events import EVENT_TYPES as SERVING_EVENTS
from headrace_serving.router import Router
from headrace_serving.store import ENDPOINT, EndpointStore
from tests.simulation.disk import EFFECT, Pool, Server, Unmodelled
from tests.simulation.host import Faults, Host
from tests.simulation.network import SimLog
from tests.simulation.virtual import now

NAMESPACE = UUID("2d0a3c66-6a6e-5b0f-9a51-8f5d0f0f5a01")
PARTITIONS = 2
TYPES = {"monitor": MONITOR_EVENTS, "registry": REGISTRY_EVENTS, "serving": SERVING_EVENTS}
MODEL_NAME = "projects/p/models/m"
ENDPOINT_NAME = "projects/p/endpoints/e"
MONITOR_NAME = "projects/p/monitors/w"
PROJECTION = "serving.models"
TROUBLE_S = 8.0
SETTLE_S = 240.0

Decide = Callable[[Any, CommandContext], Sequence[Decided]]


@dataclass(frozen=True, slots=True)
class Parts:
    """What the platform is put together from; a test plants a fault by giving another."""

    relay: type[Relay] = Relay
    consumer: type[Consumer] = Consumer
    server: type[Server] = Server
    rollback: type[RollbackHandler] = RollbackHandler


@dataclass
class Wish:
    """One command somebody wants carried out, and what came of it."""

    id: UUID
    outcome: str = "unknown"
    events: int = 0


@dataclass
class Trace:
    """Everything that became true, in order."""

    lines: list[str] = field(default_factory=list[str])

    def __call__(self, what: str) -> None:
        """Notes it with its time."""
        self.lines.append(f"{asyncio.get_running_loop().time():.9f} {what}")

    @property
    def digest(self) -> str:
        """SHA-256 over all of it."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()


class Routes:
    """A router without models: it only knows how far it came."""

    def __init__(self) -> None:
        self._revisions: dict[str, int] = {}

    def revision(self, name: str) -> int:
        """The revision in force."""
        return self._revisions.get(name, 0)

    async def apply(self, endpoint: Endpoint) -> None:
        """Brings routes into force."""
        self._revisions[endpoint.name] = endpoint.revision


class Process:
    """One process of a service, from its start to its death."""

    def __init__(self, world: World, name: str, number: int) -> None:
        self.name, self.number = name, number
        self.host = Host(Random(f"{world.seed} {name} {number}"), world.faults)
        self.log = SimLog(world.broker, self.host)
        self.database = Pool(world.servers[name], self.host).database()
        self.store = PostgresEventStore(self.database, f"headrace/{name}", EventTypes(*TYPES[name]))
        self.keeper = LogKeeper(self.store, self.log, ttl_s=2.0)
        self.keeper.sequencer = Sequencer(self.database, self.store.source, wake=self.store.appended, batch=4)
        self.keeper.relay = world.parts.relay(self.store, self.log, wake=self.keeper.sequencer.sequenced, batch=8)
        self._world = world
        self.consumers = tuple(self._consumers())
        works = [self.keeper.run(), *(consumer.run() for consumer in self.consumers)]
        self._tasks = [asyncio.create_task(self._forever(each), name=f"{name} {number}") for each in works]

    def kill(self) -> None:
        """As ``kill -9``: what it still tries in its last moments reaches nobody."""
        self.host.cut = True
        self.log.forget()
        for task in self._tasks:
            task.cancel()

    async def _forever(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except (Exception, Unmodelled) as error:  # noqa: BLE001 - a part that ends by itself is a finding
            if not self.host.cut:
                self._world.found(f"{self.name} {self.number} ended: {type(error).__name__}: {error}")

    def _consumers(self) -> Iterator[Consumer | ProjectionConsumer]:
        consumer = self._world.parts.consumer
        if self.name == "registry":
            handler = self._world.parts.rollback(self.store, now=now)
            yield consumer(
                "registry.rollback",
                [events_topic("headrace/monitor")],
                {RollbackRequested: handler.handle},
                self.database,
                self.log,
                readers=self._reader("monitor"),
            )
        if self.name == "serving":
            endpoints = Endpoints(self.store, cast("Router", Routes()))
            follow = serving_handlers.AliasHandler(endpoints, EndpointStore(self.database), now=now).handle
            block = serving_handlers.RollbackHandler(endpoints, now=now).handle
            yield consumer(
                "serving.rollback",
                [events_topic("headrace/monitor")],
                {RollbackRequested: block},
                self.database,
                self.log,
                readers=self._reader("monitor"),
            )
            yield consumer(
                "serving.alias",
                [events_topic("headrace/registry")],
                {VersionPromoted: follow, VersionRolledBack: follow},
                self.database,
                self.log,
                readers=self._reader("registry"),
            )
            yield ProjectionConsumer(
                PROJECTION,
                [events_topic("headrace/registry")],
                dict.fromkeys(REGISTRY_EVENTS, _project),
                self.database,
                self.log,
                readers=self._reader("registry"),
            )

    def _reader(self, owner: str) -> Mapping[str, LogReader]:
        """The owner's log over the network: its disk, this process's luck."""
        store = PostgresEventStore(
            Pool(self._world.servers[owner], self.host).database(), f"headrace/{owner}", EventTypes(*TYPES[owner])
        )
        return {f"headrace/{owner}": StoreLogReader(store)}


async def _project(event: ReceivedEvent, connection: Connection) -> None:
    await connection.execute(EFFECT, PROJECTION, event.id)


class World:
    """Everything of one seed.

    Attributes:
        findings: What went wrong; empty after a good run.
        wishes: The commands, with what their callers were told.
    """

    def __init__(self, seed: int, parts: Parts) -> None:
        self.seed, self.parts = seed, parts
        self.random = Random(seed)
        self.trace = Trace()
        self.findings: list[str] = []
        self.wishes: list[Wish] = []
        chance = self.random.choice((0.0, 0.01, 0.05))
        latency_s = self.random.choice((0.002, 0.01, 0.05))
        self.faults = Faults(chance, chance, self.random.choice((0.0, 0.1, 0.3)), latency_s)
        self.broker = MemoryLog(batch_limit=self.random.choice((1, 3, 100)))
        self.servers = {name: parts.server(name, self.trace) for name in TYPES}
        for name in TYPES:
            self.broker.create(events_topic(f"headrace/{name}"), PARTITIONS)
        self.broker.create(QUARANTINE, 1)
        self.processes: dict[str, list[Process]] = {name: [] for name in TYPES}
        self._ever: list[Process] = []

    def found(self, what: str) -> None:
        """Something is wrong."""
        self.findings.append(what)
        self.trace(f"FOUND {what}")

    def start(self, name: str) -> None:
        """One more process."""
        process = Process(self, name, len(self._ever) + 1)
        self._ever.append(process)
        self.processes[name].append(process)

    def reached(self) -> Counter[str]:
        """How often what is hard came to pass, by its name; a simulation in which it never does proves nothing."""
        reached: Counter[str] = Counter()
        for process in self._ever:
            reached["version conflicts"] += process.store.conflicts
            reached["unknown outcomes"] += process.store.unknown_outcomes
            reached["failures of the broker"] += process.keeper.relay.failures
            for consumer in process.consumers:
                reached["repeats dropped"] += consumer.counters.repeats
                reached["holes filled"] += consumer.counters.filled
                reached["retries"] += consumer.counters.retries
        reached["changes of leader"] = sum(
            row["epoch"] - 1 for server in self.servers.values() for row in server.tables.leases.values()
        )
        return reached

    async def live(self) -> None:
        """Trouble for a while, then peace until everything has arrived."""
        for name in TYPES:
            self.start(name)
            self.start(name)
        await asyncio.gather(self._people(), self._trouble())
        self.faults.heal()
        self.broker.available = True
        await self._settle()

    async def _trouble(self) -> None:
        end = asyncio.get_running_loop().time() + TROUBLE_S
        often = (self._kill, self._kill, self._freeze, self._rebalance)
        moves = (*often, self._restart_disk, self._outage, self._retention)
        while asyncio.get_running_loop().time() < end:
            await asyncio.sleep(self.random.random())
            await self.random.choice(moves)(self.random.choice(tuple(TYPES)))

    async def _kill(self, name: str) -> None:
        victim = self.processes[name].pop(self.random.randrange(2))
        self.trace(f"{name} {victim.number} killed")
        victim.kill()
        await asyncio.sleep(self.random.random() / 2)
        self.start(name)

    async def _freeze(self, name: str) -> None:
        process = self.random.choice(self.processes[name])
        process.host.frozen_until = asyncio.get_running_loop().time() + self.random.random() * 6
        self.trace(f"{name} {process.number} frozen")

    async def _restart_disk(self, name: str) -> None:
        self.servers[name].restart()

    async def _outage(self, name: str) -> None:
        self.broker.available = False
        self.trace("broker away")
        await asyncio.sleep(self.random.random() * 2)
        self.broker.available = True

    async def _rebalance(self, name: str) -> None:
        groups = ("registry.rollback", "serving.rollback", "serving.alias", PROJECTION)
        self.broker.rebalance(self.random.choice(groups))

    async def _retention(self, name: str) -> None:
        """Kafka drops what is old: who was not there yet must ask the owner's log."""
        partition = TopicPartition(events_topic(f"headrace/{name}"), self.random.randrange(PARTITIONS))
        _, end = self.broker.bounds(partition)
        self.trace(f"{partition.topic} {partition.partition} keeps nothing below {end}")
        self.broker.expire(partition, end)

    async def _people(self) -> None:
        await self._found_everything()
        async with asyncio.TaskGroup() as tasks:
            for number in range(self.random.randrange(10, 30)):
                tasks.create_task(self._someone(number))

    async def _found_everything(self) -> None:
        config = monitors.MonitorConfig(
            model=MODEL_NAME, alias=serving.ALIAS, roll_back_bad_versions=True, cooldown_s=1, slot_s=1
        )
        wanted = monitor_api.CreateMonitorRequest(name=MONITOR_NAME, endpoint="e")
        await self.wish(
            "monitor", MONITOR, MONITOR_NAME, wanted, lambda state, c: monitor.decide_create(state, wanted, config, c)
        )
        endpoint = serving_api.CreateEndpointRequest(name=ENDPOINT_NAME, model=MODEL_NAME, alias=serving.ALIAS)
        await self.wish(
            "serving",
            ENDPOINT,
            ENDPOINT_NAME,
            endpoint,
            lambda state, c: serving.decide_create(state, endpoint, c, version="", alias_revision=0),
        )
        await self._new_version()

    async def _someone(self, number: int) -> None:
        await asyncio.sleep(self.random.random() * TROUBLE_S)
        kind = self.random.choice((self._new_version, self._promotion, self._promotion, self._bad_version))
        await kind()

    async def _new_version(self) -> None:
        wanted = registry_api.CreateVersionRequest(model=MODEL_NAME, create_model=True)
        await self.wish(
            "registry",
            MODEL,
            MODEL_NAME,
            wanted,
            lambda state, c: registry.decide_version(state, wanted, c),
            twice=self.random.random() < 0.3,
        )

    async def _promotion(self) -> None:
        version = f"{MODEL_NAME}/versions/{self.random.randrange(1, 5)}"
        review = registry_api.ReviewVersionRequest(version=version, approve=True, reason="good")
        await self.wish(
            "registry", MODEL, MODEL_NAME, review, lambda state, c: registry.decide_review(state, review, c)
        )
        promote = registry_api.PromoteVersionRequest(
            version=version, alias=serving.ALIAS, expected_revision=-1, reason="better"
        )
        await self.wish(
            "registry",
            MODEL,
            MODEL_NAME,
            promote,
            lambda state, c: registry.decide_promotion(state, promote, c),
            twice=self.random.random() < 0.3,
        )

    async def _bad_version(self) -> None:
        verdict = monitors.Verdict(
            bad_version=f"{MODEL_NAME}/versions/{self.random.randrange(1, 5)}",
            alias_revision=self.random.choice((-1, -1, 1, 2)),
        )
        verdict.slot.FromDatetime(now())
        await self.wish(
            "monitor",
            MONITOR,
            MONITOR_NAME,
            verdict,
            lambda state, c: monitor.decide_verdict(state, MONITOR_NAME, verdict, c),
        )

    async def wish(
        self,
        name: str,
        aggregate: Aggregate[Any],
        stream: str,
        request: Message,
        decide: Decide,
        *,
        twice: bool = False,
    ) -> None:
        """Gives a command until it is answered; ``twice``: by two callers at a time, who do not know each other."""
        wish = Wish(uuid5(NAMESPACE, f"{self.seed} {len(self.wishes)}"))
        self.wishes.append(wish)
        # The writer's clock is part of a command: whoever repeats it says the same.
        context = CommandContext(wish.id, "persons/someone" if name == "registry" else "services/monitor", now())
        author = CommandContext(wish.id, "services/ci", now())

        def decided(state: Any) -> Sequence[Decided]:
            given = author if isinstance(request, registry_api.CreateVersionRequest) else context
            events = decide(state, given)
            wish.events = len(events)
            return events

        async def one() -> None:
            await self._insist(
                wish,
                name,
                lambda store: _execute(store, aggregate, stream, context=context, request=request, decide=decided),
            )

        await asyncio.gather(*(one() for _ in range(1 + twice)))

    async def _insist(self, wish: Wish, name: str, give: Callable[[PostgresEventStore], Awaitable[object]]) -> None:
        while True:
            process = self.random.choice(self.processes[name])
            try:
                async with asyncio.timeout(20):
                    await give(process.store)
            except (KitError, TimeoutError) as error:
                if isinstance(error, KitError) and not error.retryable:
                    wish.outcome = wish.outcome if wish.outcome == "acknowledged" else "refused"
                    return
                await asyncio.sleep(0.1)
            except Unmodelled as error:
                self.found(f"not modelled: {error}")
                return
            else:
                wish.outcome = "acknowledged"
                self.trace(f"acknowledged {wish.id}")
                return

    async def _settle(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + SETTLE_S
        still = 0
        while still < 3:  # at peace three looks in a row: what one handler wrote may wait for the next
            await asyncio.sleep(1.0)
            still = still + 1 if not list(self._moving()) else 0
            if self.findings:
                return
            if loop.time() > end:
                self.found(f"did not settle: {', '.join(self._moving())}")
                return

    def _moving(self) -> Iterator[str]:
        for name, server in self.servers.items():
            tables = server.tables
            if not len(tables.events) == len(tables.log) == tables.relayed:
                yield f"{name} has {len(tables.events)} events, {len(tables.log)} in order, {tables.relayed} relayed"
            for (consumer, topic, partition), row in tables.offsets.items():
                lane = [each for each in self.broker.records(topic) if each.partition == partition]
                if row["next_offset"] != len(lane):
                    yield f"{consumer} stands at {row['next_offset']} of {len(lane)} in {topic} {partition}"


def _execute(
    store: PostgresEventStore,
    aggregate: Aggregate[Any],
    stream: str,
    *,
    context: CommandContext,
    request: Message,
    decide: Callable[[Any], Sequence[Decided]],
) -> Awaitable[object]:
    return store.execute(
        aggregate, stream, context=context, request=request, decide=decide, respond=lambda state: state
    )
