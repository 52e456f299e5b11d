"""The stack as a whole: starts, restarts, faults. Each test has a data folder of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from pathlib import Path

import asyncpg
import psutil
import pytest
from rich.console import Console

from headrace_local import Stack, jars, psql
from headrace_local.accounts import ROOT_STATE, binaries
from headrace_local.detached import stop as stop_folder
from headrace_local.errors import DataFolderInUse, DataFolderVersion, DiskFull, JarDigest, PartFailed, PortTaken
from headrace_local.external import External
from headrace_local.files import read_json, write_json
from headrace_local.folder import DataFolder, owner_of
from headrace_local.kafka_admin import create_topics
from headrace_local.ports import is_free
from headrace_local.testing import Infrastructure
from headrace_local.topics import Topic
from tests.support.processes import eventually, lives, start_supervisor, tmpfs


async def query(stack: Stack, sql: str) -> str:
    return (await psql.execute(binaries(user=None) / "psql", stack.addresses.postgres_dsn, sql)).strip()


async def test_data_and_ports_outlive_an_orderly_stop(data: Path) -> None:
    async with Stack(data, only={"postgres", "s3"}) as first:
        ports = first.addresses
        await query(first, "CREATE TABLE kept AS SELECT 5 AS value")

    async with Stack(data, only={"postgres", "s3"}) as second:
        assert second.addresses == ports
        assert await query(second, "SELECT value FROM kept") == "5"


@pytest.mark.timeout(120)
async def test_kill_9_of_the_supervisor_leaves_no_orphan_and_the_next_start_recovers_all(data: Path) -> None:
    supervisor = await asyncio.to_thread(start_supervisor, data, only="postgres,kafka,s3")
    children = psutil.Process(supervisor.pid).children(recursive=True)
    assert len(children) > 5  # Java, rclone, PostgreSQL and its workers
    ports = [int(str(port)) for port in (read_json(DataFolder(data).ports) or {}).values()]
    password = (DataFolder(data).secrets / "postgres.password").read_text()
    connection = await asyncpg.connect(f"postgresql://headrace_admin:{password}@127.0.0.1:{ports[0]}/postgres")
    await connection.execute("CREATE TABLE kept AS SELECT 11 AS value")

    supervisor.kill()
    supervisor.wait()
    connection.terminate()

    await asyncio.to_thread(eventually, lambda: not [child for child in children if lives(child)], within_s=10)
    assert all(is_free(port) for port in ports)
    async with Stack(data, only={"postgres", "kafka", "s3"}) as again:
        assert await query(again, "SELECT value FROM kept") == "11"
        assert not [note for note in again.notes if "is taken" in note]


def test_sigterm_of_the_supervisor_stops_everything_in_order(data: Path) -> None:
    supervisor = start_supervisor(data, only="postgres,s3")
    children = psutil.Process(supervisor.pid).children(recursive=True)

    assert stop_folder(DataFolder(data), Console(quiet=True))

    assert supervisor.wait(10) == 0
    assert not [child for child in children if lives(child)]
    assert not DataFolder(data).state.exists()
    assert "database system is shut down" in DataFolder(data).log("postgres").read_text()


async def test_a_second_start_says_who_runs_it(data: Path) -> None:
    async with Stack(data, only={"s3"}):
        with pytest.raises(DataFolderInUse, match=f"already run by process {os.getpid()}"):
            await Stack(data, only={"s3"}).start()


async def test_a_folder_of_another_version_is_refused_untouched(data: Path) -> None:
    async with Stack(data, only={"s3"}):
        pass
    folder = DataFolder(data)
    marker = {**(read_json(folder.marker) or {}), "version": 999}
    write_json(folder.marker, marker)

    with pytest.raises(DataFolderVersion, match=r"its layout is 999, this version reads 1"):
        await Stack(data, only={"s3"}).start()

    assert read_json(folder.marker) == marker
    assert owner_of(folder) is None


async def test_a_cluster_of_another_postgresql_is_refused(data: Path) -> None:
    async with Stack(data, only={"postgres"}):
        pass
    (data / "postgres" / "PG_VERSION").write_text("17\n")

    with pytest.raises(DataFolderVersion, match=r"was made by PostgreSQL 17, and this is PostgreSQL \d+;"):
        await Stack(data, only={"postgres"}).start()


async def test_kafka_keeps_its_log_when_its_ports_move(data: Path) -> None:
    async with Stack(data, only={"kafka"}) as first:
        await create_topics(first.addresses.kafka_bootstrap, [Topic("kept", 1)])
    file = DataFolder(data).ports
    file.unlink()

    async with Stack(data, only={"kafka"}) as second:
        assert second.addresses.kafka_bootstrap != first.addresses.kafka_bootstrap
        assert await create_topics(second.addresses.kafka_bootstrap, [Topic("kept", 1)]) == []  # it is there


async def test_a_pinned_port_that_is_taken_is_an_error(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} for postgres is in use"):
            await Stack(data, only={"postgres"}, port_base=port).start()


async def test_a_remembered_port_that_is_taken_is_chosen_anew_and_said(data: Path) -> None:
    async with Stack(data, only={"s3"}) as first:
        port = first.supervised["s3"].part.address.rpartition(":")[2]

    with socket.create_server(("127.0.0.1", int(port))):
        async with Stack(data, only={"s3"}) as second:
            assert second.supervised["s3"].part.address.rpartition(":")[2] != port
            assert second.notes == [n for n in second.notes if f"port {port} of s3 is taken" in n] != []


async def test_a_jar_with_a_wrong_digest_stops_the_start(data: Path, tmp_path: Path) -> None:
    locked = jars.read_lock(jars.lock_file())
    cache = tmp_path / "cache"
    (cache / "jars").mkdir(parents=True)
    for jar in locked:
        (cache / "jars" / jar.filename).write_bytes(b"not the jar")

    with pytest.raises(JarDigest, match=r"HdrHistogram.*is not the locked"):
        await Stack(data, only={"kafka"}, cache=cache).start()

    assert owner_of(DataFolder(data)) is None


async def test_secrets_are_readable_by_the_owner_alone(data: Path) -> None:
    async with Stack(data, only={"postgres", "s3"}) as stack:
        files = list(stack.folder.secrets.iterdir())
        assert {path.name for path in files} >= {"postgres.password", "s3.password", "operator.token"}
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
        assert stack.folder.secrets.stat().st_mode & 0o777 == 0o700
        processes = [psutil.Process(item.pid) for item in stack.supervised.values()]
        secrets = [path.read_text() for path in files]
        assert not [secret for secret in secrets for process in processes if secret in " ".join(process.cmdline())]


async def test_servers_listen_on_loopback_alone(data: Path) -> None:
    async with Stack(data, only={"postgres", "s3"}) as stack:
        for item in stack.supervised.values():
            listening = [c.laddr.ip for c in psutil.Process(item.pid).net_connections("inet") if c.status == "LISTEN"]
            assert set(listening) == {"127.0.0.1"}


async def test_existing_servers_are_used_and_nothing_is_started(data: Path, infrastructure: Infrastructure) -> None:
    where = infrastructure.addresses
    external = External(postgres_dsn=where.postgres_dsn, kafka_bootstrap=where.kafka_bootstrap, s3=where.s3)

    async with Stack(data, services=False, external=external) as stack:
        assert stack.supervised == {}
        assert stack.addresses.postgres_dsn == where.postgres_dsn


@pytest.mark.parametrize("name", ["postgres_dsn", "kafka_bootstrap"])
async def test_an_existing_server_that_does_not_answer_is_named(data: Path, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    address = f"127.0.0.1:{port}"
    external = (
        External(postgres_dsn=f"postgresql://x:secret@{address}/postgres")
        if name == "postgres_dsn"
        else External(kafka_bootstrap=address)
    )

    with pytest.raises(PartFailed, match=f"HEADRACE_{name.upper()}") as raised:
        await Stack(data, only={name.partition("_")[0]}, external=external).start()
    assert "secret" not in str(raised.value)


@pytest.mark.root
async def test_as_root_postgresql_runs_as_another_user_and_it_is_said(data: Path) -> None:
    async with Stack(data, only={"postgres"}) as stack:
        assert psutil.Process(stack.supervised["postgres"].pid).uids().real != 0
        assert "running as root: PostgreSQL runs as" in stack.notes[0]


@pytest.mark.root
async def test_as_root_a_closed_data_folder_keeps_its_cluster_elsewhere(data: Path) -> None:
    data.parent.chmod(0o700)
    try:
        async with Stack(data, only={"postgres"}) as stack:
            assert not (data / "postgres").exists()
            assert "cannot enter" in stack.notes[1]
            await query(stack, "CREATE TABLE kept AS SELECT 3 AS value")
        async with Stack(data, only={"postgres"}) as stack:
            assert await query(stack, "SELECT value FROM kept") == "3"
    finally:
        marker = read_json(DataFolder(data).marker)
        assert marker is not None
        shutil.rmtree(ROOT_STATE / "clusters" / str(marker["id"]))


@pytest.mark.root
async def test_a_full_disk_is_told_before_anything_starts(data: Path) -> None:
    with tmpfs(data, size_mib=8), pytest.raises(DiskFull, match="has 7 MiB free"):
        await Stack(data, only={"postgres"}).start()


@pytest.mark.root
async def test_a_disk_that_fills_up_while_starting_is_told(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace_local.stack.LEAST_FREE_BYTES", 0)
    with tmpfs(data, size_mib=8), pytest.raises(DiskFull, match="no space left for PostgreSQL's cluster"):
        await Stack(data, only={"postgres"}).start()
