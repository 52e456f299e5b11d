"""The monitor's whole process, spoken to over gRPC: publish, count, alert, subscribe, refuse."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import grpc
import numpy as np
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from headrace.api.common.v1.resources_pb2 import ObjectRef
from headrace.api.common.v1.telemetry_pb2 import LabelBatch, PredictionBatch
from headrace.api.monitor.v1 import resources_pb2 as resources
from headrace.api.monitor.v1 import service_pb2 as service
from headrace.api.monitor.v1.service_pb2_grpc import MonitorServiceStub, TelemetryServiceStub
from headrace.kafka import encode_labels, encode_predictions, new_id
from headrace.reference import reference_profile
from headrace_kit.objects import S3ObjectStore
from headrace_kit.rpc import channel
from headrace_local.testing import FreshDatabase, Infrastructure
from tests.support.telemetry import HOUR_US, World, hourly, service_environment

if TYPE_CHECKING:
    from headrace.api.monitor.v1.service_pb2_grpc import MonitorServiceAsyncStub, TelemetryServiceAsyncStub

ROWS = 200


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def let_in(environment: dict[str, str]) -> str:
    """Lets the bearer of the token in the environment in as the operator; returns the token."""
    token = Path(environment["HEADRACE_TOKEN_FILE"]).read_text(encoding="ascii")
    digest = hashlib.sha256(token.encode()).hexdigest()
    operator = {"sha256": digest, "principal": "persons/operator", "roles": ["operator"]}
    Path(environment["HEADRACE_TOKENS_FILE"]).write_text(json.dumps([operator]), encoding="ascii")
    return token


@dataclass(slots=True)
class Service:
    """A running monitor."""

    monitors: MonitorServiceAsyncStub
    telemetry: TelemetryServiceAsyncStub
    environment: dict[str, str]
    process: asyncio.subprocess.Process


@asynccontextmanager
async def running(
    infrastructure: Infrastructure, fresh: FreshDatabase, folder: Path, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Service]:
    environment = {**service_environment(infrastructure, fresh, folder), **(settings or {})}
    address = f"127.0.0.1:{free_port()}"
    environment |= {"HEADRACE_GRPC_LISTEN": address, "HEADRACE_METRICS_LISTEN": f"127.0.0.1:{free_port()}"}
    token = let_in(environment)
    with (folder / "log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "headrace_monitor", env=environment, stdout=log, stderr=log
        )
    link = channel(address, lambda: token)
    service_ = Service(MonitorServiceStub(link), TelemetryServiceStub(link), environment, process)
    try:
        await link.channel_ready()
        yield service_
    finally:
        await link.close()
        if process.returncode is None:
            os.kill(process.pid, signal.SIGTERM)
        async with asyncio.timeout(30):
            status = await process.wait()
    assert status == 0, (folder / "log").read_text()[-4000:]


class Publisher:
    """Publishes hours of traffic of an application that serves its own model."""

    def __init__(self, stub: TelemetryServiceAsyncStub, world: World) -> None:
        self._stub, self._world = stub, world
        self._generator = np.random.default_rng(3)
        self._seq = 0
        self._producer = f"app-{uuid4()}"

    async def hour(self, hour: int, *, shift: float = 0.0, error: float = 0.3) -> None:
        self._seq += 1
        ids = [new_id(3) for _ in range(ROWS)]
        x = self._generator.normal(size=ROWS) + shift
        start = hour * HOUR_US
        batch = self._world.predictions(ids, x, x, times_us=[start] * ROWS, shard=3, version="app-model")
        known = self._world.labels(ids, [0] * ROWS, x + error, time_us=start, shard=3)
        await self._stub.PublishPredictions(
            service.PublishPredictionsRequest(
                batches=[encode_predictions(batch, producer_id=self._producer, epoch=1, seq=self._seq)]
            )
        )
        await self._stub.PublishLabels(
            service.PublishLabelsRequest(
                batches=[encode_labels(known, producer_id=self._producer, epoch=1, seq=self._seq)]
            )
        )


async def create(service_: Service, world: World, config: resources.MonitorConfig) -> resources.Monitor:
    response = await service_.monitors.CreateMonitor(
        service.CreateMonitorRequest(
            command_id=str(uuid4()), name=world.monitor, endpoint=world.endpoint, config=config
        )
    )
    return response.monitor


async def counts(service_: Service, world: World) -> service.GetCountsResponse:
    return await service_.monitors.GetCounts(
        service.GetCountsRequest(endpoint=f"projects/{world.project}/endpoints/{world.endpoint}")
    )


async def decided_until_us(service_: Service, world: World) -> int:
    """As a list shows it, which is as the monitor itself does; -1 while it is absent."""
    listed = await service_.monitors.ListMonitors(service.ListMonitorsRequest(parent="projects/default"))
    found = await service_.monitors.GetMonitor(service.GetMonitorRequest(name=world.monitor))
    [until] = [each.decided_until for each in listed.monitors if each.name == world.monitor]
    assert until.ToMicroseconds() <= found.monitor.decided_until.ToMicroseconds()
    return found.monitor.decided_until.ToMicroseconds() if found.monitor.HasField("decided_until") else -1


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_published_telemetry_is_counted_and_shown_by_window(
    infrastructure: Infrastructure, database: FreshDatabase, tmp_path: Path
) -> None:
    world = World()
    async with running(infrastructure, database, tmp_path) as service_:
        monitor = await create(service_, world, hourly(lateness_s=3600))
        assert monitor.config.false_alarm_budget == 1.0
        assert await decided_until_us(service_, world) == -1
        publisher = Publisher(service_.telemetry, world)
        for hour in range(12):
            await publisher.hour(hour)

        async with asyncio.timeout(60):
            while (await counts(service_, world)).labels_joined < 12 * ROWS:
                await asyncio.sleep(0.1)
            windows: list[resources.Window] = []
            while sum(each.closed for each in windows) < 9:
                await asyncio.sleep(0.1)
                request = service.ListWindowsRequest(monitor=world.monitor)
                windows = list((await service_.monitors.ListWindows(request)).windows)

        found = await counts(service_, world)
        assert (found.predictions, found.labels_joined, found.batches_lost) == (12 * ROWS, 12 * ROWS, 0)
        assert [each.predictions for each in windows] == [ROWS] * 12
        assert windows[0].mean_error == pytest.approx(0.3, abs=1e-5)
        closed = [each.start.ToMicroseconds() for each in windows if each.closed]
        async with asyncio.timeout(30):
            while (await decided_until_us(service_, world)) < closed[-1]:
                await asyncio.sleep(0.1)


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_subscriber_gets_each_alert_once_and_goes_on_after_its_cursor(
    infrastructure: Infrastructure, database: FreshDatabase, tmp_path: Path
) -> None:
    world = World()
    async with running(infrastructure, database, tmp_path) as service_:
        config = hourly(lateness_s=3600, cooldown_s=3600, consecutive_slots=1)
        config.reference_profile.CopyFrom(await stored_profile(service_.environment))
        await create(service_, world, config)
        publisher = Publisher(service_.telemetry, world)
        for hour in range(8):
            await publisher.hour(hour, shift=0.0 if hour < 4 else 3.0)
        subscribe = service_.monitors.SubscribeAlerts
        request = service.SubscribeAlertsRequest(parent="projects/default", monitor=world.monitor)

        async with asyncio.timeout(90):
            stream = aiter(subscribe(request))
            first, second = await anext(stream), await anext(stream)
            request.cursor = first.cursor
            again = await anext(aiter(subscribe(request)))

        assert first.alert.findings[0].channel in {"input:x", "prediction"}
        assert first.alert.slot.ToMicroseconds() == 4 * HOUR_US
        assert again == second
        acknowledged = await service_.monitors.AcknowledgeAlert(
            service.AcknowledgeAlertRequest(command_id=str(uuid4()), alert=first.alert.name, note="seen")
        )
        assert acknowledged.alert.acknowledged_by == "persons/operator"
        listed = await service_.monitors.ListAlerts(service.ListAlertsRequest(parent="projects/default"))
        assert [each.name for each in listed.alerts][-2:] == [second.alert.name, first.alert.name]
        assert listed.alerts[-1].acknowledged_by == "persons/operator"


async def stored(environment: dict[str, str], content: bytes) -> ObjectRef:
    """Bytes in the object store."""
    objects = S3ObjectStore(
        environment["HEADRACE_S3_ENDPOINT"],
        access_key=environment["HEADRACE_S3_ACCESS_KEY"],
        secret_key=environment["HEADRACE_S3_SECRET_KEY"],
        bucket=environment["HEADRACE_S3_BUCKET"],
    )
    return await objects.put("default", content, "application/protobuf")


async def stored_profile(environment: dict[str, str]) -> ObjectRef:
    """The reference of a standard normal world, in the object store."""
    x = np.random.default_rng(5).normal(size=4000)
    profile = reference_profile({"x": x}, x, x + 0.3 + 0.01 * x, prediction_name="y")
    return await stored(environment, profile.SerializeToString())


@pytest.mark.timeout(120)
async def test_what_is_wrong_is_refused_by_its_field(
    infrastructure: Infrastructure, database: FreshDatabase, tmp_path: Path
) -> None:
    world = World()
    async with running(infrastructure, database, tmp_path) as service_:
        batch = encode_predictions(
            world.predictions([new_id(1)], np.zeros(1), np.zeros(1), times_us=[0], shard=1),
            producer_id="app",
            epoch=1,
            seq=1,
        )
        batch.columns[1].values = b"short"
        sha256 = "0" * 64
        lost = hourly()
        lost.reference_profile.CopyFrom(ObjectRef(uri=f"default/sha256/00/{sha256}", sha256=sha256, size_bytes=3))
        unsound = hourly()
        unsound.reference_profile.CopyFrom(
            await stored(service_.environment, resources.ReferenceProfile(error_edges=[2.0, 1.0]).SerializeToString())
        )
        publish = service_.telemetry.PublishPredictions
        for call, field in (
            (publish(service.PublishPredictionsRequest(batches=[batch])), "batches[0].columns[1].values"),
            (publish(service.PublishPredictionsRequest()), "batches"),
            (publish(service.PublishPredictionsRequest(batches=[PredictionBatch()])), "batches[0].project"),
            (
                service_.telemetry.PublishLabels(service.PublishLabelsRequest(batches=[LabelBatch()])),
                "batches[0].project",
            ),
            (create(service_, world, resources.MonitorConfig()), "config.task"),
            (create(service_, world, hourly(false_alarm_budget=float("nan"))), "config.false_alarm_budget"),
            (create(service_, world, hourly(error_detector="'; DROP TABLE")), "config.error_detector"),
            (create(service_, World("Ümlaut"), hourly()), "name"),
            (create(service_, world, lost), "config.reference_profile"),
            (create(service_, world, unsound), "config.reference_profile"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert field in str(caught.value.trailing_metadata())
        first = await create(service_, world, hourly())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service_.monitors.CreateMonitor(
                service.CreateMonitorRequest(
                    command_id=str(uuid4()), name=f"{world.monitor}-2", endpoint=world.endpoint, config=hourly()
                )
            )
        assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service_.monitors.ConfigureMonitor(
                service.ConfigureMonitorRequest(command_id=str(uuid4()), name=first.name, config=hourly(slot_s=60))
            )
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_masks_change_one_setting_and_show_one_field(
    infrastructure: Infrastructure, database: FreshDatabase, tmp_path: Path
) -> None:
    world = World()
    async with running(infrastructure, database, tmp_path) as service_:
        created = await create(service_, world, hourly(cooldown_s=7200))

        changed = await service_.monitors.ConfigureMonitor(
            service.ConfigureMonitorRequest(
                command_id=str(uuid4()),
                name=created.name,
                config=resources.MonitorConfig(minimum_samples=77),
                update_mask=FieldMask(paths=["minimum_samples"]),
            )
        )
        listed = await service_.monitors.ListMonitors(
            service.ListMonitorsRequest(
                parent=world.monitor.rpartition("/monitors/")[0], read_mask=FieldMask(paths=["config.minimum_samples"])
            )
        )

        wanted = resources.MonitorConfig()
        wanted.CopyFrom(created.config)
        wanted.minimum_samples = 77
        assert changed.monitor.config == wanted
        assert list(listed.monitors) == [resources.Monitor(config=resources.MonitorConfig(minimum_samples=77))]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service_.monitors.ListMonitors(
                service.ListMonitorsRequest(
                    parent=world.monitor.rpartition("/monitors/")[0], read_mask=FieldMask(paths=["nmae"])
                )
            )
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "read_mask" in str(caught.value.trailing_metadata())
