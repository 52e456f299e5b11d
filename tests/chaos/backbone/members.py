"""The backbone's parts as processes of their own: ``python -m tests.chaos.backbone.members ROLE NAME FOLDER``.

``writer`` adds 1, 2, 3, ... to some counters of its own, each by a command whose id follows from counter and number,
and notes what was acknowledged and what was refused. ``keeper`` keeps the log: sequencer and relay. ``answerer``
answers each event by a command to its own store; ``folder`` folds them into a table. ``doubler`` publishes every record
it reads again, five times, shuffled. Each runs until it is asked to stop, or killed.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import UUID, uuid5

import orjson
from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from prometheus_client import generate_latest

from headrace_kit.cloudevents import ReceivedEvent
from headrace_kit.consumer import Consumer, LogReader, ProjectionConsumer, StoreLogReader
from headrace_kit.context import CommandContext
from headrace_kit.errors import KitError
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.log import KafkaLog, KafkaSettings, LogRecord, OutgoingRecord, events_topic
from headrace_kit.logkeeper import LogKeeper
from headrace_kit.postgres import Connection, Database, create_pool
from tests.chaos.backbone import versions
from tests.support.counters import COUNTER, TYPES, add, number, stream

NUMBERS: Final = UUID("7d0f2a52-4a0d-5f1e-8a55-3b8f0f0c9a11")
ANSWERS: Final = "headrace/answers"
COPIES: Final = 5


@dataclass(frozen=True, slots=True)
class Scene:
    """What the parts of one scene share.

    Attributes:
        source: Owner of the counters' log.
        counters_dsn: Its database.
        answers_dsn: Database of those who consume it.
        bootstrap: Kafka.
        streams: How many counters.
        rate: Numbers a second of one writer, over all its counters.
        burst: Numbers that one command adds, an event each.
        ttl_s: How long the keeper's lease lasts.
    """

    source: str
    counters_dsn: str
    answers_dsn: str
    bootstrap: str
    streams: int = 8
    rate: float = 100.0
    burst: int = 1
    ttl_s: float = 2.0

    @property
    def topic(self) -> str:
        """Where the relay publishes."""
        return events_topic(self.source)

    def write(self, path: Path) -> None:
        """Write it where ``read`` finds it."""
        path.write_bytes(orjson.dumps(asdict(self)))

    @staticmethod
    def read(path: Path) -> Scene:
        """As ``write`` left it."""
        return Scene(**orjson.loads(path.read_bytes()))


def command_of(counter: int, value: int) -> UUID:
    """Id of the command whose last number is ``value``."""
    return uuid5(NUMBERS, f"{counter}/{value}")


@dataclass(frozen=True, slots=True)
class Place:
    """One part's place in a scene: its name, and the folder all parts share.

    A name is a role, or a role, a hyphen and what tells it from others of its role: ``writer-2``.
    """

    name: str
    folder: Path

    @property
    def scene(self) -> Scene:
        """The scene."""
        return Scene.read(self.folder / "scene.json")

    @property
    def number(self) -> int:
        """The number in its name, 0 without one."""
        last = self.name.rpartition("-")[2]
        return int(last) if last.isdigit() else 0

    def file(self, kind: str) -> Path:
        """A file of its own."""
        return self.folder / f"{self.name}.{kind}"


def acknowledged(folder: Path) -> dict[int, int]:
    """The last number of each counter that its writer knows to be stored."""
    last: dict[int, int] = {}
    for path in folder.glob("*.acknowledged"):
        for line in path.read_text().splitlines():
            counter, _, rest = line.partition(" ")
            with suppress(ValueError):  # the last line may be cut
                last[int(counter)] = int(rest.partition(" ")[0])
    return last


def refused(folder: Path) -> Counter[str]:
    """How often writers were refused, by reason."""
    return Counter(line for path in folder.glob("*.refused") for line in path.read_text().splitlines())


async def write(place: Place) -> None:
    """The writer; it goes on where its notes end."""
    scene = place.scene
    database = await _patiently(lambda: create_pool(scene.counters_dsn, max_size=scene.streams * 2))
    store = PostgresEventStore(database, scene.source, TYPES)
    last = acknowledged(place.folder)
    began = time.monotonic()

    async def count(counter: int) -> None:
        first = value = last.get(counter, 0)
        while True:
            due = began + (value - first) * scene.streams / scene.rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            value += scene.burst
            await add_until_acknowledged(counter, value)
            notes.write(f"{counter} {value} {time.time():.3f}\n")

    async def add_until_acknowledged(counter: int, value: int) -> None:
        """Under the one id it has."""
        numbers = range(value - scene.burst + 1, value + 1)
        while True:
            try:
                await add(store, counter, *numbers, command_id=command_of(counter, value), now=datetime.now(UTC))
                return
            except KitError as error:
                refusals.write(f"{error.reason}\n")
                if not error.retryable:
                    raise
                await asyncio.sleep(0.02)

    with place.file("acknowledged").open("a", buffering=1) as notes, place.file("refused").open("a", 1) as refusals:
        async with asyncio.TaskGroup() as tasks:
            for counter in range(scene.streams):
                tasks.create_task(count(place.number * scene.streams + counter))


async def keep(place: Place) -> None:
    """The keeper."""
    scene = place.scene
    database = await _patiently(lambda: create_pool(scene.counters_dsn, max_size=4))
    store = PostgresEventStore(database, scene.source, TYPES)
    await LogKeeper(store, KafkaLog(KafkaSettings(scene.bootstrap)), ttl_s=scene.ttl_s).run()


async def answer(place: Place) -> None:
    """The answerer."""
    scene = place.scene
    own = await _patiently(lambda: create_pool(scene.answers_dsn, max_size=4))
    store = PostgresEventStore(own, ANSWERS, TYPES)

    async def handle(event: ReceivedEvent) -> None:
        await _hold(place)
        context = CommandContext.caused_by(event, "answers.echo", datetime.now(UTC))
        await store.execute(
            COUNTER,
            event.subject,
            context=context,
            request=StringValue(value=str(event.id)),
            decide=lambda _: [Int64Value(value=number(event))],
            respond=lambda state: StringValue(value=str(state.value)),
        )

    await Consumer(
        "answers", [scene.topic], {Int64Value: handle}, own, _log(scene), readers=await _readers(scene)
    ).run()


async def fold(place: Place) -> None:
    """The folder."""
    scene = place.scene
    own = await _patiently(lambda: create_pool(scene.answers_dsn, max_size=4))
    await folding(place, own, readers=await _readers(scene)).run()


def folding(place: Place, own: Database, *, readers: Mapping[str, LogReader] | None = None) -> ProjectionConsumer:
    """The folder's consumer. The file ``refuse`` of the scene names the counter and number it is not able to fold."""
    refuse = place.folder / "refuse"

    async def handle(event: ReceivedEvent, connection: Connection) -> None:
        if refuse.exists() and refuse.read_text() == f"{event.subject} {number(event)}":
            raise ValueError(f"{number(event)} is too much")
        await connection.execute("INSERT INTO points (name, value) VALUES ($1, $2)", event.subject, number(event))

    scene = place.scene
    return ProjectionConsumer(
        "points", [scene.topic], {Int64Value: handle}, own, _log(scene), readers=readers, stall_s=5.0
    )


async def _hold(place: Place) -> None:
    """Stays in the middle of an event for as long as there is a file ``hold`` of this part."""
    while place.file("hold").exists():
        place.file("held").touch()
        await asyncio.sleep(0.02)


async def double(place: Place) -> None:
    """The doubler: copies keep their key, so they come to the partition of their original, out of order."""
    scene = place.scene
    chance = random.Random(7)
    consumer = await _log(scene).open_consumer([scene.topic], group="doubler")
    producer = await _log(scene).open_producer()
    copied: set[bytes] = set()
    for partition in consumer.assignment:
        consumer.seek(partition, 0)
    while True:
        found = await consumer.poll(consumer.assignment, timeout_s=0.2, max_records=200)
        for lane, records in found.items():
            new = [record for record in records if _identity(record) not in copied]
            copied.update(_identity(record) for record in new)
            copies = [OutgoingRecord(each.key, each.value, each.headers) for each in new] * COPIES
            chance.shuffle(copies)
            while copies:
                done = await producer.append(scene.topic, {lane.partition: copies})
                copies = copies[done[lane.partition] :]


def _identity(record: LogRecord) -> bytes:
    return dict(record.headers)["ce_id"]


def _log(scene: Scene) -> KafkaLog:
    return KafkaLog(KafkaSettings(scene.bootstrap))


async def _readers(scene: Scene) -> dict[str, LogReader]:
    owner = await _patiently(lambda: create_pool(scene.counters_dsn, max_size=2))
    return {scene.source: StoreLogReader(PostgresEventStore(owner, scene.source, TYPES))}


async def _patiently(connect: Callable[[], Awaitable[Database]]) -> Database:
    while True:
        try:
            return await connect()
        except KitError as error:
            if not error.retryable:
                raise
            await asyncio.sleep(0.1)


Role = Callable[[Place], Awaitable[None]]
ROLES: Final[dict[str, Role]] = {
    "writer": write,
    "keeper": keep,
    "answerer": answer,
    "folder": fold,
    "doubler": double,
    **versions.ROLES,
}


async def _main(role: str, place: Place) -> None:
    working = asyncio.ensure_future(ROLES[role](place))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
    with suppress(asyncio.CancelledError):
        await working
    place.file("metrics").write_bytes(generate_latest())


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], Place(sys.argv[2], Path(sys.argv[3]))))

__all__ = ["ANSWERS", "ROLES", "Place", "Scene", "acknowledged", "command_of", "refused", "stream"]
