"""Wires tracking."""

from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import add_TraceServiceServicer_to_server

from headrace.api.tracking.v1.service_pb2_grpc import add_TrackingServiceServicer_to_server
from headrace_kit.app import Application
from headrace_kit.audit import RemoteLogReader
from headrace_kit.service import LogOwner
from headrace_tracking.census import Census
from headrace_tracking.claims import Claims
from headrace_tracking.config import TrackingSettings
from headrace_tracking.events import EVENT_TYPES
from headrace_tracking.metrics import MetricWriter
from headrace_tracking.otlp_rpc import OtlpServicer
from headrace_tracking.outputs import OutputStore
from headrace_tracking.pointstore import PointStore
from headrace_tracking.purging import Purger
from headrace_tracking.rpc import TrackingServicer
from headrace_tracking.sealing import Sealer
from headrace_tracking.store import EXPERIMENT, LOGGED_MODEL, RUN, RunStore
from headrace_tracking.tracedeleting import TraceDeleter
from headrace_tracking.tracestore import TraceStore


async def build(settings: TrackingSettings) -> Application:
    """Tracking's process."""
    owner = await LogOwner.open("tracking", settings, EVENT_TYPES, [EXPERIMENT, RUN, LOGGED_MODEL])
    points = PointStore(owner.database)
    sealer = Sealer(owner.store, points)
    writer = MetricWriter(points, sealer)
    await sealer.recover()
    peers = [name for name in owner.settings.peers() if name != owner.name]
    claims = Claims(owner.database, {name: RemoteLogReader(owner.peer(name)) for name in peers})
    traces, deleter = TraceStore(owner.database), TraceDeleter(owner.store, settings.traces_keep)
    servicer = TrackingServicer(
        owner.store,
        RunStore(owner.database),
        points,
        census=Census(owner.database),
        outputs=OutputStore(owner.database),
        writer=writer,
        purger=Purger(owner.store, owner.objects, claims),
        traces=traces,
        deleter=deleter,
        objects=owner.objects,
    )
    application = owner.application(
        [
            (add_TrackingServiceServicer_to_server, servicer),
            (add_TraceServiceServicer_to_server, OtlpServicer(servicer)),
        ]
    )
    application.tasks["traces"] = deleter.run
    application.close.insert(0, writer.close)
    return application
