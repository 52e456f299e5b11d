"""How the stack runs services, on stand-ins that do what any service does.

They read their environment, say when they are ready, and drain at SIGTERM.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import asyncpg
import psutil
import pytest

from headrace_local import External, Stack
from headrace_local.errors import PartFailed
from headrace_local.names import SERVICES
from headrace_local.testing import Infrastructure
from tests.support.processes import lives

pytestmark = pytest.mark.timeout(120)

STAND_IN = """
import http.server, json, os, pathlib, signal, socket, sys, threading

folder = pathlib.Path(os.environ["HEADRACE_DATA"])
(folder / "environment.json").write_text(json.dumps({k: v for k, v in os.environ.items() if k.startswith("HEADRACE_")}))


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()


def drain(*_):
    host, port = os.environ["HEADRACE_KAFKA_BOOTSTRAP"].split(":")
    socket.create_connection((host, int(port)), timeout=2).close()  # infrastructure still stands
    (folder / "drained").touch()
    threading.Thread(target=server.shutdown).start()


host, port = os.environ["HEADRACE_METRICS_LISTEN"].split(":")
server = http.server.HTTPServer((host, int(port)), Handler)
signal.signal(signal.SIGTERM, drain)
print("serving", flush=True)
server.serve_forever()
"""


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Modules under the services' names that come before them."""
    modules = tmp_path / "modules"
    for service in SERVICES:
        package = modules / f"headrace_{service}"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(modules))
    return modules


def environment_of(stack: Stack, service: str) -> dict[str, str]:
    found: dict[str, str] = json.loads((stack.folder.scratch(service) / "environment.json").read_text())
    return found


def text_of(path: str | Path) -> str:
    return Path(path).read_text()


async def test_all_services_run_and_drain_before_the_infrastructure(stand_ins: Path, data: Path) -> None:
    async with Stack(data) as stack:
        assert list(stack.supervised) == ["postgres", "kafka", "s3", *SERVICES]
        processes = [psutil.Process(item.pid) for item in stack.supervised.values()]

    assert all((stack.folder.scratch(service) / "drained").exists() for service in SERVICES)
    assert not [process for process in processes if lives(process)]


async def test_a_service_enters_its_own_database_in_two_roles_and_no_other(stand_ins: Path, data: Path) -> None:
    async with Stack(data, only=["tracking", "registry"]) as stack:
        own, other = environment_of(stack, "tracking"), environment_of(stack, "registry")
        connection = await asyncpg.connect(own["HEADRACE_POSTGRES_DSN"])
        assert await connection.fetchval("SELECT current_database()") == "headrace_tracking"
        assert await connection.fetchval("SELECT current_user") == "headrace_tracking"
        await connection.close()
        connection = await asyncpg.connect(own["HEADRACE_MIGRATION_DSN"])
        await connection.execute("CREATE TABLE proof (id int)")
        await connection.close()
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await asyncpg.connect(other["HEADRACE_POSTGRES_DSN"].rpartition("/")[0] + "/headrace_tracking")


async def test_clients_find_everything_in_the_connection_file(stand_ins: Path, data: Path) -> None:
    async with Stack(data) as stack:
        connection = json.loads(stack.folder.connection.read_text())
        where = stack.addresses

        assert stack.folder.connection.stat().st_mode & 0o777 == 0o600
        assert connection["version"] == 1
        assert set(connection["addresses"]) == {"tracking", "registry", "orchestrator", "serving", "monitor"}
        assert connection["addresses"]["monitor"] == environment_of(stack, "monitor")["HEADRACE_GRPC_LISTEN"]
        assert connection["serving_url"] == f"http://{environment_of(stack, 'serving')['HEADRACE_HTTP_LISTEN']}"
        assert connection["kafka_bootstrap"] == where.kafka_bootstrap

        token = text_of(connection["token_file"]).encode()
        known = {entry["sha256"]: entry for entry in json.loads(stack.folder.tokens.read_text())}
        assert known[hashlib.sha256(token).hexdigest()]["principal"] == "persons/operator"
        for service in SERVICES:
            own = text_of(environment_of(stack, service)["HEADRACE_TOKEN_FILE"]).encode()
            assert known[hashlib.sha256(own).hexdigest()]["principal"] == f"services/{service}"


async def test_a_part_of_the_services_hears_of_no_other(stand_ins: Path, data: Path) -> None:
    async with Stack(data, only=["tracking"]) as stack:
        environment = environment_of(stack, "tracking")

        assert "HEADRACE_TRACKING_ADDRESS" in environment
        assert "HEADRACE_REGISTRY_ADDRESS" not in environment
        assert stack.console_link() == ""


async def test_services_run_on_existing_servers_whose_administrators_key_they_do_not_get(
    stand_ins: Path, data: Path, infrastructure: Infrastructure, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = infrastructure.addresses
    monkeypatch.setenv("HEADRACE_POSTGRES_DSN", where.postgres_dsn)
    external = External(postgres_dsn=where.postgres_dsn, kafka_bootstrap=where.kafka_bootstrap, s3=where.s3)

    async with Stack(data, only=["registry", "gateway"], external=external) as stack:
        assert list(stack.supervised) == ["registry", "gateway"]
        environment = environment_of(stack, "registry")
        assert environment["HEADRACE_KAFKA_BOOTSTRAP"] == where.kafka_bootstrap
        connection = await asyncpg.connect(environment["HEADRACE_POSTGRES_DSN"])
        assert await connection.fetchval("SELECT current_user") == "headrace_registry"
        await connection.close()
        assert "HEADRACE_POSTGRES_DSN" not in environment_of(stack, "gateway")


async def test_the_consoles_link_carries_the_code_whose_digest_the_gateway_reads(stand_ins: Path, data: Path) -> None:
    async with Stack(data, only=["gateway"]) as stack:
        link = stack.console_link()

        code = link.rpartition("=")[2]
        kept = text_of(environment_of(stack, "gateway")["HEADRACE_CONSOLE_CODE_FILE"])
        assert link.startswith(f"{stack.addresses.gateway_url}/enter?code=")
        assert kept == hashlib.sha256(code.encode()).hexdigest()


async def test_a_service_that_cannot_start_fails_the_start_with_its_log(stand_ins: Path, data: Path) -> None:
    (stand_ins / "headrace_registry" / "__main__.py").write_text("raise SystemExit('no such setting')")

    with pytest.raises(PartFailed, match=r"(?s)registry keeps dying while it starts; its log is .*no such setting"):
        await Stack(data, only=["tracking", "registry"]).start()

    assert (data / "services" / "tracking" / "drained").exists()  # what had started was stopped in order
