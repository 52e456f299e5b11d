-- What the registry said last of the signatures and keys of versions (headrace.api.registry.v1.PackageTrust), so that a
-- load while the registry is away verifies by that.

ALTER TABLE versions ADD COLUMN trust bytea NOT NULL DEFAULT '';
