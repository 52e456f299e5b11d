"""A projection's code changes and migrates by a rebuild: two releases of the registry, and clients all the while."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest

from headrace.api.registry.v1 import service_pb2 as service
from headrace.api.registry.v1.service_pb2_grpc import RegistryServiceStub
from headrace.client import Client as Platform
from headrace.connection import Connection
from headrace.evidence import Verdict, verify_log
from headrace.evidence.verifying import keys_of_platform
from headrace.export import resolve
from headrace_kit.postgres import connected
from headrace_kit.rpc import channel
from headrace_local.services import http_status
from headrace_local.testing import FreshDatabase, Infrastructure
from tests.integration.monitor.test_service import free_port, let_in
from tests.support.telemetry import service_environment

pytestmark = pytest.mark.timeout(180)
TRIED_AGAIN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
"""As services take their peers' answers: a server that stops cancels what it has not begun."""
BEFORE = 1500
"""Models made before the newer release comes, so that the rebuild takes its time."""


class Release:
    """A running release."""

    def __init__(self, process: asyncio.subprocess.Process, *, grpc_port: int, http_port: int) -> None:
        self.process, self.address, self.http_port = process, f"127.0.0.1:{grpc_port}", http_port

    async def ready(self, *, within_s: float = 60.0) -> None:
        """Waits until it says so."""
        async with asyncio.timeout(within_s):
            while await http_status(self.http_port, "/readyz") != 200:
                assert self.process.returncode is None
                await asyncio.sleep(0.05)

    async def is_ready(self) -> bool:
        return await http_status(self.http_port, "/readyz") == 200


@asynccontextmanager
async def release(module: str, environment: dict[str, str], folder: Path) -> AsyncIterator[Release]:
    ports = free_port(), free_port()
    given = environment | {
        "HEADRACE_GRPC_LISTEN": f"127.0.0.1:{ports[0]}",
        "HEADRACE_METRICS_LISTEN": f"127.0.0.1:{ports[1]}",
    }
    with (folder / f"{module}.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", module, env=given, stdout=log, stderr=log)
    running = Release(process, grpc_port=ports[0], http_port=ports[1])
    try:
        yield running
    finally:
        if process.returncode is None:
            os.kill(process.pid, signal.SIGTERM)
        async with asyncio.timeout(40):
            status = await process.wait()
    assert status == 0, (folder / f"{module}.log").read_text()[-4000:]


class Client:
    """Calls the first release that answers, as a balancer with retries does; notes how long a call had to wait."""

    def __init__(self, stubs: Sequence[Any]) -> None:
        self.stubs = list(stubs)
        self.longest_s = 0.0
        self.refused = 0

    async def call(self, method: str, request: Any) -> Any:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            for stub in self.stubs:
                try:
                    answer = await getattr(stub, method)(request, timeout=10)
                except grpc.aio.AioRpcError as error:
                    if error.code() not in TRIED_AGAIN:
                        raise
                    self.refused += 1
                else:
                    self.longest_s = max(self.longest_s, loop.time() - began)
                    return answer
            assert loop.time() - began < 20, "no release answers"
            await asyncio.sleep(0.01)

    async def create(self, project: str) -> str:
        name = f"projects/{project}/models/{uuid4().hex}"
        request = service.CreateModelRequest(command_id=str(uuid4()), name=name)
        await self.call("CreateModel", request)
        return name

    async def names(self, project: str) -> set[str]:
        found: set[str] = set()
        request = service.ListModelsRequest(parent=f"projects/{project}", page_size=1000)
        while True:
            page = await self.call("ListModels", request)
            found |= {each.name for each in page.models}
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token


async def verified(address: str, token: str) -> Verdict:
    """The registry's log, held to what either release signed."""

    def work() -> Verdict:
        with Platform(Connection(addresses={"registry": address}, token=token)) as platform:
            [wanted] = resolve(platform, ["registry"])
            return verify_log(platform, wanted, keys=keys_of_platform(platform, "registry"))

    return await asyncio.to_thread(work)


async def test_clients_see_no_gap_while_a_newer_release_takes_over(
    infrastructure: Infrastructure, database: FreshDatabase, tmp_path: Path
) -> None:
    environment = dict(service_environment(infrastructure, database, tmp_path))
    token = let_in(environment)
    async with release("headrace_registry", environment, tmp_path) as older:
        await older.ready()
        async with channel(older.address, lambda: token) as to_older:
            client = Client([RegistryServiceStub(to_older)])
            made: set[str] = set()
            for _ in range(BEFORE // 50):
                made |= set(await asyncio.gather(*(client.create("many") for _ in range(50))))
            mine: dict[str, set[str]] = {project: set() for project in ("a", "b")}
            stop = asyncio.Event()

            async def live(project: str) -> None:
                while not stop.is_set():
                    mine[project].add(await client.create(project))
                    assert await client.names(project) == mine[project]

            clients = [asyncio.create_task(live(project)) for project in mine]

            async def goes_on() -> None:
                counted = {project: len(names) for project, names in mine.items()}
                while any(len(mine[project]) < count + 5 for project, count in counted.items()):
                    done, _ = await asyncio.wait(clients, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
                    assert not done, [each.exception() for each in done]

            async with (
                release("tests.support.newer_registry", environment, tmp_path) as newer,
                channel(newer.address, lambda: token) as to_newer,
            ):
                client.stubs.append(RegistryServiceStub(to_newer))
                await newer.ready()
                await goes_on()  # what the older one refuses goes to the newer one
                assert not await older.is_ready()
                os.kill(older.process.pid, signal.SIGTERM)
                await older.process.wait()
                await goes_on()
                stop.set()
                await asyncio.gather(*clients)
                assert await client.names("many") == made
                verdict = await verified(newer.address, token)
                assert (verdict.problems, verdict.entries >= BEFORE, verdict.checkpoints > 0) == ((), True, True)
    async with connected(database.migration_dsn) as connection:
        rows = {row["name"]: row["creator"] for row in await connection.fetch("SELECT name, creator FROM models")}
    assert rows == dict.fromkeys(made | mine["a"] | mine["b"], "persons/operator")
    assert client.refused > 0
    assert client.longest_s < 5
