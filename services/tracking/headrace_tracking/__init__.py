"""Tracking: every run's parameters, metrics, code, data, environment and artifacts; searchable, comparable.

Owns: experiments, runs, metric points, artifacts' descriptions.
Consumes: nothing.
Emits: ExperimentCreated, RunStarted, RunResumed, ParamsLogged, TagsChanged, MetricsRecorded, DatasetLogged,
    ArtifactLogged, RunFinished.
Guarantees: what was acknowledged is committed, once per command id; metric points are
    committed with their MetricsRecorded.
"""
