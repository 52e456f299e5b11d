"""The event types tracking owns."""

from headrace.api.tracking.v1 import events_pb2

EVENT_TYPES = (
    events_pb2.ExperimentCreated,
    events_pb2.RunStarted,
    events_pb2.RunResumed,
    events_pb2.ParamsLogged,
    events_pb2.TagsChanged,
    events_pb2.MetricsRecorded,
    events_pb2.DatasetLogged,
    events_pb2.ArtifactLogged,
    events_pb2.RunFinished,
)
"""Every event of an experiment's or a run's stream."""
