"""Tracking: every run's parameters, metrics, code, data, environment and artifacts; searchable, comparable.

Owns: experiments, runs, logged models, metric points, traces, artifacts' descriptions.
Consumes: nothing.
Emits: ExperimentCreated, RunStarted, RunResumed, ParamsLogged, TagsChanged, MetricsRecorded, DatasetLogged,
    ArtifactLogged, RunFinished, RunRenamed, RunDeleted, RunRestored, ModelsLinked, ExperimentRenamed,
    ExperimentTagsChanged, ExperimentDeleted, ExperimentRestored, LoggedModelCreated, LoggedModelArtifactLogged,
    LoggedModelAnnotated, LoggedModelFinished, LoggedModelDeleted, TracesDeleted, TracesExpired.
Guarantees: what was acknowledged is committed, once per command id; metric points are
    sealed by a MetricsRecorded within a second.
"""
