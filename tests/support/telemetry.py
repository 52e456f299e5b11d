"""Telemetry made up for tests: batches of a small world, reference profiles, monitors, and what should be counted."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from headrace.api.common.v1 import telemetry_pb2
from headrace.api.monitor.v1 import resources_pb2 as resources
from headrace.api.monitor.v1.events_pb2 import MonitorCreated
from headrace.api.monitor.v1.resources_pb2 import ColumnProfile, MonitorConfig, ReferenceProfile
from headrace.kafka import ColumnData, Labels, Predictions
from headrace_kit.context import CommandContext
from headrace_kit.eventstore import EventStore
from headrace_local.testing import FreshDatabase, Infrastructure
from headrace_monitor.requests import completed
from headrace_monitor.store import MONITOR

PROJECT = "default"
VERSION = "projects/default/models/m/versions/1"
HOUR_US = 3_600_000_000

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class World:
    """One endpoint of a test's own."""

    endpoint: str = field(default_factory=lambda: f"e-{uuid4().hex[:8]}")
    project: str = PROJECT

    @property
    def monitor(self) -> str:
        """Name of its monitor."""
        return f"projects/{self.project}/monitors/{self.endpoint}"

    def predictions(
        self, ids: list[str], x: Floats, predicted: Floats, *, times_us: list[int], shard: int, version: str = VERSION
    ) -> Predictions:
        """A batch of requests with equally many rows, one input ``x`` and one output ``y``."""
        rows = len(x) // max(len(ids), 1)
        return Predictions(
            project=self.project,
            endpoint=self.endpoint,
            model_version=version,
            shard=shard,
            ids=ids,
            row_counts=np.full(len(ids), rows, dtype="<u4"),
            times_us=np.array(times_us, dtype="<i8"),
            columns=[ColumnData.of("x", x), ColumnData.of("y", predicted, telemetry_pb2.COLUMN_ROLE_OUTPUT)],
        )

    def labels(self, ids: list[str], rows: list[int], values: Floats, *, time_us: int, shard: int) -> Labels:
        """A batch of labels."""
        return Labels(
            project=self.project,
            endpoint=self.endpoint,
            shard=shard,
            ids=ids,
            row_counts=np.ones(len(ids), dtype="<u4"),
            rows=np.array(rows, dtype="<u4"),
            times_us=np.full(len(ids), time_us, dtype="<i8"),
            values=ColumnData.of("label", values),
        )


def profile_of() -> ReferenceProfile:
    """A profile with bins for ``x``, the prediction ``y`` and the error, and no history."""
    edges = [-1.5, -0.5, 0.0, 0.5, 1.5]
    counts = [67, 242, 191, 191, 242, 67, 0]
    return ReferenceProfile(
        inputs=[ColumnProfile(name="x", edges=edges, counts=counts)],
        prediction=ColumnProfile(name="y", edges=edges, counts=counts),
        rows=1000,
        mean_error=0.5,
        error_stddev=0.5,
        error_edges=[0.25, 0.5, 1.0],
        slot_s=3600,
    )


async def create_monitor(store: EventStore, world: World, config: MonitorConfig) -> None:
    """Writes the monitor of an endpoint as its service would."""
    config = completed(config)
    created = MonitorCreated(monitor=world.monitor, endpoint=world.endpoint, config=config, creator="persons/operator")
    created.time.FromDatetime(datetime.now(UTC))
    await store.execute(
        MONITOR,
        world.monitor,
        context=CommandContext(uuid4(), "persons/operator", datetime.now(UTC)),
        request=created,
        decide=lambda _: [created],
        respond=lambda monitor: monitor,
    )


def hourly(**settings: object) -> MonitorConfig:
    """Settings of a regression monitor with slots of an hour."""
    config = MonitorConfig(task=resources.TASK_KIND_REGRESSION, prediction_column="y", slot_s=3600)
    for name, value in settings.items():
        setattr(config, name, value)
    return config


def service_environment(infrastructure: Infrastructure, fresh: FreshDatabase, folder: Path) -> Mapping[str, str]:
    """Environment of a monitor's process on test infrastructure; listens on ports of the kernel's choice."""
    folder.mkdir(parents=True, exist_ok=True)
    token = folder / "token"
    token.write_text(secrets.token_hex(16))
    tokens = folder / "tokens.json"
    tokens.write_text(json.dumps([]))
    s3 = infrastructure.addresses.s3
    assert s3 is not None
    return {
        **os.environ,
        "HEADRACE_DATA": str(folder),
        "HEADRACE_POSTGRES_DSN": fresh.service_dsn,
        "HEADRACE_MIGRATION_DSN": fresh.migration_dsn,
        "HEADRACE_KAFKA_BOOTSTRAP": infrastructure.addresses.kafka_bootstrap,
        "HEADRACE_S3_ENDPOINT": s3.endpoint,
        "HEADRACE_S3_ACCESS_KEY": s3.access_key,
        "HEADRACE_S3_SECRET_KEY": s3.secret_key,
        "HEADRACE_S3_BUCKET": s3.bucket,
        "HEADRACE_GRPC_LISTEN": "127.0.0.1:0",
        "HEADRACE_METRICS_LISTEN": "127.0.0.1:0",
        "HEADRACE_TOKEN_FILE": str(token),
        "HEADRACE_TOKENS_FILE": str(tokens),
    }
