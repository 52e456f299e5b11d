"""A bad network: PostgreSQL, Kafka and gRPC behind proxies that delay, choke, reset, forsake and go silent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

import grpc
import pytest

from headrace.api.registry.v1.service_pb2 import CreateModelRequest, ListModelsRequest
from headrace.client import Client
from headrace.connection import find
from headrace.errors import error_details
from headrace.story import read_logs
from headrace_kit.testing import Conditions, FaultProxy
from headrace_local.stack import Stack
from headrace_local.testing import Infrastructure, temporary_folder
from tests.chaos.backbone.members import refused
from tests.chaos.backbone.scene import Stage, at_rest, grows, passes, staged
from tests.support import history
from tests.support.eventually import eventually
from tests.support.proxied import proxy_kafka, proxy_postgres

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]
MORE_MEMORY = 64 << 20
"""Bytes that no part may have grown by while its network was away."""


@pytest.fixture(scope="module")
def servers() -> Iterator[Infrastructure]:
    """Servers of this module's own, and one service on them."""
    with temporary_folder() as folder:
        running = Infrastructure(Stack(folder / "data", only=["registry"]))
        running.start()
        try:
            yield running
        finally:
            running.stop()


@pytest.fixture(scope="module")
def postgres(servers: Infrastructure) -> Iterator[FaultProxy]:
    """The way to PostgreSQL."""
    proxy = proxy_postgres(servers)
    yield proxy
    servers.call(proxy.stop())


@pytest.fixture(scope="module")
def kafka(servers: Infrastructure) -> Iterator[FaultProxy]:
    """The way to Kafka."""
    proxy = proxy_kafka(servers)
    yield proxy
    proxy.conditions = Conditions()
    servers.call(proxy.stop())


@pytest.fixture
def stage(servers: Infrastructure, postgres: FaultProxy, kafka: FaultProxy, tmp_path: Path) -> Iterator[Stage]:
    """A scene whose parts have no other way to their servers."""
    postgres.conditions = kafka.conditions = Conditions()
    with staged(servers, tmp_path, postgres=postgres.address, kafka=kafka.address) as scene:
        for part in ("keeper", "writer", "answerer", "folder"):
            scene.start(part)
        grows(scene, by=60)
        yield scene
        postgres.conditions = kafka.conditions = Conditions()


def test_jitter_and_a_slow_link_cost_time_alone(stage: Stage, postgres: FaultProxy, kafka: FaultProxy) -> None:
    postgres.conditions = Conditions(latency_s=0.005, jitter_s=0.03, bytes_per_s=100_000)
    kafka.conditions = Conditions(latency_s=0.02, jitter_s=0.2, bytes_per_s=50_000)
    grows(stage, by=300)

    assert refused(stage.folder).total() == 0
    postgres.conditions = kafka.conditions = Conditions()
    assert at_rest(stage) == []


def test_resets_in_the_middle_of_anything_lose_and_repeat_nothing(
    servers: Infrastructure, stage: Stage, postgres: FaultProxy, kafka: FaultProxy
) -> None:
    before = postgres.resets, kafka.resets
    for _ in range(4):
        postgres.conditions = Conditions(resets=0.01)
        kafka.conditions = Conditions(resets=0.05)
        grows(stage, by=100)
        servers.call(_reset(postgres, kafka))
    postgres.conditions = kafka.conditions = Conditions()

    assert postgres.resets - before[0] > 10
    assert kafka.resets - before[1] > 4
    assert at_rest(stage) == []


def test_half_open_connections_and_a_black_hole_fire_deadlines_and_fill_no_memory(
    servers: Infrastructure, stage: Stage, postgres: FaultProxy, kafka: FaultProxy
) -> None:
    before = stage.resident()
    # The servers keep connections, and transactions on them, whose clients are gone.
    servers.call(_forsake_servers(postgres, kafka))
    grows(stage, by=60)
    # The clients keep connections whose servers are gone: only their deadlines tell them.
    servers.call(_forsake_clients(postgres, kafka))
    replaced = grows(stage, by=60)
    postgres.conditions = kafka.conditions = Conditions(silent=True)
    passes(35)  # for longer than the store tries
    assert refused(stage.folder).total() > 0
    postgres.conditions = kafka.conditions = Conditions()
    back = grows(stage, by=60)
    after = stage.resident()

    print(f"60 appends, half-open connections found and replaced: {replaced:.1f} s")
    print(f"60 appends after 35 s of silence: {back:.1f} s; refused meanwhile: {dict(refused(stage.folder))}")
    assert {part: after[part] - before[part] for part in before if after[part] - before[part] > MORE_MEMORY} == {}
    assert at_rest(stage) == []


class Caller:
    """Calls the registry by threads, until each call is acknowledged; one command id for all attempts of a call."""

    def __init__(self, client: Client, *, deadline_s: float) -> None:
        self.client = client
        self.acknowledged: list[str] = []
        self.failed: list[grpc.StatusCode] = []
        self.longest_s = 0.0
        self._deadline_s = deadline_s

    def create(self, name: str) -> None:
        """Create a model."""
        request = CreateModelRequest(command_id=str(uuid5(NAMESPACE_URL, name)), name=name)
        while True:
            began = time.monotonic()
            try:
                self.client.registry.CreateModel(request, timeout=self._deadline_s)
                self.acknowledged.append(name)
                return
            except grpc.RpcError as error:
                self.failed.append(error_details(error)[0])
            finally:
                self.longest_s = max(self.longest_s, time.monotonic() - began)

    def names(self) -> list[str]:
        """Every model there is, as the service lists them."""
        request, found = ListModelsRequest(parent="projects/net", page_size=500), list[str]()
        while True:
            page = self.client.registry.ListModels(request)
            found += [model.name for model in page.models]
            request.page_token = page.next_page_token
            if not page.next_page_token:
                return found


@pytest.fixture
def link(servers: Infrastructure) -> Iterator[FaultProxy]:
    """The way to the registry."""
    host, _, port = servers.addresses.grpc["registry"].partition(":")
    proxy = FaultProxy(host, int(port))
    servers.call(proxy.start())
    yield proxy
    servers.call(proxy.stop())


def test_calls_over_a_bad_network_end_by_their_deadline_and_act_once(servers: Infrastructure, link: FaultProxy) -> None:
    direct = find(servers.stack.folder.path, {})
    with Client(replace(direct, addresses={"registry": link.address})) as client, ThreadPoolExecutor(4) as threads:
        caller = Caller(client, deadline_s=2.0)

        def create(conditions: Conditions, count: int, then: Callable[[], None] = lambda: None) -> float:
            begun, began = len(caller.acknowledged), time.monotonic()
            link.conditions = conditions
            calls = [
                threads.submit(caller.create, f"projects/net/models/m{number}")
                for number in range(begun, begun + count)
            ]
            then()
            for call in calls:
                call.result(60)
            return time.monotonic() - began

        def black_hole() -> None:
            passes(5)
            link.conditions = Conditions()

        create(Conditions(latency_s=0.02, jitter_s=0.1, bytes_per_s=50_000), 40)
        assert caller.failed == []
        create(Conditions(resets=0.05), 100)
        assert link.resets > 10
        create(Conditions(), 4)  # over a connection that stands: one that was just reset fails at once
        create(Conditions(silent=True), 20, black_hole)
        assert grpc.StatusCode.DEADLINE_EXCEEDED in caller.failed
        servers.call(_forsake_clients(link))
        took = create(Conditions(), 20)

        print(f"{len(caller.failed)} calls failed; the longest took {caller.longest_s:.1f} s of 2 s; ")
        print(f"20 calls, a half-open channel found and replaced: {took:.1f} s")
        assert caller.longest_s < 4
        with Client(direct) as straight:
            listed = Caller(straight, deadline_s=10).names()
            entries = eventually(lambda: read_logs(straight), lambda log: len(log) >= len(listed))
    assert sorted(listed) == sorted(caller.acknowledged)
    assert sorted(each.stream_id for each in entries) == sorted(caller.acknowledged)
    assert list(history.commands_repeated(entries)) == []


async def _reset(*proxies: FaultProxy) -> None:
    for proxy in proxies:
        proxy.reset()


async def _forsake_servers(*proxies: FaultProxy) -> None:
    for proxy in proxies:
        proxy.forsake("server")


async def _forsake_clients(*proxies: FaultProxy) -> None:
    for proxy in proxies:
        proxy.forsake("client")
