"""The registry: models, their versions, and how a version comes into production.

Owns: models, versions, aliases, gates, validations, approvals, standing approvals. It alone moves aliases.
Consumes: monitor's RollbackRequested.
Emits: ModelCreated, VersionCreated, VersionValidated, VersionApproved, VersionRejected, GatesSet,
    StandingApprovalGranted, StandingApprovalRevoked, VersionPromoted, VersionRolledBack, RollbackRefused,
    VersionArchived, ModelDescribed, ModelTagsChanged, ModelDeleted, VersionDescribed, VersionTagsChanged,
    VersionDeleted, AliasRemoved.
Guarantees: no promotion without its gates; each move of an alias is a compare-and-set on its revision, once per
    command.
"""
