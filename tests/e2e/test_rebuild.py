"""Every read model of every service, made anew from its log on a running platform."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import grpc
import pytest

from headrace.api.audit.v1 import service_pb2 as audit
from headrace.api.registry.v1 import service_pb2 as registry
from headrace.client import Client
from headrace.connection import SERVICES
from headrace_local import accounts, psql
from tests.support.eventually import eventually
from tests.support.platform import Platform
from tests.support.world import World, build

pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]
STORIES = {
    "tracking": "LogParams LogMetrics ChangeTags LogDataset LogArtifact LogModelArtifact FinishRun ResumeRun LogMetrics"
    " StartRun",
    "registry": "CreateModel RecordValidation ReviewVersion GrantStandingApproval PromoteVersion ArchiveVersion"
    " RevokeStandingApproval RollBackAlias PromoteVersion",
    "orchestrator": "RegisterPipeline SetSchedule SetTrigger RemoveSchedule RemoveTrigger CancelPipelineRun",
    "serving": "CreateEndpoint ConfigureEndpoint BlockVersion UnblockVersion SetRoutes StartRollout AbortRollout",
    "monitor": "ConfigureMonitor PauseMonitor",
}
"""Commands, each right by itself; some are refused, as their place in the story wants it."""
SOMETIMES_EMPTY = {"alerts", "archived_ranges"}
"""Tables of which other tests make rows."""
Headrace = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def world(platform: Platform) -> World:
    with platform.client() as client, Client(platform.connection_of("orchestrator")) as author:
        made = build(client, author, f"t-{uuid4().hex[:12]}")
        for service, names in STORIES.items():
            area = service.capitalize()
            for name in names.split() * 2:
                full = f"headrace.api.{service}.v1.{area}Service.{name}"
                with suppress(grpc.RpcError):
                    getattr(getattr(client, service), name)(made.valid(full))
    return made


@pytest.fixture(scope="module")
def headrace(platform: Platform) -> Headrace:
    """Runs the command line against the platform."""
    environment = {**os.environ, "HEADRACE_DATA": str(platform.folder), "COLUMNS": "200", "NO_COLOR": "1"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / "headrace"), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    return run


def rebuild(client: Client, service: str, *, check: bool) -> audit.RebuildReport:
    *progress, last = client.log(service).RebuildReadModels(audit.RebuildReadModelsRequest(check=check))
    assert all(each.HasField("progress") for each in progress)
    return last.report


def digests(report: audit.RebuildReport) -> dict[str, tuple[int, bytes]]:
    return {table.table: (table.rows, table.sha256) for table in report.tables}


@pytest.mark.parametrize("service", SERVICES)
def test_every_read_model_comes_out_the_same(platform: Platform, world: World, service: str) -> None:
    with platform.client() as client:

        def twice() -> tuple[audit.RebuildReport, audit.RebuildReport]:
            return rebuild(client, service, check=True), rebuild(client, service, check=False)

        def settled(found: tuple[audit.RebuildReport, audit.RebuildReport]) -> bool:
            """Whether nothing came between the two, and what comes from other services' logs has come."""
            one, other = map(digests, found)
            return one == other and {table for table, (rows, _) in one.items() if not rows} <= SOMETIMES_EMPTY

        checked, rebuilt = eventually(twice, settled)

        assert not checked.swapped
        assert rebuilt.swapped
        assert all(table.differing == 0 for report in (checked, rebuilt) for table in report.tables)
        assert rebuilt.locked_s < 1.0
        listed = client.registry.ListModels(registry.ListModelsRequest(parent=world.parent))
        assert world.model in {each.name for each in listed.models}


def test_every_log_verifies_after_the_rebuilds(world: World, headrace: Headrace) -> None:
    assert world.model

    def verdicts() -> list[dict[str, object]]:
        for service in SERVICES:
            assert headrace("log", "rebuild", service).returncode == 0
        done = headrace("log", "verify", "--json")
        return json.loads(done.stdout) if done.returncode == 0 else []

    found = eventually(verdicts, bool, within_s=60)
    assert {each["service"] for each in found} == set(SERVICES)
    assert all(each["sound"] and each["entries"] for each in found)


def test_an_altered_row_is_named_and_mended(platform: Platform, world: World, headrace: Headrace) -> None:
    where = platform.addresses.postgres_dsn.rpartition("/")[0] + "/headrace_registry"
    program = accounts.binaries(user=None) / "psql"
    platform.call(psql.execute(program, where, f"UPDATE models SET project = 'other' WHERE name = '{world.model}';"))

    plain = headrace("log", "rebuild", "registry", "--check")
    as_json = headrace("log", "rebuild", "registry", "--check", "--json")

    assert plain.returncode == as_json.returncode == 1
    assert f'models {{"name": "{world.model}"}} differed in project' in plain.stdout
    tables = {table["table"]: table for table in json.loads(as_json.stdout)["tables"]}
    assert tables["models"]["differing"] == 1
    assert json.loads(tables["models"]["differences"][0]["key"]) == {"name": world.model}
    assert headrace("log", "rebuild", "registry").returncode == 0
    assert headrace("log", "rebuild", "registry", "--check").returncode == 0


def test_only_operators_may_rebuild(platform: Platform) -> None:
    with Client(platform.connection_of("serving")) as client, pytest.raises(grpc.RpcError) as refused:
        rebuild(client, "registry", check=True)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_what_is_no_service_is_refused(headrace: Headrace) -> None:
    done = headrace("log", "rebuild", "gateway")
    assert done.returncode == 1
    assert "SERVICE is one of tracking" in done.stderr
