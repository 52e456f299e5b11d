"""A whole service process's parts on real PostgreSQL, Kafka and S3: from a command to Kafka, and a clean stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import Int64Value
from pydantic import SecretStr

from headrace.api.audit.v1 import service_pb2 as service
from headrace.api.audit.v1.service_pb2_grpc import AuditServiceStub
from headrace_kit.app import Application
from headrace_kit.rpc import channel
from headrace_kit.service import LogOwner, ObjectDataRefs
from headrace_kit.settings import StoreSettings
from headrace_kit.testing import OPERATOR_CALLER, write_tokens
from headrace_local.testing import FreshDatabase, Infrastructure
from tests.support.counters import add
from tests.support.kit import until


@pytest.fixture
def settings(
    infrastructure: Infrastructure, database: FreshDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> StoreSettings:
    store = infrastructure.bucket()
    given = {
        "DATA": str(tmp_path),
        "POSTGRES_DSN": database.service_dsn,
        "MIGRATION_DSN": database.migration_dsn,
        "KAFKA_BOOTSTRAP": infrastructure.addresses.kafka_bootstrap,
        "S3_ENDPOINT": store.endpoint,
        "S3_ACCESS_KEY": store.access_key,
        "S3_SECRET_KEY": store.secret_key,
        "S3_BUCKET": store.bucket,
        "GRPC_LISTEN": "127.0.0.1:0",
        "METRICS_LISTEN": "127.0.0.1:0",
        "TOKEN_FILE": str(tmp_path / "token"),
        "TOKENS_FILE": str(write_tokens(tmp_path / "tokens.json", [OPERATOR_CALLER])),
    }
    (tmp_path / "token").write_text(OPERATOR_CALLER.token)
    for name, value in given.items():
        monkeypatch.setenv(f"HEADRACE_{name}", value)
    return StoreSettings()  # pyright: ignore[reportCallIssue]  # the fields come from the environment


@asynccontextmanager
async def running(application: Application) -> AsyncIterator[Any]:
    stop = asyncio.Event()
    task = asyncio.create_task(application.run(stop))

    async def ready() -> bool:
        if task.done():
            task.result()
        return not await application.unready()

    try:
        await until(ready, within_s=20)
        assert application.server is not None
        async with channel(f"127.0.0.1:{application.server.port}", OPERATOR_CALLER.token) as opened:
            yield AuditServiceStub(opened)
    finally:
        stop.set()
        await task


async def test_a_command_reaches_the_log_and_kafka(settings: StoreSettings) -> None:
    owner = await LogOwner.open("registry", settings, [Int64Value])
    async with running(owner.application([])) as stub:
        await add(owner.store, "c", 1, 2, 3)

        async def relayed() -> bool:
            status: service.GetLogStatusResponse = await stub.GetLogStatus(service.GetLogStatusRequest())
            return status.last_position == status.relayed_position == 3

        await until(relayed, within_s=20)
        page = await stub.ReadLog(service.ReadLogRequest())
    assert [(each.source, each.version) for each in page.entries] == [("headrace/registry", n) for n in (1, 2, 3)]


async def test_it_outlives_its_database(settings: StoreSettings, infrastructure: Infrastructure) -> None:
    owner = await LogOwner.open("registry", settings, [Int64Value])
    async with running(owner.application([])) as stub:
        await add(owner.store, "c", 1)
        killed = infrastructure.kill("postgres")
        await add(owner.store, "c", 2)  # waits, and finds out what became of it
        await asyncio.to_thread(infrastructure.wait_ready, "postgres", other_than=killed)
        await add(owner.store, "c", 3)

        async def relayed() -> bool:
            try:
                status: service.GetLogStatusResponse = await stub.GetLogStatus(service.GetLogStatusRequest())
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                return False
            return status.last_position == status.relayed_position == 3

        await until(relayed, within_s=30)


async def test_large_events_lie_in_the_object_store(settings: StoreSettings) -> None:
    owner = await LogOwner.open("registry", settings, [Int64Value])
    places = ObjectDataRefs(owner.objects)
    reference = await places.put("default", b"x" * 300_000)
    assert await places.get(reference) == b"x" * 300_000
    await owner.objects.close()
    await owner.database.close()


async def test_settings_never_show_their_secrets(settings: StoreSettings) -> None:
    shown = f"{settings!r} {settings}"
    for secret in (settings.postgres_dsn, settings.migration_dsn, settings.s3_secret_key):
        assert isinstance(secret, SecretStr)
        assert secret.get_secret_value() not in shown
