"""What people do around the loop: set it up, let the first version serve, and once release in a hurry."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar
from uuid import uuid4

import grpc

import headrace
from flights import data, pipeline
from flights.replay import SLOT_S
from headrace.api.monitor.v1 import resources_pb2 as monitor_resources
from headrace.api.monitor.v1 import service_pb2 as monitor
from headrace.api.registry.v1 import resources_pb2 as registry_resources
from headrace.api.registry.v1 import service_pb2 as registry
from headrace.api.serving.v1 import resources_pb2 as serving_resources
from headrace.api.serving.v1 import service_pb2 as serving

ENDPOINT: Final = f"projects/default/endpoints/{pipeline.ENDPOINT}"
MONITOR: Final = "projects/default/monitors/delays"
FIRST_UNTIL: Final = "2013-03-01T00:00:00Z"
"""The first model knows January and February."""
RETRAIN_TRIGGER: Final = "drift"
DAY_S: Final = 24 * 3600
PATIENCE_S: Final = 180.0
"""How long a service may be away."""
_AWAY: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED)

Q = TypeVar("Q")
R = TypeVar("R")


def train_first(*, careless: bool = False) -> str:
    """Train and register a version from January and February by a pipeline run; returns its resource name."""
    run = pipeline.retrain.start(until=FIRST_UNTIL, careless=careless)
    run.wait(timeout_s=300)
    return str(run.output("register", str))


def open_endpoint(client: headrace.Client, version: str) -> None:
    """Approve the first version, promote it, and set up gates, endpoint, monitor, and the trigger of retraining."""
    gates = registry_resources.Gates(
        alias=pipeline.ALIAS,
        required_checks=pipeline.CHECKS,
        approval_required=True,
        compatible_signature_required=True,
    )
    client.registry.SetGates(registry.SetGatesRequest(command_id=_id(), model=pipeline.MODEL, gates=gates))
    approve_and_promote(client, version, reason="the first model: better than guessing by the departure delay")
    standing = registry_resources.StandingApproval(
        id="retrained-and-better",
        alias=pipeline.ALIAS,
        required_checks=["beats-champion"],
        grantees=["services/serving"],
        reason="retrained versions that beat the one that serves may take its place after a canary",
    )
    standing.expire_time.FromDatetime(datetime.now(UTC) + timedelta(days=90))
    client.registry.GrantStandingApproval(
        registry.GrantStandingApprovalRequest(command_id=_id(), model=pipeline.MODEL, standing_approval=standing)
    )
    client.serving.CreateEndpoint(
        serving.CreateEndpointRequest(
            command_id=_id(),
            name=ENDPOINT,
            model=pipeline.MODEL,
            alias=pipeline.ALIAS,
            telemetry=serving_resources.TELEMETRY_MODE_DURABLE,
        )
    )
    client.monitor.CreateMonitor(
        monitor.CreateMonitorRequest(
            command_id=_id(), name=MONITOR, endpoint=pipeline.ENDPOINT, config=monitor_settings()
        )
    )
    pipeline.retrain.on_event(
        RETRAIN_TRIGGER,
        "headrace.monitor.v1.RetrainRequested",
        match={"endpoint": pipeline.ENDPOINT},
        parameters={"until": "data_until", "endpoint": "endpoint"},
        newest_only=True,
        client=client,
    )


def monitor_settings() -> monitor_resources.MonitorConfig:
    """What the monitor watches and does; the reasons stand in docs/decisions."""
    return monitor_resources.MonitorConfig(
        task=monitor_resources.TASK_KIND_REGRESSION,
        prediction_column=data.TARGET,
        slot_s=SLOT_S,
        lateness_s=2 * SLOT_S,
        minimum_samples=50,
        consecutive_slots=4,
        cooldown_s=14 * DAY_S,
        # The clock's own features change with daylight saving time, and that is no drift.
        features=[name for name in data.FEATURES if name not in ("hour", "weekday")],
        false_alarm_budget=1.0,
        drift_action=monitor_resources.DRIFT_ACTION_RETRAIN,
        roll_back_bad_versions=True,
        bad_version_factor=2.5,
        alias=pipeline.ALIAS,
        model=pipeline.MODEL,
    )


def approve_and_promote(client: headrace.Client, version: str, *, reason: str) -> str:
    """Approve a version as a person and promote it without a canary; returns the promotion's event id."""
    review = registry.ReviewVersionRequest(command_id=_id(), version=version, approve=True, reason=reason)
    patiently(client.registry.ReviewVersion, review)
    promote = registry.PromoteVersionRequest(
        command_id=_id(), version=version, alias=pipeline.ALIAS, expected_revision=-1, reason=reason
    )
    return patiently(client.registry.PromoteVersion, promote).promotion.event_id


def patiently(call: Callable[[Q], R], request: Q) -> R:
    """Call until there is an answer: a read, or a write whose command id makes its repeats harmless.

    Raises:
        grpc.RpcError: The service refused, or was away for longer than ``PATIENCE_S``.
    """
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call(request)
        except grpc.RpcError as error:
            if error.code() not in _AWAY or time.monotonic() > give_up:
                raise
        time.sleep(0.2)


def wait_until_serving(client: headrace.Client, version: str, *, within_s: float = 60.0) -> None:
    """Wait until the endpoint answers from a version alone. Raises TimeoutError."""
    deadline = time.monotonic() + within_s
    request = serving.GetEndpointRequest(name=ENDPOINT)
    while True:
        routes = client.serving.GetEndpoint(request).endpoint.routes
        if [(route.version, route.weight) for route in routes] == [(version, 100)]:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{ENDPOINT} does not answer from {version}: see the log of serving")
        time.sleep(0.05)


def rollout_under_way(client: headrace.Client) -> bool:
    """Whether a candidate is being rolled out now."""
    endpoint = client.serving.GetEndpoint(serving.GetEndpointRequest(name=ENDPOINT)).endpoint
    return endpoint.HasField("rollout")


def _id() -> str:
    return str(uuid4())
