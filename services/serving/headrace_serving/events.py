"""The event types serving owns."""

from headrace.api.serving.v1 import events_pb2

EVENT_TYPES = (
    events_pb2.EndpointCreated,
    events_pb2.EndpointConfigured,
    events_pb2.RoutesChanged,
    events_pb2.RolloutStarted,
    events_pb2.RolloutStepAdvanced,
    events_pb2.RolloutCompleted,
    events_pb2.RolloutAborted,
    events_pb2.VersionBlocked,
    events_pb2.VersionUnblocked,
)
"""Every event of an endpoint's stream."""
