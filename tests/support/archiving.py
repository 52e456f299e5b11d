"""A telemetry topic of a test's own, its archive, and processes that archive until they are killed at some moment."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import numpy as np
from aiokafka import AIOKafkaProducer

from headrace.api.common.v1 import telemetry_pb2
from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.monitor.v1.resources_pb2 import ArchivedRange, Erasure
from headrace.api.monitor.v1.service_pb2 import EraseTelemetryRequest
from headrace.archive.files import verified_records
from headrace.archive.manifest import Manifest
from headrace.archive.reading import read_stream
from headrace.archive.record import Record
from headrace.kafka import ColumnData, Predictions, encode_labels, encode_predictions, new_id
from headrace.kafka.reading import TopicReader
from headrace_kit.eventstore import PostgresEventStore
from headrace_kit.eventtypes import EventTypes
from headrace_kit.lease import Fence, Leadership
from headrace_kit.log import KafkaSettings
from headrace_kit.objects import S3ObjectStore
from headrace_kit.postgres import Database, create_pool, migrate
from headrace_local.s3 import ObjectStoreAddress
from headrace_local.testing import FreshDatabase, Infrastructure
from headrace_monitor.archivestore import ArchiveStore
from headrace_monitor.archiving import LEASE, ArchivePolicy, Archiver
from headrace_monitor.erasing import Eraser
from headrace_monitor.erasurestore import ErasureStore
from headrace_monitor.events import EVENT_TYPES
from tests.support.telemetry import HOUR_US, World


@dataclass(slots=True)
class Clock:
    """A clock the test moves."""

    offset: timedelta = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.offset


@dataclass(slots=True)
class Archive:
    """As the monitor has it, without its process. Also the ``Archive`` that ``read_stream`` takes."""

    database: Database
    store: PostgresEventStore
    objects: S3ObjectStore
    bootstrap: str
    topic: str
    fence: Fence
    clock: Clock
    policy: ArchivePolicy
    labels_topic: str = ""

    @property
    def tables(self) -> ArchiveStore:
        return ArchiveStore(self.database)

    @property
    def archiver(self) -> Archiver:
        return Archiver(
            self.store,
            self.tables,
            self.objects,
            kafka=KafkaSettings(self.bootstrap),
            policy=self.policy,
            clock=self.clock,
        )

    @property
    def erasures(self) -> ErasureStore:
        return ErasureStore(self.database)

    @property
    def eraser(self) -> Eraser:
        return Eraser(
            self.store,
            self.tables,
            self.erasures,
            self.objects,
            self.archiver,
            kafka=KafkaSettings(self.bootstrap),
            topics=[self.topic, self.labels_topic],
            clock=self.clock,
        )

    async def erase(self, request: EraseTelemetryRequest) -> Erasure:
        """Asks for an erasure, and looks once."""
        id_ = uuid4()
        request.command_id = str(id_)
        assert await self.erasures.begin(id_, request, asked_by="persons/operator")
        await self.eraser.step(self.fence)
        return await self.erasure(id_)

    async def erasure(self, id_: UUID) -> Erasure:
        found = await self.erasures.get(id_)
        assert found is not None
        return found

    async def archive(self, *, everything: bool = True) -> int:
        """One look of the archiver; by default everything is due."""
        return await self.archiver.step(self.topic, self.fence, everything=everything)

    async def ranges(self, topic: str, partition: int, *, from_offset: int) -> Sequence[ArchivedRange]:
        return await self.tables.ranges(topic, partition, from_offset=from_offset, after_offset=-1, limit=3)

    async def records(self, archived: ArchivedRange) -> list[Record]:
        manifest = await self.manifest(archived)
        return verified_records(await self.file(manifest, 0), archived)

    async def manifest(self, archived: ArchivedRange) -> Manifest:
        return Manifest.decode(await self.objects.get(archived.manifest))

    async def file(self, manifest: Manifest, index: int) -> bytes:
        found = manifest.files[index]
        return await self.objects.get(ObjectRef(uri=found.uri, sha256=found.sha256, size_bytes=found.size_bytes))

    async def stream(self, partition: int = 0, *, offset: int = 0, end: int | None = None) -> list[Record]:
        """The archive and the topic as one stream."""
        found: list[Record] = []
        async with TopicReader(self.bootstrap, self.topic) as reader:
            async for records in read_stream(self, reader, partition, offset=offset, end=end):
                found += records
        return found

    async def in_kafka(self, partition: int = 0) -> list[Record]:
        """What Kafka holds."""
        async with TopicReader(self.bootstrap, self.topic) as reader:
            bound = (await reader.bounds())[partition]
            if bound.first == bound.end:
                return []
            return await reader.read(partition, offset=bound.first, end=bound.end, max_bytes=2**30)

    async def leaves(self) -> list[Any]:
        """Every event, oldest first: type and data."""
        return await self.database.fetch("SELECT type, data FROM events ORDER BY local_id")

    async def entries(self, kind: str = "TelemetryArchived") -> list[Any]:
        """Events of a type, in the order in which they were appended."""
        rows = await self.database.fetch(
            "SELECT data FROM events WHERE type = $1 ORDER BY local_id", f"headrace.monitor.v1.{kind}"
        )
        message = next(each for each in EVENT_TYPES if each.DESCRIPTOR.name == kind)
        return [message.FromString(row[0]) for row in rows]

    async def keys(self) -> set[str]:
        """Keys of all that lies in the bucket."""
        client, bucket = self.objects._client, self.objects._bucket
        found = await asyncio.to_thread(lambda: list(client.list_objects(bucket, recursive=True)))
        return {each.object_name for each in found}

    async def named_keys(self, partitions: int = 2) -> set[str]:
        """Keys of all that the archive names: manifests and their files."""
        found: set[str] = set()
        for partition in range(partitions):
            for archived in await self.tables.ranges(self.topic, partition, from_offset=0, after_offset=-1, limit=1000):
                manifest = await self.manifest(archived)
                found |= {archived.manifest.uri, *(file.uri for file in manifest.files)}
        return found

    async def counted(self, offset: int, partition: int = 0, topic: str = "") -> None:
        """Stage 1 has committed so far."""
        await self.database.execute(
            "INSERT INTO consumer_offsets (consumer, topic, partition, next_offset, generation)"
            " VALUES ('monitor.telemetry', $1, $2, $3, 1) ON CONFLICT (consumer, topic, partition)"
            " DO UPDATE SET next_offset = excluded.next_offset",
            topic or self.topic,
            partition,
            offset,
        )

    async def counted_all(self) -> None:
        """Stage 1 has committed all there is."""
        for topic in (self.topic, self.labels_topic):
            async with TopicReader(self.bootstrap, topic) as reader:
                for partition, bound in (await reader.bounds()).items():
                    await self.counted(bound.end, partition, topic)


@dataclass(slots=True)
class Publisher:
    """Publishes batches, and remembers their bytes."""

    raw: AIOKafkaProducer
    topic: str
    world: World = field(default_factory=World)
    seq: int = 0
    sent: list[bytes] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    async def send(self, value: bytes, partition: int = 0, headers: Sequence[tuple[str, bytes]] = ()) -> None:
        await self.raw.send_and_wait(self.topic, value, key=b"0", partition=partition, headers=list(headers))
        self.sent.append(value)

    async def predictions(self, count: int, *, rows: int = 3, partition: int = 0) -> None:
        """As many batches, of two requests with ``rows`` rows each."""
        for _ in range(count):
            self.seq += 1
            ids = [new_id(0), new_id(0)]
            x = np.arange(2 * rows, dtype="<f8") + self.seq
            batch = self.world.predictions(ids, x, x, times_us=[self.seq * HOUR_US] * 2, shard=0)
            await self.send(
                encode_predictions(batch, producer_id="p", epoch=1, seq=self.seq).SerializeToString(), partition
            )
            self.ids += ids

    async def person(self, name: str, *, others: int = 1) -> str:
        """A batch with a request of a person and of others; the person's prediction id."""
        self.seq += 1
        ids = [new_id(0) for _ in range(1 + others)]
        batch = Predictions(
            project=self.world.project,
            endpoint=self.world.endpoint,
            model_version="app",
            shard=0,
            ids=ids,
            row_counts=np.ones(len(ids), dtype="<u4"),
            times_us=np.full(len(ids), HOUR_US, dtype="<i8"),
            columns=[
                ColumnData.of("customer", [name, *(f"other-{n}" for n in range(others))]),
                ColumnData.of("y", np.arange(len(ids), dtype="<f8"), telemetry_pb2.COLUMN_ROLE_OUTPUT),
            ],
        )
        await self.send(encode_predictions(batch, producer_id="p", epoch=1, seq=self.seq).SerializeToString())
        self.ids += ids
        return ids[0]

    async def labels(self, ids: list[str], topic: str = "") -> None:
        """One batch of labels."""
        self.seq += 1
        labels = self.world.labels(ids, [0] * len(ids), np.ones(len(ids)), time_us=HOUR_US, shard=0)
        value = encode_labels(labels, producer_id="p", epoch=1, seq=self.seq).SerializeToString()
        await self.raw.send_and_wait(topic or self.topic, value, key=b"0", partition=0)


@asynccontextmanager
async def publishing(bootstrap: str, topic: str) -> AsyncIterator[Publisher]:
    """A publisher."""
    raw = AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=0)
    await raw.start()
    try:
        yield Publisher(raw, topic)
    finally:
        await raw.stop()


@dataclass(frozen=True, slots=True)
class Place:
    """Where an archive is: enough for another process to open it."""

    dsn: str
    bootstrap: str
    topic: str
    s3: dict[str, str]
    max_bytes: int
    labels_topic: str = ""

    @staticmethod
    async def make(infrastructure: Infrastructure, fresh: FreshDatabase, *, kind: str, max_bytes: int) -> Place:
        """A topic, a bucket and a migrated database."""
        await migrate(fresh.migration_dsn, ["headrace_monitor"], service_dsn=fresh.service_dsn)
        settings = {"message.timestamp.type": "LogAppendTime"}
        topics = infrastructure.topics()
        topic = await topics.create(f"{kind}.v1", partitions=2, settings=settings)
        labels = await topics.create("labels.v1", partitions=2, settings=settings) if kind != "labels" else ""
        bucket = await asyncio.to_thread(infrastructure.bucket)
        return Place(
            fresh.service_dsn, infrastructure.addresses.kafka_bootstrap, topic, _address(bucket), max_bytes, labels
        )


def _address(bucket: ObjectStoreAddress) -> dict[str, str]:
    return {
        "endpoint": bucket.endpoint,
        "access_key": bucket.access_key,
        "secret_key": bucket.secret_key,
        "bucket": bucket.bucket,
    }


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[Archive]:
    """The archive of a place, with the lease."""
    database = await create_pool(place.dsn, max_size=4)
    endpoint = place.s3["endpoint"]
    objects = S3ObjectStore(
        endpoint, access_key=place.s3["access_key"], secret_key=place.s3["secret_key"], bucket=place.s3["bucket"]
    )
    try:
        fence = await _fence(database)
        yield Archive(
            database,
            PostgresEventStore(database, "headrace/monitor", EventTypes(*EVENT_TYPES)),
            objects,
            place.bootstrap,
            place.topic,
            fence,
            Clock(),
            ArchivePolicy(close_after=timedelta(hours=1), max_bytes=place.max_bytes, keep=timedelta(days=7)),
            place.labels_topic,
        )
    finally:
        await objects.close()
        await database.close()


async def _fence(database: Database) -> Fence:
    leadership = Leadership(database, LEASE, ttl_s=0.2)
    while (fence := await leadership.take()) is None:  # whoever had it was killed: it runs out
        await asyncio.sleep(0.02)
    return fence


class Victim:
    """Ends its own process by SIGKILL at the n-th effect of archiving: before it, or right after it."""

    def __init__(self, moment: int) -> None:
        self.left = moment

    def around(self, work: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """The same work, with a moment to die on either side of it."""

        async def call(*arguments: Any, **keywords: Any) -> Any:
            self.moment()
            done = await work(*arguments, **keywords)
            self.moment()
            return done

        return call

    def moment(self) -> None:
        """Dies, when it is the one."""
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


async def _die_archiving(place: Place, moment: int, *, erasing: bool) -> None:
    async with opened(place) as archive:
        victim = Victim(moment)
        tables, objects, store, erasures = archive.tables, archive.objects, archive.store, archive.erasures
        effects: tuple[tuple[Any, str], ...] = (
            (tables, "keep_plan"),
            (objects, "put"),
            (objects, "delete"),
            (store, "execute"),
            (erasures, "fix_ends"),
            (erasures, "keep_predictions"),
            (erasures, "keep_files"),
            (erasures, "forget_file"),
            (erasures, "finish"),
        )
        for owner, name in effects:
            wrapped = victim.around(getattr(owner, name))
            setattr(type(owner), name, lambda _self, *a, _w=wrapped, **k: _w(*a, **k))
        await (archive.eraser.step(archive.fence) if erasing else archive.archive())


async def archive_until_killed(place: Place, moment: int, *, erasing: bool = False) -> int:
    """Archives (or erases) in a process that dies at a moment; its status: -9, or 0 when all was done before."""
    process = _forks.Process(target=_main, args=(place, moment, erasing))
    process.start()
    async with asyncio.timeout(60):
        while process.is_alive():
            await asyncio.sleep(0.01)
    status = process.exitcode
    process.close()
    assert status is not None
    return status


def _main(place: Place, moment: int, erasing: bool) -> None:
    asyncio.run(_die_archiving(place, moment, erasing=erasing))


_forks = multiprocessing.get_context("forkserver")
# What is heavy to import, and installed: this fork server does not look where tests lie (cpython issue 117378). pandas
# is imported by pyarrow, at its first array, wherever it is installed.
_forks.set_forkserver_preload(["headrace_monitor.erasing", "headrace_local.testing", "aiokafka", "pandas"])
