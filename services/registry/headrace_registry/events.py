"""The event types the registry owns."""

from headrace.api.registry.v1 import events_pb2

EVENT_TYPES = (
    events_pb2.ModelCreated,
    events_pb2.VersionCreated,
    events_pb2.VersionValidated,
    events_pb2.VersionApproved,
    events_pb2.VersionRejected,
    events_pb2.FormatConsentRecorded,
    events_pb2.GatesSet,
    events_pb2.StandingApprovalGranted,
    events_pb2.StandingApprovalRevoked,
    events_pb2.VersionPromoted,
    events_pb2.VersionRolledBack,
    events_pb2.RollbackRefused,
    events_pb2.RoutesNoted,
    events_pb2.ModelCardWritten,
    events_pb2.VersionCardWritten,
    events_pb2.VersionArchived,
    events_pb2.ModelRenamed,
    events_pb2.ModelDescribed,
    events_pb2.ModelTagsChanged,
    events_pb2.ModelDeleted,
    events_pb2.VersionDescribed,
    events_pb2.VersionTagsChanged,
    events_pb2.VersionDeleted,
    events_pb2.AliasRemoved,
    events_pb2.SigningKeyTrusted,
    events_pb2.SigningKeyWithdrawn,
    events_pb2.PackageSigned,
    events_pb2.PersonAdded,
    events_pb2.PersonErased,
    events_pb2.WebhookCreated,
    events_pb2.WebhookChanged,
    events_pb2.WebhookDeleted,
)
"""Every event of the streams of models, persons and webhooks."""
