"""The monitor: drift, quality and performance of what endpoints answer, found while it happens.

Owns: monitors, their settings, alerts; slots, windows and the join of labels with predictions;
    the archive of telemetry.
Consumes: telemetry (predictions, labels); registry's VersionCreated, VersionPromoted, VersionRolledBack.
Emits: MonitorCreated, MonitorConfigured, MonitorPaused, AlertRaised, AlertAcknowledged, RetrainRequested,
    RollbackRequested, WindowsSealed, TelemetryArchived, ArchiveRewritten.
Guarantees: counts are exact whatever is killed when; a slot is decided once; the same frozen slots decide the same.
"""
