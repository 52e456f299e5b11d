"""The registry: models, their versions, and how a version comes into production.

Owns: models, versions, aliases, gates, validations, approvals, standing approvals. It alone moves aliases.
    Persons: their opaque ids, and their display names in a table that can be deleted.
Consumes: monitor's RollbackRequested; serving's EndpointCreated, RoutesChanged, VersionBlocked.
Emits: ModelCreated, VersionCreated, VersionValidated, VersionApproved, VersionRejected, FormatConsentRecorded,
    GatesSet, StandingApprovalGranted, StandingApprovalRevoked, VersionPromoted, VersionRolledBack, RollbackRefused,
    RoutesNoted, ModelCardWritten, VersionCardWritten, VersionArchived, ModelDescribed, ModelTagsChanged, ModelDeleted,
    VersionDescribed, VersionTagsChanged, VersionDeleted, AliasRemoved, PersonAdded, PersonErased.
Guarantees: no promotion without its gates; each move of an alias is a compare-and-set on its revision, once per
    command.
"""
