"""The registry: models, their versions, and how a version comes into production.

Owns: models, versions, aliases, gates, validations, approvals, standing approvals. It alone moves aliases.
    Persons: their opaque ids, and their display names in a table that can be deleted.
    Webhooks: whom it tells of its events; their URLs and secrets in a table that no event tells.
Consumes: monitor's RollbackRequested; serving's EndpointCreated, RoutesChanged, VersionBlocked.
Emits: ModelCreated, VersionCreated, VersionValidated, VersionApproved, VersionRejected, FormatConsentRecorded,
    GatesSet, StandingApprovalGranted, StandingApprovalRevoked, VersionPromoted, VersionRolledBack, RollbackRefused,
    RoutesNoted, ModelCardWritten, VersionCardWritten, VersionArchived, ModelRenamed, ModelDescribed,
    ModelTagsChanged, ModelDeleted, VersionDescribed, VersionTagsChanged, VersionDeleted, AliasRemoved, PersonAdded,
    PersonErased, WebhookCreated, WebhookChanged, WebhookDeleted.
Guarantees: no promotion without its gates; each move of an alias is a compare-and-set on its revision, once per
    command. Webhooks get each event at least once, signed, or it is a dead letter that can be re-driven.
"""
