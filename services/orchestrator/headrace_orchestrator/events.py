"""The event types the orchestrator owns."""

from headrace.api.orchestrator.v1 import events_pb2

EVENT_TYPES = (
    events_pb2.PipelineRegistered,
    events_pb2.ScheduleSet,
    events_pb2.ScheduleRemoved,
    events_pb2.ScheduleFired,
    events_pb2.TriggerSet,
    events_pb2.TriggerRemoved,
    events_pb2.TriggerSuppressed,
    events_pb2.PipelineRunStarted,
    events_pb2.StepLeased,
    events_pb2.StepCompleted,
    events_pb2.StepFailed,
    events_pb2.PipelineRunSucceeded,
    events_pb2.PipelineRunFailed,
    events_pb2.PipelineRunCancelled,
    events_pb2.PipelineRunResumed,
)
"""Every event of the streams of pipelines and pipeline runs."""
