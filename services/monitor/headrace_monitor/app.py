"""Wires the monitor: control side, decider, and the counting process beside it."""

from __future__ import annotations

from datetime import timedelta

from headrace.api.monitor.v1.service_pb2_grpc import (
    add_ArchiveServiceServicer_to_server,
    add_MonitorServiceServicer_to_server,
    add_TelemetryServiceServicer_to_server,
)
from headrace.api.registry.v1.events_pb2 import VersionCreated, VersionPromoted, VersionRolledBack
from headrace.kafka.client import partitions_of
from headrace.kafka.ledger import Kind
from headrace.kafka.producer import TelemetryProducer
from headrace.kafka.shards import LABELS_TOPIC, PREDICTIONS_TOPIC
from headrace_kit.app import Application
from headrace_kit.lease import Leadership
from headrace_kit.service import LogOwner
from headrace_monitor.archive_rpc import ArchiveServicer
from headrace_monitor.archivestore import ARCHIVED_RANGE, ArchiveStore
from headrace_monitor.archiving import LEASE, ArchivePolicy, Archiver
from headrace_monitor.config import MonitorSettings
from headrace_monitor.countstore import CountStore
from headrace_monitor.deciding import Decider
from headrace_monitor.erasing import Eraser, keep_archive
from headrace_monitor.erasurestore import ErasureStore
from headrace_monitor.events import EVENT_TYPES
from headrace_monitor.handlers import note_alias, note_version
from headrace_monitor.rpc import MonitorServicer
from headrace_monitor.store import MONITOR, REGISTRY_TABLES, MonitorStore
from headrace_monitor.supervising import Child
from headrace_monitor.telemetry_rpc import TelemetryServicer
from headrace_monitor.windowstore import WindowStore

TELEMETRY = (PREDICTIONS_TOPIC, LABELS_TOPIC)


async def build(settings: MonitorSettings) -> Application:
    """The monitor's process."""
    owner = await LogOwner.open("monitor", settings, EVENT_TYPES, [MONITOR, ARCHIVED_RANGE])
    owner.project(
        "monitor.registry",
        ["registry"],
        {VersionCreated: note_version, VersionPromoted: note_alias, VersionRolledBack: note_alias},
        tables=REGISTRY_TABLES,
    )
    producer = TelemetryProducer(settings.kafka_bootstrap)
    decider = Decider(
        owner.store,
        CountStore(owner.database),
        WindowStore(owner.database),
        topics={Kind.PREDICTIONS: PREDICTIONS_TOPIC, Kind.LABELS: LABELS_TOPIC},
        partitions=lambda: partitions_of(settings.kafka_bootstrap, PREDICTIONS_TOPIC),
        idle_s=settings.idle_s,
        every_s=settings.decide_every_s,
        seal_every=timedelta(seconds=settings.seal_every_s),
    )
    archives = ArchiveStore(owner.database)
    archiver = Archiver(
        owner.store,
        archives,
        owner.objects,
        kafka=owner.kafka,
        policy=ArchivePolicy(
            close_after=timedelta(seconds=settings.archive_after_s),
            max_bytes=settings.archive_range_bytes,
            keep=timedelta(days=settings.telemetry_keep_days),
        ),
    )
    erasures = ErasureStore(owner.database)
    eraser = Eraser(
        owner.store,
        archives,
        erasures,
        owner.objects,
        archiver,
        kafka=owner.kafka,
        topics=TELEMETRY,
    )
    leadership = Leadership(owner.database, LEASE)
    application = owner.application(
        [
            (
                add_MonitorServiceServicer_to_server,
                MonitorServicer(owner.store, MonitorStore(owner.database), owner.objects),
            ),
            (add_TelemetryServiceServicer_to_server, TelemetryServicer(producer)),
            (add_ArchiveServiceServicer_to_server, ArchiveServicer(owner.store, archives, erasures, owner.objects)),
        ]
    )
    application.tasks["decider"] = decider.run
    application.tasks["archive"] = lambda: leadership.run(
        lambda fence: keep_archive(archiver, eraser, fence, topics=TELEMETRY, every_s=settings.archive_every_s)
    )
    application.tasks["streams"] = Child("headrace_monitor.streams").run
    application.close.insert(0, producer.stop)
    return application
