"""The event types the monitor owns."""

from headrace.api.monitor.v1 import events_pb2

EVENT_TYPES = (
    events_pb2.MonitorCreated,
    events_pb2.MonitorConfigured,
    events_pb2.MonitorPaused,
    events_pb2.AlertRaised,
    events_pb2.AlertAcknowledged,
    events_pb2.RetrainRequested,
    events_pb2.RollbackRequested,
    events_pb2.WindowsSealed,
    events_pb2.TelemetryArchived,
    events_pb2.ArchiveRewritten,
)
"""Every event of the streams of monitors and of archived ranges."""
