"""Serving: endpoints, and the Open Inference Protocol over gRPC and REST.

Owns: endpoints, their routes and rollouts, blocked versions.
Consumes: registry's VersionPromoted and VersionRolledBack; monitor's RollbackRequested.
Emits: EndpointCreated, EndpointConfigured, RoutesChanged, RolloutStarted, RolloutStepAdvanced, RolloutCompleted,
    RolloutAborted, VersionBlocked, VersionUnblocked; predictions as telemetry.
Guarantees: a swap drops no request; a blocked version never answers; what telemetry drops is counted.
"""
