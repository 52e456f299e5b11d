"""What every service that owns a log is made of: see the example in ``headrace_kit``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import Message

from headrace.api.audit.v1.service_pb2_grpc import add_AuditServiceServicer_to_server
from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace_kit import metrics
from headrace_kit.app import Application
from headrace_kit.audit import AuditServicer, RemoteLogReader
from headrace_kit.auth import Tokens
from headrace_kit.consumer import Consumer, Handler, LogReader, ProjectionConsumer, ProjectionHandler, StoreLogReader
from headrace_kit.dataref import DataRefs
from headrace_kit.errors import KitError
from headrace_kit.eventstore import Aggregate, PostgresEventStore
from headrace_kit.eventtypes import EventTypes
from headrace_kit.history import History
from headrace_kit.log import KafkaLog, KafkaSettings, Log, events_topic
from headrace_kit.logkeeper import LogKeeper
from headrace_kit.notary import FolderPlace, Notary, ObjectsPlace, Place, Signer, TopicPlace
from headrace_kit.objects import ObjectStore, S3ObjectStore, object_key, verified
from headrace_kit.postgres import Database, create_pool, migrate
from headrace_kit.rebuild import Projection, ReadModels
from headrace_kit.rpc import Server, Servicer, channel
from headrace_kit.settings import ProcessSettings, StoreSettings

_OUTCOMES = ("handled", "repeats", "parked", "filled", "malformed", "retries", "recreated")
"""What a consumer counts, by its attributes."""


@dataclass(slots=True)
class LogOwner:
    """The parts of a service that owns a log: database, store, sequencer and relay, consumers, objects.

    ``kafka`` is how all of them reach the brokers, and how a service's own clients do.
    """

    name: str
    settings: StoreSettings
    database: Database
    store: PostgresEventStore
    kafka: KafkaSettings
    log: Log
    keeper: LogKeeper
    objects: ObjectStore
    tokens: Tokens
    aggregates: Sequence[Aggregate[Any]]  # Any: states of different classes
    projections: list[Projection] = field(default_factory=list[Projection])
    consumers: dict[str, Consumer | ProjectionConsumer] = field(
        default_factory=dict[str, Consumer | ProjectionConsumer]
    )
    channels: dict[str, grpc.aio.Channel] = field(default_factory=dict[str, grpc.aio.Channel])

    @staticmethod
    async def open(
        name: str,
        settings: StoreSettings,
        event_types: Sequence[type[Message]],
        aggregates: Sequence[Aggregate[Any]] = (),  # Any: states of different classes
    ) -> LogOwner:
        """Migrates the database (where the settings name its owner) and connects.

        ``aggregates`` are every kind of stream of the service, for the states of the past and for rebuilds.

        Raises:
            KitError: The database can not be reached or migrated, or the key that signs the log is unfit.
        """
        dsn = settings.postgres_dsn.get_secret_value()
        signer = open_signer(f"headrace/{name}", settings)
        if settings.migration_dsn is not None:
            await migrate(settings.migration_dsn.get_secret_value(), [f"headrace_{name}"], service_dsn=dsn)
        database = await create_pool(dsn, max_size=settings.postgres_pool, application=f"headrace-{name}")
        store = PostgresEventStore(database, f"headrace/{name}", EventTypes(*event_types))
        kafka = KafkaSettings(settings.kafka_bootstrap)
        log = KafkaLog(kafka)
        objects = open_objects(settings)
        places: list[Place] = [TopicPlace(log), ObjectsPlace(objects)]
        if settings.checkpoint_folder is not None:
            places.append(FolderPlace(settings.checkpoint_folder, store.source, signer.key))
        notary = Notary(database, signer, places=places, every_s=settings.checkpoint_every_s)
        return LogOwner(
            name=name,
            settings=settings,
            database=database,
            store=store,
            kafka=kafka,
            log=log,
            keeper=LogKeeper(store, log, data_refs=ObjectDataRefs(objects), notary=notary),
            objects=objects,
            tokens=Tokens(settings.tokens_file),
            aggregates=tuple(aggregates),
        )

    def peer(self, name: str) -> grpc.aio.Channel:
        """The channel to another service, or to this one's own log readers.

        Raises:
            LookupError: The settings do not say where it is.
        """
        if name not in self.channels:
            address = self.settings.peers().get(name)
            if address is None:
                raise LookupError(f"HEADRACE_{name.upper()}_ADDRESS is not set")
            self.channels[name] = channel(address, self.settings.token)
        return self.channels[name]

    def consume(self, name: str, sources: Sequence[str], handlers: Mapping[type[Message], Handler]) -> Consumer:
        """Adds a consumer of other services' events (``sources`` are their names); see ``Consumer``."""
        topics = [events_topic(f"headrace/{source}") for source in sources]
        consumer = Consumer(
            name,
            topics,
            handlers,
            self.database,
            self.log,
            readers=self._readers(sources),
            data_refs=ObjectDataRefs(self.objects),
        )
        self.consumers[name] = consumer
        return consumer

    def project(
        self,
        name: str,
        sources: Sequence[str],
        handlers: Mapping[type[Message], ProjectionHandler],
        tables: Sequence[str],
    ) -> ProjectionConsumer:
        """Adds a projection of other services' events into ``tables``, its own; see ``ProjectionConsumer``."""
        topics = [events_topic(f"headrace/{source}") for source in sources]
        readers = self._readers(sources)
        consumer = ProjectionConsumer(
            name,
            topics,
            handlers,
            self.database,
            self.log,
            readers=readers,
            data_refs=ObjectDataRefs(self.objects),
        )
        self.consumers[name] = consumer
        self.projections.append(Projection(name, tables, handlers, readers))
        return consumer

    def application(self, servicers: Sequence[Servicer]) -> Application:
        """The process: these servicers and the log's own, sequencer, relay and consumers."""
        read_models = ReadModels(self.store, self.aggregates, self.projections)
        history = History(self.store, self.aggregates)
        audit = AuditServicer(self.store, self.keeper, self.consumers, history, read_models)
        server = Server(
            self.name,
            listen=self.settings.grpc_listen,
            tokens=self.tokens,
            servicers=[*servicers, (add_AuditServiceServicer_to_server, audit)],
        )
        application = Application(self.name, self.settings, server)
        application.tasks["log"] = self.keeper.run
        application.tasks["read models"] = read_models.run
        for name, consumer in self.consumers.items():
            application.tasks[name] = consumer.run
        application.checks.append(self._database_answers)
        application.checks.append(read_models.check)
        application.refresh.append(self._refresh)
        application.close.extend([*(each.close for each in self.channels.values()), self.objects.close])
        application.close.append(self.database.close)
        return application

    def _readers(self, sources: Sequence[str]) -> dict[str, LogReader]:
        readers: dict[str, LogReader] = {}
        for source in sources:
            if source == self.name:
                readers[f"headrace/{source}"] = StoreLogReader(self.store)
            elif source in self.settings.peers():
                readers[f"headrace/{source}"] = RemoteLogReader(self.peer(source))
        return readers

    async def _database_answers(self) -> str:
        try:
            await self.database.fetchval("SELECT 1")
        except KitError as error:
            return error.message
        return ""

    def _refresh(self) -> None:
        source = self.store.source
        metrics.LOG_POSITION.labels(source).set(self.keeper.sequencer.position)
        metrics.LOG_TAIL_AGE.labels(source).set(self.keeper.sequencer.tail_age_s)
        metrics.LOG_LEADER.labels(source).set(self.keeper.leadership.fence is not None)
        metrics.RELAY_BACKLOG.labels(source).set(self.keeper.relay.backlog)
        metrics.RELAY_FAILURES.labels(source).set(self.keeper.relay.failures)
        if self.keeper.notary is not None:
            metrics.CHECKPOINT_POSITION.labels(source).set(self.keeper.notary.size)
            metrics.CHECKPOINT_REFUSED.labels(source).set(bool(self.keeper.notary.refused))
            for place, failures in self.keeper.notary.failures.items():
                metrics.CHECKPOINT_FAILURES.labels(source, place).set(failures)
        metrics.RESPONSES_FORGOTTEN.labels(source).set(self.keeper.upkeep.forgotten)
        metrics.STORE_CONFLICTS.labels(source).set(self.store.conflicts)
        metrics.STORE_UNKNOWN_OUTCOMES.labels(source).set(self.store.unknown_outcomes)
        for name, consumer in self.consumers.items():
            for outcome in _OUTCOMES:
                metrics.CONSUMER_EVENTS.labels(name, outcome).set(getattr(consumer.counters, outcome))


class ObjectDataRefs:
    """Large events in the object store; the reference is ``key#size``."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    async def put(self, project: str, data: bytes) -> str:
        """As ``DataRefs.put``."""
        reference = await self._objects.put(project, data, "application/protobuf")
        return f"{reference.uri}#{reference.size_bytes}"

    async def get(self, reference: str) -> bytes:
        """As ``DataRefs.get``."""
        key, _, size = reference.partition("#")
        project, _, _, sha256 = key.split("/")
        wanted = ObjectRef(uri=object_key(project, sha256), sha256=sha256, size_bytes=int(size))
        return verified(await self._objects.get(wanted), wanted)


def open_objects(settings: ProcessSettings) -> S3ObjectStore:
    """The object store of the settings."""
    return S3ObjectStore(
        settings.s3_endpoint,
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key.get_secret_value(),
        bucket=settings.s3_bucket,
        region=settings.s3_region,
    )


def open_signer(source: str, settings: StoreSettings) -> Signer:
    """What signs a log: the key of the settings, which must exist, or that of the data folder, made when missing.

    Raises:
        FailedPrecondition: The key is missing or unfit.
    """
    if settings.checkpoint_key_file is not None:
        return Signer.load(source, settings.checkpoint_key_file)
    return Signer.load_or_make(source, settings.data / "checkpoint.key")


__all__ = ["DataRefs", "LogOwner", "ObjectDataRefs", "open_objects", "open_signer"]
