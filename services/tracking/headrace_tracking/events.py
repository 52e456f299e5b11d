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
    events_pb2.ExperimentRenamed,
    events_pb2.ExperimentTagsChanged,
    events_pb2.ExperimentDeleted,
    events_pb2.ExperimentRestored,
    events_pb2.RunRenamed,
    events_pb2.RunDeleted,
    events_pb2.RunRestored,
    events_pb2.RunPurged,
    events_pb2.ModelsLinked,
    events_pb2.LoggedModelCreated,
    events_pb2.LoggedModelArtifactLogged,
    events_pb2.LoggedModelAnnotated,
    events_pb2.LoggedModelFinished,
    events_pb2.LoggedModelDeleted,
    events_pb2.TracesDeleted,
    events_pb2.TracesExpired,
)
"""Every event of an experiment's, a run's or a logged model's stream."""
